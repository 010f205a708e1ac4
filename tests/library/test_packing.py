"""Packing: exact round trips, exact predictions, true size, refusal of damage."""

import pytest
import torch
from torch import nn

from bayesbinn_nb.library.checkpoint import load_model, save_model
from bayesbinn_nb.library.models import binary_names, binary_predicate, build_model
from bayesbinn_nb.library.packing import (
    PackedConv2d,
    PackedLinear,
    inspect_file,
    load_packed,
    memory_bytes,
    model_size,
    pack_bits,
    pack_model,
    read_packed,
    unpack_bits,
    unpack_model,
)
from bayesbinn_nb.library.trainer import Trainer

CASES = [
    ("mnist_mlp", dict(hidden=24), (1, 28, 28)),
    ("vgg_cifar", dict(width=8, dense=16), (3, 32, 32)),
    ("lrnet_mnist", dict(variant="lrnet", width=4, dense=16), (1, 28, 28)),
    ("bop_binarynet", dict(variant="report", width=8, dense=16), (3, 32, 32)),
    ("unet", dict(width=4, depth=2), (1, 16, 16)),
    ("toy_mlp", {}, (2,)),
]


def near(ours, theirs):
    "Sums in another order: 1e-5 of the largest output"
    return bool((ours - theirs).abs().max() <= 1e-5 * theirs.abs().max())


def trained(name, kwargs, shape, biases=False):
    "Random ±1 weights, moved normalisation statistics"
    model = build_model(name, **kwargs)
    with torch.no_grad():
        for n in binary_names(model, binary_predicate(model, biases)):
            p = model.get_parameter(n)
            p.copy_(torch.randint(0, 2, p.shape) * 2.0 - 1)
    for _ in range(2):
        model(torch.randn(8, *shape))
    return model.eval()


@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (9,), (3, 5), (4, 3, 3, 3), (0,)])
def test_bits_round_trip(shape):
    w = torch.randint(0, 2, shape) * 2.0 - 1
    bits = pack_bits(w)
    assert bits.dtype == torch.uint8 and len(bits) == -(-w.numel() // 8)
    assert torch.equal(unpack_bits(bits, shape), w)
    assert torch.equal(unpack_bits(bits, shape, torch.bfloat16), w.bfloat16())


def test_bit_order_is_lowest_first():
    w = -torch.ones(16)
    w[0], w[9] = 1, 1
    assert pack_bits(w).tolist() == [1, 2]


def test_only_binary_tensors_can_be_packed():
    for bad in (torch.tensor([1.0, 0.5]), torch.tensor([1.0, 0.0]), torch.tensor([1.0, float("nan")])):
        with pytest.raises(ValueError, match="exactly ±1"):
            pack_bits(bad)
    with pytest.raises(ValueError, match="1 bytes cannot hold 9 weights"):
        unpack_bits(torch.zeros(1, dtype=torch.uint8), (9,))


@pytest.mark.parametrize("name,kwargs,shape", CASES, ids=[c[0] for c in CASES])
def test_file_round_trip(name, kwargs, shape, tmp_path):
    model = trained(name, kwargs, shape, biases=name == "bop_binarynet")
    path = pack_model(model, tmp_path / "m.packed.safetensors")
    x = torch.randn(5, *shape)
    with torch.no_grad():
        expected = model(x)
        floats, bits = unpack_model(path), load_packed(path)
        assert torch.equal(floats(x), expected) and near(bits(x), expected)
    a, b = model.state_dict(), floats.state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)
    assert not [n for n, t in [*bits.named_parameters(), *bits.named_buffers()] if t.is_meta]
    assert not bits.training and floats.arch == model.arch
    packed_layers = [m for m in bits.modules() if hasattr(m, "weight_bits")]
    assert packed_layers and all(m.weight_bits.dtype == torch.uint8 for m in packed_layers)


def test_own_model_and_own_architecture(tmp_path):
    def make():
        return nn.Sequential(
            nn.Conv2d(1, 3, 3, stride=2, padding=1, groups=1), nn.Flatten(), nn.Linear(3 * 4 * 4, 5, bias=False)
        )

    model = make()
    with torch.no_grad():
        for p in (model[0].weight, model[2].weight):
            p.sign_()
    path = pack_model(model, tmp_path / "m", binary=["0.weight", "2.weight"])
    x = torch.randn(2, 1, 8, 8)
    loaded = load_packed(path, make())
    assert near(loaded(x), model(x)) and torch.equal(unpack_model(path, make())(x), model(x))
    assert (
        isinstance(loaded[0], PackedConv2d)
        and isinstance(loaded[2], PackedLinear)
        and "1 bit per weight" in repr(loaded)
    )
    with pytest.raises(ValueError, match="does not say how its model is built"):
        load_packed(path)


def test_channels_last_weights_are_packed_in_logical_order(tmp_path):
    model = trained("vgg_cifar", dict(width=8, dense=16), (3, 32, 32)).to(memory_format=torch.channels_last)
    loaded = unpack_model(pack_model(model, tmp_path / "m"))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values()))


def test_packed_layers_work_under_autocast(tmp_path):
    model = trained("mnist_mlp", dict(hidden=24), (1, 28, 28))
    bits = load_packed(pack_model(model, tmp_path / "m"))
    x = torch.randn(4, 1, 28, 28)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(bits(x), model(x))


def layers_of_all_kinds():
    "Each kind of packed layer, with bias, and a normalisation; all sums are small integers"
    conv, up = nn.Conv2d(1, 4, 3, padding=1), nn.ConvTranspose2d(4, 2, 2, stride=2)
    model = nn.Sequential(conv, nn.BatchNorm2d(4), up, nn.Flatten(), nn.Linear(2 * 8 * 8, 3))
    with torch.no_grad():
        for layer in (conv, up, model[4]):
            layer.weight.bernoulli_(0.5).mul_(2).sub_(1)
            layer.bias.copy_(torch.arange(len(layer.bias)))
        model[1].running_var.fill_(1 - model[1].eps)
    return model.eval()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("gradients", [False, True], ids=["packed product", "unpacked"])
def test_packed_layers_change_their_type_as_others_do(dtype, gradients, tmp_path):
    model = layers_of_all_kinds()
    bits = load_packed(pack_model(model, tmp_path / "m"), layers_of_all_kinds())
    model, bits = model.to(dtype), bits.to(dtype)
    x = torch.randint(-1, 2, (3, 1, 4, 4)).to(dtype).requires_grad_(gradients)
    found, expected = bits(x), model(x)
    assert found.dtype == expected.dtype == dtype
    assert torch.allclose(found, expected, rtol=4 * torch.finfo(dtype).eps, atol=64 * torch.finfo(dtype).eps)
    assert bits[0].weight_bits.dtype == torch.uint8 and bits[0].weight.dtype == dtype
    again = bits.float()
    assert torch.equal(again(x.float()), model.float()(x.float())) and again[0].dtype == torch.float32


def test_packed_layers_of_all_kinds_work_under_autocast(tmp_path):
    model = layers_of_all_kinds()
    bits, x = load_packed(pack_model(model, tmp_path / "m"), layers_of_all_kinds()), torch.randn(3, 1, 4, 4)
    for dtype in (torch.float32, torch.bfloat16):  # a network that was brought to the type before
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(bits.to(dtype)(x), model.to(dtype)(x))


def test_a_refusal_leaves_the_model_whole(tmp_path):
    def make():
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"))

    model = make()
    for p in (model[0].weight, model[1].weight):
        p.data.sign_()
    path, other = pack_model(model, tmp_path / "m"), make()
    with pytest.raises(ValueError, match="1 pads with 'circular'.*unpack_model"):
        load_packed(path, other)
    assert type(other[0]) is nn.Conv2d
    assert torch.equal(unpack_model(path, other)[0].weight, model[0].weight)


@pytest.mark.parametrize("choice", ["anything", "predicate", "names"])
@pytest.mark.parametrize("name,kwargs,shape", CASES, ids=[c[0] for c in CASES])
def test_a_packed_network_is_packed_again(name, kwargs, shape, choice, tmp_path):
    model = trained(name, kwargs, shape)
    names = binary_names(model)
    path = pack_model(model, tmp_path / "m", names)
    bits = load_packed(path)
    binary = {"anything": None, "predicate": binary_predicate(bits), "names": names}[choice]
    again = read_packed(pack_model(bits, tmp_path / "again", binary))
    if choice == "anything":  # also scales of ones
        assert again[1].items() >= read_packed(path)[1].items()
    else:
        assert again[1] == read_packed(path)[1]
    loaded = unpack_model(tmp_path / "again").state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in model.state_dict().items())


def test_a_layer_of_bits_alone_is_packed_again(tmp_path):
    layer = nn.Linear(8, 4)
    layer.weight.data.sign_()
    bits = load_packed(pack_model(layer, tmp_path / "m"), nn.Linear(8, 4))
    again = unpack_model(pack_model(bits.half(), tmp_path / "again"), nn.Linear(8, 4))
    assert torch.equal(again.weight, layer.weight) and read_packed(tmp_path / "again")[1]["weight"][1] == torch.float16


def test_a_trainer_is_no_network(tmp_path):
    with pytest.raises(TypeError, match="was given a Trainer; of a trainer pass trainer.model"):
        pack_model(Trainer(nn.Linear(2, 2), device="cpu"), tmp_path / "m")


def test_size_is_a_bit_per_weight(tmp_path):
    model = trained("mnist_mlp", dict(hidden=256), (1, 28, 28))
    path = pack_model(model, tmp_path / "m")
    s = model_size(path)
    n = 784 * 256 + 2 * 256 * 256 + 2560
    assert s["binary_weights"] == n and s["file_bytes"] == path.stat().st_size
    assert s["file_bytes"] < n / 8 + 4 * s["other_values"] + 4096 + 32 and s["ratio_memory"] > 25
    assert memory_bytes(load_packed(path)) == s["memory_bytes"]
    assert memory_bytes(unpack_model(path)) >= 4 * n


def test_damage_is_refused(tmp_path):
    path = pack_model(trained("mnist_mlp", dict(hidden=24), (1, 28, 28)), tmp_path / "m")
    whole = path.read_bytes()
    for data in (whole[:-1], whole[:50], b"", b"PK nonsense"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="not a readable packed model"):
            load_packed(path)
    for position in (len(whole) - 1, len(whole) - 700):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with pytest.raises(ValueError, match="do not match their checksum"):
            unpack_model(path)
    with pytest.raises(FileNotFoundError, match="There is no packed model"):
        load_packed(tmp_path / "nothing")


def test_refuses_what_is_not_binary(tmp_path):
    model = build_model("mnist_mlp", hidden=8)
    with pytest.raises(ValueError, match="nothing to pack"):
        pack_model(model, tmp_path / "m")
    with pytest.raises(ValueError, match="fc1.weight is not binary"):
        pack_model(model, tmp_path / "m", binary=binary_predicate(model))
    assert not (tmp_path / "m").exists()


def test_inspect_every_kind_of_file(tmp_path):
    from bayesbinn_nb.library.checkpoint import save_checkpoint, save_model

    model = trained("mnist_mlp", dict(hidden=24), (1, 28, 28))
    n = 784 * 24 + 2 * 24 * 24 + 240
    files = {
        "packed model": pack_model(model, tmp_path / "a"),
        "model": save_model(model, tmp_path / "b", name="mnist_mlp", kwargs=dict(hidden=24)),
        "training checkpoint": save_checkpoint(dict(model=model.state_dict()), tmp_path / "c"),
    }
    for kind, path in files.items():
        r = inspect_file(path)
        assert r["kind"] == kind and r["binary"] == n
        assert {name for name, _, what in r["tensors"] if what.startswith("binary")} == {
            f"fc{i}.weight" for i in (1, 2, 3, 4)
        }
        assert {name: shape for name, shape, _ in r["tensors"]}["fc1.weight"] == (24, 784)
    assert (
        inspect_file(files["packed model"])["arch"]
        == inspect_file(files["model"])["arch"]
        == dict(name="mnist_mlp", kwargs=dict(hidden=24))
    )
    with pytest.raises(ValueError, match="not a packed model"):
        load_packed(files["model"])
    (tmp_path / "d").write_bytes(b"text")
    with pytest.raises(ValueError, match="neither a safetensors file nor a checkpoint"):
        inspect_file(tmp_path / "d")
    with pytest.raises(FileNotFoundError):
        inspect_file(tmp_path / "e")


def test_a_layer_that_cannot_be_packed_is_named(tmp_path):
    model = nn.Sequential(nn.Conv1d(2, 3, 3, bias=False))
    with torch.no_grad():
        model[0].weight.sign_()
    path = pack_model(model, tmp_path / "m", binary=["0.weight"])
    with pytest.raises(TypeError, match="0 is a Conv1d; packed layers exist for .*unpack_model"):
        load_packed(path, nn.Sequential(nn.Conv1d(2, 3, 3, bias=False)))
    assert torch.equal(unpack_model(path, nn.Sequential(nn.Conv1d(2, 3, 3, bias=False)))[0].weight, model[0].weight)


def test_tied_weights_and_the_name_of_a_model_are_saved(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight

    model = Tied()
    assert torch.equal(load_model(save_model(model, tmp_path / "tied.safetensors"), Tied()).b.weight, model.a.weight)
    named = trained(*CASES[0])
    x = torch.randn(2, *CASES[0][2])
    assert torch.equal(load_model(save_model(named, tmp_path / "named.safetensors")).eval()(x), named(x))


def test_a_scale_of_ones_makes_no_binary_model(tmp_path):
    model = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="nothing to pack"):
        pack_model(model, tmp_path / "m")
    model[0].weight.data.sign_()
    assert {k for k in read_packed(pack_model(model, tmp_path / "m"))[1] if k.endswith("weight")} == {
        "0.weight",
        "1.weight",
    }


@pytest.mark.parametrize(
    "other, said",
    [
        (
            nn.Linear(8, 5, bias=False),
            r"weight has the shape \(4, 8\) in the file and has the shape \(5, 8\) in the model",
        ),
        (nn.Linear(8, 4), r"bias is not there in the file and has the shape \(4,\) in the model"),
    ],
)
@pytest.mark.parametrize("wrap", [nn.Sequential, lambda layer: layer])
def test_a_packed_file_wants_a_model_that_fits(tmp_path, other, said, wrap):
    model = wrap(nn.Linear(8, 4, bias=False))
    for p in model.parameters():
        p.data.sign_()
    path, x = pack_model(model, tmp_path / "m"), torch.randn(3, 8)
    with pytest.raises(ValueError, match=said):
        load_packed(path, wrap(other))
    assert near(load_packed(path, wrap(nn.Linear(8, 4, bias=False)))(x), model(x))


def test_load_model_says_that_a_file_is_packed(tmp_path):
    path = pack_model(trained(*CASES[0]), tmp_path / "m", binary=binary_predicate(build_model("mnist_mlp", hidden=24)))
    with pytest.raises(ValueError, match="is a packed model.*unpack_model"):
        load_model(path)
