"""The networks: parameter counts, layer order, normalisation constants, binary checks, memory formats."""

import pytest
import torch
from torch import nn

from bayesbinn_nb.library.models import (
    MODELS,
    BinaryExcept,
    ShiftBatchNorm1d,
    ShiftBatchNorm2d,
    assert_binary,
    binary_names,
    binary_predicate,
    build_model,
    model_summary,
)
from bayesbinn_nb.methods.method import is_binary_weight_or_bias

COUNTS = [  # (name, arguments, binary weights, real parameters, input shape, output shape)
    ("toy_mlp", {}, 2 * 64 + 64 * 64 + 64, 129, (4, 2), (4, 1)),
    ("toy_mlp", dict(in_features=1, output_norm=True), 64 + 64 * 64 + 64, 129, (4, 1), (4, 1)),
    ("mnist_mlp", {}, 10_014_720, 0, (4, 1, 28, 28), (4, 10)),
    ("continual_mlp", {}, 89_400, 0, (4, 1, 28, 28), (4, 10)),
    ("vgg_cifar", {}, 14_022_016, 0, (2, 3, 32, 32), (2, 10)),
    ("vgg_cifar", dict(num_classes=100), 14_114_176, 0, (2, 3, 32, 32), (2, 100)),
    ("lrnet_mnist", {}, 1_662_752, 0, (2, 1, 28, 28), (2, 10)),
    ("lrnet_mnist", dict(variant="lrnet"), 1_662_752 - 5120, 5130 + 2 * (32 + 64 + 512), (2, 1, 28, 28), (2, 10)),
    ("lrnet_cifar", {}, 12_973_440, 0, (2, 3, 32, 32), (2, 10)),
    ("bop_binarynet", {}, 14_022_016 - 512 * 7 * 1024, 3850, (2, 3, 32, 32), (2, 10)),  # 3×3 instead of 4×4 features
    ("bop_binarynet", dict(variant="report"), 14_022_016, 3 * 3850, (2, 3, 32, 32), (2, 10)),
    ("latent_study_net", {}, 93_088, 234, (2, 1, 28, 28), (2, 10)),
    (
        "latent_study_net",
        dict(in_channels=3, size=32),
        288 * 3 + 18_432 + 36_864 + 1024 * 64 + 640,
        234,
        (2, 3, 32, 32),
        (2, 10),
    ),
    ("unet", {}, 31_023_680, 130, None, None),
    ("unet", dict(width=4, real_last=False), None, 0, (1, 1, 32, 32), (1, 2, 32, 32)),
]


@pytest.mark.parametrize(
    "name,kwargs,binary,real,shape,out", COUNTS, ids=lambda v: str(v) if isinstance(v, str) else None
)
def test_parameter_counts_and_shapes(name, kwargs, binary, real, shape, out):
    model = build_model(name, **kwargs)
    assert model.arch == dict(name=name, kwargs=kwargs)
    s = model_summary(model)
    if binary is not None:
        assert s.binary == binary
    assert s.real == real
    assert s.binary + s.real == sum(p.numel() for p in model.parameters())
    if shape:
        y = model(torch.randn(shape))
        assert y.shape == out and torch.isfinite(y).all()
        y.float().square().sum().backward()
        assert all(p.grad is not None for p in model.parameters())


def test_layer_order_is_pool_norm_activation():
    kinds = [type(m).__name__ for m in build_model("vgg_cifar", width=8, dense=8)]
    assert kinds[:7] == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "MaxPool2d", "BatchNorm2d", "ReLU"]
    assert kinds[-4:] == ["BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"] and "Dropout" not in kinds
    kinds = [type(m).__name__ for m in build_model("mnist_mlp", hidden=8)]
    assert kinds[:6] == ["Flatten", "Dropout", "Linear", "BatchNorm1d", "ReLU", "Dropout"] and kinds[-2:] == [
        "Linear",
        "BatchNorm1d",
    ]
    assert kinds.count("Dropout") == 4 and kinds.count("Linear") == 4


def test_lr_nets_own_network_pools_last():
    order = [type(m).__name__ for m in build_model("lrnet_mnist", variant="lrnet", width=4, dense=8)]
    assert order[:4] == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"]
    assert [type(m).__name__ for m in build_model("lrnet_mnist", width=4, dense=8)][:4] == [
        "Conv2d",
        "MaxPool2d",
        "BatchNorm2d",
        "ReLU",
    ]


def test_normalisation_constants():
    def norms(model):
        return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    assert {(m.eps, m.momentum, m.affine) for m in norms(build_model("mnist_mlp", hidden=8))} == {(1e-4, 0.15, False)}
    vgg = norms(build_model("vgg_cifar", width=8, dense=8))
    assert [(m.eps, m.momentum, m.affine) for m in vgg] == [(1e-5, 0.2, False)] * 6 + [(1e-5, 0.1, False)] * 3
    assert {(m.eps, m.momentum) for m in norms(build_model("lrnet_mnist", variant="lrnet"))} == {(1e-3, 1e-3)}


def test_dropout_rates_come_through():
    assert [m.p for m in build_model("mnist_mlp", hidden=4).modules() if isinstance(m, nn.Dropout)] == [0.2] * 4
    assert not [m for m in build_model("continual_mlp").modules() if isinstance(m, nn.Dropout)]


@pytest.mark.parametrize("cls,shape", [(ShiftBatchNorm1d, (16, 5)), (ShiftBatchNorm2d, (8, 5, 3, 3))])
def test_shift_batch_norm_is_batch_norm_plus_bias(cls, shape):
    mine, theirs = cls(5), (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(5, eps=1e-3, momentum=0.01)
    bias = torch.randn(5)
    with torch.no_grad():
        mine.bias.copy_(bias), theirs.bias.copy_(bias)
    x = torch.randn(shape) * 3 + 1
    assert torch.allclose(mine(x), theirs(x), atol=1e-6)
    assert torch.allclose(mine.eval()(x), theirs.eval()(x), atol=1e-6)
    assert [n for n, _ in mine.named_parameters()] == ["bias"]


def test_binary_activations_are_binary():
    model = build_model("latent_study_net")
    seen = []
    for n, m in model.named_modules():
        if n.startswith(("conv2", "conv3", "fc1", "fc2")) and isinstance(m, (nn.Conv2d, nn.Linear)):
            m.register_forward_pre_hook(lambda m, args: seen.append(args[0].detach().abs().unique()))
    model(torch.randn(4, 1, 28, 28))
    assert len(seen) == 4 and all(torch.equal(v, torch.ones(1)) for v in seen)


def test_unet_keeps_pixels_aligned_and_refuses_odd_sizes():
    model = build_model("unet", width=2, depth=2).eval()
    assert model(torch.randn(1, 1, 24, 20)).shape == (1, 2, 24, 20)
    with pytest.raises(ValueError, match="divisible by 4"):
        model(torch.randn(1, 1, 30, 30))
    # a change of one pixel moves only outputs around it: padding does not shift the picture
    x = torch.zeros(1, 1, 64, 64)
    y = x.clone()
    y[0, 0, 32, 32] = 1.0
    model = model.double()
    moved = (model(y.double()) - model(x.double())).abs().sum(1)[0].nonzero()
    centre = (moved.min(0).values + moved.max(0).values).float() / 2
    assert (centre - 32).abs().max() <= 3


@pytest.mark.parametrize(
    "name,kwargs,shape",
    [("vgg_cifar", dict(width=8, dense=16), (4, 3, 32, 32)), ("unet", dict(width=4, depth=2), (2, 1, 16, 16))],
)
def test_channels_last_gives_the_same_output(name, kwargs, shape):
    model = build_model(name, **kwargs).eval()
    x = torch.randn(shape)
    y = model(x)
    y2 = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    assert torch.allclose(y, y2, atol=1e-4)


def test_real_layers_and_predicates():
    names = binary_names(build_model("unet", width=2, depth=1))
    assert "out.weight" not in names and "up.0.0.weight" in names
    assert "out.weight" in binary_names(build_model("unet", width=2, depth=1, real_last=False))
    toy = build_model("toy_mlp", hidden=4)
    assert binary_names(toy, binary_predicate(toy, biases=True)) == [n for n, _ in toy.named_parameters()]
    assert model_summary(toy, is_binary_weight_or_bias).real == 0
    assert model_summary(toy, ["fc1.weight"]).binary == 8
    assert repr(BinaryExcept(("out",))) == "BinaryExcept(('out',), biases=False)"
    with pytest.raises(ValueError, match="no parameter 'fc9.weight'"):
        model_summary(toy, ["fc9.weight"])


def test_assert_binary_names_the_first_offender():
    model = build_model("mnist_mlp", hidden=8)
    with torch.no_grad():
        for n in binary_names(model):
            model.get_parameter(n).copy_(torch.randint(0, 2, model.get_parameter(n).shape) * 2.0 - 1)
    assert assert_binary(model) == 784 * 8 + 8 * 8 * 2 + 80
    with torch.no_grad():
        model.fc3.weight[5, 2] = 0.5
    with pytest.raises(ValueError, match=r"fc3.weight is not binary: 1 of 64 values.*0\.5 at \(5, 2\)"):
        assert_binary(model)
    with torch.no_grad():
        model.fc3.weight[5, 2] = float("nan")
    with pytest.raises(ValueError, match="nan"):
        assert_binary(model)


def test_summary_counts_bits():
    s = model_summary(build_model("mnist_mlp"))
    assert s.bits == 10_014_720 + 32 * 12_308 and s.float_bits == 32 * (10_014_720 + 12_308)
    assert "10,014,720 binary weights" in str(s) and "fc1.weight" in str(s)


def test_errors_teach():
    with pytest.raises(ValueError, match="Unknown model 'vgg'. Known: toy_mlp"):
        build_model("vgg")
    with pytest.raises(TypeError, match="mnist_mlp: .*units"):
        build_model("mnist_mlp", units=3)
    with pytest.raises(ValueError, match="hidden must be ≥ 1, got 0"):
        build_model("mnist_mlp", hidden=0)
    with pytest.raises(TypeError, match="hidden must be an int, got 2.5"):
        build_model("mnist_mlp", hidden=2.5)
    with pytest.raises(ValueError, match="variant must be"):
        build_model("bop_binarynet", variant="mine")
    assert {
        "toy_mlp",
        "mnist_mlp",
        "vgg_cifar",
        "continual_mlp",
        "lrnet_mnist",
        "lrnet_cifar",
        "bop_binarynet",
        "latent_study_net",
        "unet",
    } <= set(MODELS)


def test_lrnet_without_normalised_convolutions():
    "The arm that follows the report's forward pass: conv layers unnormalised, everything else as before"
    for name, kwargs in (("lrnet_mnist", {}), ("lrnet_cifar", {"width": 4})):
        with_, without = (build_model(name, dense=8, conv_norm=n, **kwargs) for n in (True, False))

        def count(m, kind):
            return sum(isinstance(x, kind) for x in m.modules())

        assert (
            count(with_, torch.nn.BatchNorm2d) == count(with_, torch.nn.Conv2d)
            and count(without, torch.nn.BatchNorm2d) == 0
        )
        assert count(with_, torch.nn.BatchNorm1d) == count(without, torch.nn.BatchNorm1d) == 2
        assert [n for n, _ in with_.named_parameters()] == [n for n, _ in without.named_parameters()]


def test_dropping_everything_leaves_nothing():
    from bayesbinn_nb.library.models import Dropout

    assert (Dropout(1.0).train()(torch.randn(100)) == 0).all()
