"""Deploy: files of every network run in onnxruntime with the predictions of PyTorch, and bits stay bits."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from bayesbinn_nb.library.checkpoint import save_model
from bayesbinn_nb.library.models import MODELS, binary_names, binary_predicate, build_model
from bayesbinn_nb.library.packing import load_packed, pack_model
from bayesbinn_nb.methods.activations import BinaryActivation
from bayesbinn_nb.methods.lrnet import LRNet
from bayesbinn_nb.repro.cli import main

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from bayesbinn_nb.library import deploy  # noqa: E402
from bayesbinn_nb.library.deploy import RULES, export_onnx, onnx_model, onnx_rule, onnx_shapes, open_model  # noqa: E402

# name, arguments, one example; the first three are large enough for the promise about size
LARGE = [
    ("mnist_mlp", dict(hidden=512), (784,)),
    ("vgg_cifar", dict(width=32, dense=256), (3, 32, 32)),
    ("lrnet_mnist", dict(variant="lrnet"), (1, 28, 28)),
    ("bop_binarynet", dict(width=32, dense=256), (3, 32, 32)),
]
SMALL = [
    ("mnist_mlp", dict(hidden=24, layers=1), (1, 28, 28)),
    ("continual_mlp", dict(hidden=10), (1, 28, 28)),
    ("toy_mlp", dict(in_features=1, output_norm=True), (1,)),
    ("lrnet_mnist", dict(width=3, dense=15, conv_norm=False), (1, 28, 28)),
    ("lrnet_cifar", dict(width=4, dense=16, variant="lrnet"), (3, 32, 32)),
    ("bop_binarynet", dict(width=4, dense=16, variant="report"), (3, 32, 32)),
    ("latent_study_net", {}, (1, 28, 28)),
    ("unet", dict(width=4, depth=2), (1, 16, 16)),
    ("unet", dict(width=4, depth=2, dropout=0.1, real_last=False), (1, 16, 16)),
]
IDS = [f"{name}-{i}" for i, (name, *_) in enumerate(LARGE + SMALL)]


def grid(*shape, seed=1):
    "Inputs on multiples of 1/8, so that sums of a few thousand of them with signs ±1 are exact in any order"
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).mul(8).round().clamp(-24, 24) / 8


def trained(name, kwargs, shape):
    "Random ±1 weights and moved statistics; before a sign, none of which an exact sum can meet"
    torch.manual_seed(0)
    model = build_model(name, **kwargs)
    with torch.no_grad():
        for n in binary_names(model, binary_predicate(model, biases=kwargs.get("variant") == "report")):
            model.get_parameter(n).bernoulli_(0.5).mul_(2).sub_(1)
        for k in range(4):
            model(grid(16, *shape, seed=10 + k))
    signs = any(isinstance(m, BinaryActivation) for m in model.modules())
    for m in model.modules():
        if signs and isinstance(m, nn.modules.batchnorm._BatchNorm):  # sums are multiples of 1/8, means lie between
            m.running_mean.mul_(8).round_().div_(8).add_(1 / 16)
    return model.eval()


def logits(path, x, fixed_batch=None, optimised=None):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if optimised:
        options.optimized_model_filepath = str(optimised)
    if fixed_batch:
        options.add_free_dimension_override_by_name("batch", fixed_batch)
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"input": x.numpy()})[0])


def assert_same(found, expected):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    if expected.shape[1] > 1:  # a tie of two classes within the rounding may fall either way
        best = expected.topk(2, dim=1).values
        clear = (best[:, 0] - best[:, 1]) > 2e-5 * expected.abs().max()
        assert clear.double().mean() > 0.95
        assert torch.equal(found.argmax(1)[clear], expected.argmax(1)[clear])


@pytest.mark.parametrize("name, kwargs, shape", LARGE + SMALL, ids=IDS)
def test_predictions_are_those_of_pytorch(name, kwargs, shape, tmp_path):
    model = trained(name, kwargs, shape)
    bits = load_packed(pack_model(model, tmp_path / "m.packed.safetensors"))
    x = grid(64 if shape[-1] != 784 else 256, *shape)
    with torch.no_grad():
        expected = model(x)
    for kind, net in {"float": model, "packed": bits}.items():
        path = export_onnx(net, tmp_path / f"{kind}.onnx", shape)
        assert onnx_shapes(path)["input"] == ["batch", *shape]
        for n in (1, len(x)):  # the batch is free
            assert_same(logits(path, x[:n]), expected[:n])


@pytest.mark.parametrize("name, kwargs, shape", LARGE, ids=[case[0] for case in LARGE])
def test_a_packed_file_stays_small_when_constants_are_folded(name, kwargs, shape, tmp_path):
    model = trained(name, kwargs, shape)
    floats = export_onnx(model, tmp_path / "float.onnx")
    bits = export_onnx(load_packed(pack_model(model, tmp_path / "m.packed.safetensors")), tmp_path / "bits.onnx", shape)
    x, most = grid(4, *shape), floats.stat().st_size / 20
    assert bits.stat().st_size <= most
    with torch.no_grad():
        expected = model(x)
    for batch in (None, 4):  # also where the batch is no longer free, and every shape is known
        optimised = tmp_path / f"optimised-{batch}.onnx"
        assert_same(logits(bits, x, batch, optimised), expected)
        assert 1000 < optimised.stat().st_size <= most
        assert_same(logits(optimised, x), expected)


def test_folding_would_be_seen(tmp_path, monkeypatch):
    "The same graph with a constant instead of the number computed from the data is folded to floats"
    monkeypatch.setattr(deploy, "_zero", lambda graph, x: graph.constant(deploy.np.int32(0)))
    model = trained("mnist_mlp", dict(hidden=64), (784,))
    bits = load_packed(pack_model(model, tmp_path / "m.packed.safetensors"))
    path = export_onnx(bits, tmp_path / "bits.onnx")
    logits(path, grid(1, 784), optimised=tmp_path / "optimised.onnx")
    assert (tmp_path / "optimised.onnx").stat().st_size > 4 * path.stat().st_size


def test_numbers_that_are_not_numbers_do_not_disturb_the_weights(tmp_path):
    model = trained("mnist_mlp", dict(hidden=24), (784,))
    bits = load_packed(pack_model(model, tmp_path / "m.packed.safetensors"))
    path = export_onnx(bits, tmp_path / "bits.onnx")
    for value in (float("nan"), float("inf"), -float("inf"), -1.0):
        x = grid(3, 784)
        x[0] = value  # the first example is the one that is looked at
        with torch.no_grad():
            assert_same(logits(path, x)[1:], model(x)[1:])
    assert logits(path, x[:0]).shape == (0, 10)


def test_the_same_model_gives_the_same_bytes_and_stays_as_it_was(tmp_path):
    model = trained("lrnet_mnist", dict(width=2, dense=8), (1, 28, 28)).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    a, b = (export_onnx(model, tmp_path / name).read_bytes() for name in ("a.onnx", "b.onnx"))
    assert a == b and model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    x = grid(5, 1, 28, 28)
    with torch.no_grad():
        assert_same(logits(tmp_path / "a.onnx", x), model.eval()(x))  # dropout and batch statistics are off
    about = {p.key: p.value for p in onnx.load(tmp_path / "a.onnx").metadata_props}
    assert json.loads(about["arch"]) == model.arch


def test_layers_of_a_method_export_outside_its_passes_only(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 12, bias=False), nn.ReLU(), nn.Linear(12, 3, bias=False))
    method = LRNet(init="pretrained")
    model = method.prepare(model, train_size=7) or model
    x = grid(7, 4, 4)
    with torch.no_grad():
        assert_same(logits(export_onnx(model, tmp_path / "m.onnx", (4, 4)), x), model(x))
    for context in method.train_passes():
        with context, pytest.raises(ValueError, match="inside a training pass of LR-Net"):
            onnx_model(model)


def check_layer(layer, shape, tmp_path):
    net = nn.Sequential(layer).eval()
    x = grid(3, *shape)
    with torch.no_grad():
        expected = net(x)
    found = logits(export_onnx(net, tmp_path / "layer.onnx", shape), x)
    assert found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")  # it copies, and says so
@pytest.mark.parametrize(
    "layer, shape",
    [
        (nn.Linear(5, 3), (4, 5)),
        (nn.Conv1d(2, 4, 3, stride=2, groups=2), (2, 9)),
        (nn.Conv2d(2, 3, (3, 4), padding="same", dilation=(2, 1)), (2, 9, 8)),
        (nn.Conv2d(2, 3, 3, padding="valid", stride=(2, 1)), (2, 9, 8)),
        (nn.Conv3d(1, 2, 3, padding=(1, 0, 2)), (1, 5, 6, 4)),
        (nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1, output_padding=1, groups=2), (4, 5, 5)),
        (nn.BatchNorm2d(3), (3, 4, 4)),
        (nn.BatchNorm1d(3), (3, 7)),
        (nn.MaxPool2d(3, stride=2, padding=1), (2, 8, 9)),
        (nn.MaxPool2d((2, 1), dilation=2), (2, 8, 9)),
        (nn.AvgPool2d(2, padding=1), (2, 6, 6)),
        (nn.AvgPool2d(2, padding=1, count_include_pad=False), (2, 6, 6)),
        (nn.Hardtanh(-0.5, 2.0), (6,)),
        (nn.Sigmoid(), (6,)),
        (nn.Tanh(), (6,)),
        (nn.ReLU6(), (6,)),
        (nn.LeakyReLU(0.3), (6,)),
        (nn.ELU(0.7), (6,)),
        (nn.Softmax(1), (6,)),
        (nn.Softmax(dim=-1), (2, 6)),
        (nn.LogSoftmax(1), (6, 2)),
        (nn.AdaptiveAvgPool2d(1), (2, 6, 5)),
        (nn.AdaptiveAvgPool2d((1, 1)), (2, 6, 5)),
        (nn.Flatten(), (2, 3)),
        (nn.Identity(), (2, 3)),
        (nn.Dropout2d(), (2, 3, 3)),
        (BinaryActivation(), (50,)),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_every_rule(layer, shape, tmp_path):
    check_layer(layer, shape, tmp_path)


def test_the_sign_of_zero_and_of_its_negative(tmp_path):
    x = torch.tensor([[0.0, -0.0, 1e-30, -1e-30]])
    path = export_onnx(nn.Sequential(BinaryActivation()), tmp_path / "m.onnx", (4,))
    assert logits(path, x).tolist() == [[1, 1, 1, -1]]


@pytest.mark.parametrize(
    "layer, said",
    [
        (nn.LSTM(2, 2), "0.deep is a torch.nn.modules.rnn.LSTM, which has no ONNX rule"),
        (type("Mine", (nn.Linear,), {})(2, 2), "0.deep is a .*Mine, which has no ONNX rule"),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), "0.deep pads with 'reflect'"),
        (nn.BatchNorm1d(2, track_running_stats=False), "0.deep has no running statistics"),
        (nn.MaxPool2d(2, ceil_mode=True), "0.deep pools with a setting"),
        (nn.MaxPool2d(2, return_indices=True), "0.deep pools with a setting"),
        (nn.AvgPool2d(2, divisor_override=3), "0.deep pools with a setting"),
        (nn.AdaptiveAvgPool2d((1, 2)), r"0.deep pools to \(1, 2\)"),
        (nn.Softmax(), "0.deep does not say over which axis"),
        (nn.Flatten(2), "0.deep flattens axes 2 to -1"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_what_cannot_be_exported_is_named(layer, said):
    model = nn.Sequential(nn.Sequential())
    model[0].add_module("deep", layer)
    with pytest.raises((TypeError, ValueError), match=said):
        onnx_model(model, (2,))


def test_other_refusals(tmp_path, monkeypatch):
    hooked = nn.Sequential(nn.Linear(2, 2))
    hooked[0].register_forward_hook(lambda module, inputs, output: output + 1)
    with pytest.raises(ValueError, match="0 carries a forward hook"):
        onnx_model(hooked)
    with pytest.raises(ValueError, match="no linear or convolutional layer"):
        onnx_model(nn.Sequential(nn.ReLU()))
    with pytest.raises(ValueError, match=r"Inputs of the shape \(3,\) do not fit"):
        onnx_model(nn.Sequential(nn.Linear(2, 2)), (3,))
    for shape in (2, "2"):
        with pytest.raises(TypeError, match=f"shape={shape!r} is not the shape of one example"):
            onnx_model(nn.Sequential(nn.Linear(2, 2)), shape)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match="pip install onnx"):
        onnx_model(nn.Sequential(nn.Linear(2, 2)))


def test_a_rule_of_ones_own(tmp_path):
    class Scale(nn.Module):
        def forward(self, x):
            return 3 * x

    @onnx_rule(Scale)
    def scale(graph, layer, x):
        return graph.node("Mul", x, graph.constant(3.0))

    try:
        check_layer(Scale(), (4,), tmp_path)
    finally:
        del RULES[Scale]


def test_a_network_of_ones_own(tmp_path, monkeypatch, capsys):
    "Packed, refused by the command with what to do, and exported as it says"

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 16), nn.Linear(16, 3)

        def forward(self, x):
            return self.last(torch.relu(self.first(x)))

    net, x = Net(), grid(5, 4)
    net.last.weight.data.sign_()
    path = pack_model(net, tmp_path / "own.safetensors", ["last.weight"])
    save_model(net, tmp_path / "floats.safetensors")
    monkeypatch.chdir(tmp_path)
    for file, reader in (("own", "load_packed"), ("floats", "load_model")):
        assert main(["export", f"{file}.safetensors", "--onnx", "own.onnx"]) == 1
        assert f"export_onnx({reader}(path, model), out)" in " ".join(capsys.readouterr().err.split())
    bits = load_packed(path, Net())
    with pytest.raises(TypeError, match=r"Net, which has no ONNX rule; .*@onnx_rule\(Net\)"):
        export_onnx(bits, "own.onnx")

    @onnx_rule(Net)
    def rule(graph, net, x):
        x = graph.node("Relu", deploy.add_module(graph, net.first, x, "first"))
        return deploy.add_module(graph, net.last, x, "last")

    try:
        with torch.no_grad():
            assert_same(logits(export_onnx(bits, "own.onnx"), x), net(x))
    finally:
        del RULES[Net]


def test_every_network_of_the_library_has_its_rules():
    for name in MODELS:
        if MODELS[name].__module__.startswith("bayesbinn_nb."):
            onnx_model(build_model(name))


@pytest.mark.parametrize("name, kwargs, shape", [LARGE[0], SMALL[3], SMALL[6], SMALL[7]])
def test_torch_export_takes_packed_models(name, kwargs, shape, tmp_path):
    model = trained(name, kwargs, shape)
    bits = load_packed(pack_model(model, tmp_path / "m.packed.safetensors"))
    x = grid(6, *shape)
    program = torch.export.export(bits, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    with torch.no_grad():
        for n in (1, 6):
            assert_same(program.module()(x[:n]), model(x[:n]))
    torch.export.save(program, tmp_path / "m.pt2")
    parameters = sum(p.numel() for p in model.parameters())
    assert (tmp_path / "m.pt2").stat().st_size < 4 * parameters / 2 or parameters < 1e5


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = trained("mnist_mlp", dict(hidden=64), (784,))
    pack_model(model, "bits.safetensors")
    save_model(model, "float.safetensors")
    x = grid(5, 1, 28, 28)
    with torch.no_grad():
        expected = model(x)
    for kind in ("bits", "float"):
        assert main(["export", f"{kind}.safetensors", "--onnx", f"{kind}.onnx", "--shape", "1,28,28"]) == 0
        said = capsys.readouterr()
        assert "input: batch × 1 × 28 × 28; logits: batch × 10" in said.out and not said.err
        assert_same(logits(f"{kind}.onnx", x), expected)
    assert Path("bits.onnx").stat().st_size < Path("float.onnx").stat().st_size / 5
    assert main(["export", "bits.safetensors", "--onnx", "vectors.onnx"]) == 0
    assert "input: batch × 784" in capsys.readouterr().out


def test_the_command_refuses_in_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = trained("mnist_mlp", dict(hidden=8), (784,))
    save_model(model, "m.safetensors")
    save_model(nn.Sequential(nn.Linear(2, 2)), "nameless.safetensors")
    torch.save({"model": model.state_dict()}, "last.pt")
    Path("there.onnx").write_bytes(b"mine")
    Path("noise.safetensors").write_bytes(b"mine")
    for file, out, more, said in [
        ("none.safetensors", "a.onnx", (), "no file none.safetensors"),
        (".", "a.onnx", (), "There is no file ."),
        ("noise.safetensors", "a.onnx", (), "neither a safetensors file nor a checkpoint"),
        ("last.pt", "a.onnx", (), "last.pt is a training checkpoint, not a model file"),
        ("nameless.safetensors", "a.onnx", (), "does not say how its model is built"),
        ("m.safetensors", "there.onnx", (), "there.onnx is there already"),
        ("m.safetensors", "m.safetensors", (), "m.safetensors is there already"),
        ("m.safetensors", "no/where/a.onnx", (), "no folder no/where"),
        ("m.safetensors", "there.onnx/a.onnx", (), "no folder there.onnx"),
        ("m.safetensors", "a.onnx", ("--shape", "1,x"), "--shape 1,x is not a shape"),
        ("m.safetensors", "a.onnx", ("--shape", "3,32,32"), "(3, 32, 32) do not fit the model"),
    ]:
        assert main(["export", file, "--onnx", out, *more]) == 1
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1 and "Traceback" not in error
    assert Path("there.onnx").read_bytes() == b"mine" and not Path("a.onnx").exists() and not Path("no").exists()
    with pytest.raises(SystemExit):
        main(["export", "m.safetensors"])
    assert "--onnx" in capsys.readouterr().err


def test_either_kind_of_file_opens_as_what_it_is(tmp_path):
    model = trained("mnist_mlp", dict(hidden=8), (784,))
    assert type(open_model(save_model(model, tmp_path / "f")).fc1) is nn.Linear
    assert type(open_model(pack_model(model, tmp_path / "p")).fc1) is deploy.PackedLinear


def test_the_library_imports_without_onnx():
    code = "import sys; sys.modules['onnx'] = sys.modules['onnxruntime'] = None; import bayesbinn_nb.library.deploy"
    subprocess.run([sys.executable, "-c", code], check=True)
