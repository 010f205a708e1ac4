"""Model files: from wrapped models, with one digest over everything, and never more memory than they hold."""

import errno
import json
import os
import random
import struct
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from bayesbinn_nb.library import checkpoint, packing
from bayesbinn_nb.library.checkpoint import file_digest, load_checkpoint, load_model, save_checkpoint, save_model
from bayesbinn_nb.library.data import ArrayData
from bayesbinn_nb.library.models import build_model
from bayesbinn_nb.library.packing import inspect_file, load_packed, model_size, pack_model, unpack_model
from bayesbinn_nb.library.trainer import Trainer
from bayesbinn_nb.methods.bayesbinn import BayesBiNN
from bayesbinn_nb.methods.ste import STE

FOUND = Path(__file__).parent / "files"


def model():
    return build_model("mnist_mlp", in_features=8, hidden=16, dropout=0.0)


def trained(wrap=lambda m: m, epochs=1, **settings):
    data = ArrayData(torch.randn(60, 8), torch.randint(0, 10, (60,)))
    trainer = Trainer(wrap(model()), device="cpu").compile(BayesBiNN())
    trainer.fit(data, epochs=epochs, batch_size=20, progress="silent", **settings)
    return trainer.model.eval()


WRAPS = {"compiled": lambda m: torch.compile(m, backend="eager"), "parallel": nn.DataParallel}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_files_of_wrapped_models_load_everywhere(wrap, tmp_path):
    wrapped, x = trained(wrap, checkpoint_dir=tmp_path), torch.randn(5, 8)
    expected = wrapped(x)
    save_model(wrapped, tmp_path / "m")
    pack_model(wrapped, tmp_path / "p")
    for loaded in (
        load_model(tmp_path / "m"),
        load_model(tmp_path / "m", model()),
        load_model(tmp_path / "m", wrap(model())),
    ):
        assert torch.equal(loaded(x), expected)
    for loaded in (unpack_model(tmp_path / "p"), unpack_model(tmp_path / "p", model())):
        assert torch.equal(loaded(x), expected)
    assert (load_packed(tmp_path / "p")(x) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert {n for n, *_ in inspect_file(tmp_path / "last.pt")["tensors"]} == set(model().state_dict())
    data = ArrayData(torch.randn(60, 8), torch.randint(0, 10, (60,)))
    plain = Trainer(model(), device="cpu").compile(BayesBiNN())
    assert len(plain.fit(data, epochs=2, batch_size=20, progress="silent", checkpoint_dir=tmp_path)) == 2


READERS = {"packed": (pack_model, (unpack_model, load_packed)), "model": (save_model, (load_model,))}


@pytest.mark.parametrize("kind", READERS)
def test_no_flipped_bit_is_accepted(kind, tmp_path):
    write, readers = READERS[kind]
    whole = write(trained(), tmp_path / "whole").read_bytes()
    header = struct.unpack("<Q", whole[:8])[0] + 8
    choose, bad = random.Random(0), tmp_path / "bad"
    for low, high in ((0, header), (header, len(whole))):
        for _ in range(150):
            data, place = bytearray(whole), choose.randrange(low, high)
            data[place] ^= 1 << choose.randrange(8)
            bad.write_bytes(data)
            for read in readers:
                try:
                    read(bad)
                except ValueError as e:
                    assert str(bad) in str(e)
                else:  # what the file says is the same: a blank between two words of JSON, for instance
                    assert header > place and json.loads(data[8:header]) == json.loads(whole[8:header])


def test_the_digest_covers_every_word_and_every_number():
    tensors, about = {"a": torch.ones(4), "b": torch.zeros(0)}, {"format": "x", "arch": "y"}
    changed = [
        ({**tensors, "a": torch.ones(2, 2)}, about),
        ({**tensors, "a": torch.ones(4).int()}, about),
        ({"c": tensors["a"], "b": tensors["b"]}, about),
        (tensors, about | {"arch": "z"}),
        (tensors, about | {"more": ""}),
        (tensors, {"format": "xarch", "": "y"}),
    ]
    digests = [file_digest(*one) for one in [(tensors, about), *changed]]
    assert len(set(digests)) == len(digests)
    assert file_digest(tensors, about | {"sha256": "…"}) == digests[0]


def rewritten(path, **changes):
    "A file whose text was changed by someone who knows how to compute the digest"
    tensors, about = checkpoint.read_tensors(path, "file")
    about.pop("sha256")
    return checkpoint.write_tensors(path.with_name("other"), tensors, about | changes)


@pytest.mark.parametrize(
    "arch, said",
    [
        ({"name": "mnist_mlp", "kwargs": {"in_features": 8, "hidden": 10**9}}, "hidden=1000000000: it holds"),
        ({"name": "mnist_mlp", "kwargs": {"in_features": 8, "hidden": [10**12]}}, "hidden=.1000000000000.: it holds"),
        ({"name": "mnist_mlp", "kwargs": {"in_features": 8, "hidden": float("nan")}}, "hidden=nan"),
        ({"name": "mnist_mlp", "kwargs": {"in_features": 8, "hidden": 15}}, "does not fit the model: fc1.weight"),
        ({"name": "mnist_mlp", "kwargs": {"in_features": 8, "hidden": "x"}}, "cannot be built"),
        ({"name": "no_such_net", "kwargs": {}}, "cannot be built: Unknown model"),
        ({"name": "mnist_mlp", "kwargs": 3}, "nobody understands"),
        ({"name": ["mnist_mlp"], "kwargs": {}}, "nobody understands"),
        ([], "nobody understands"),
        (None, "does not say how its model is built"),
    ],
)
def test_a_description_is_not_believed(arch, said, tmp_path):
    net = trained()
    for write, reads in ((save_model, (load_model,)), (pack_model, (unpack_model, load_packed))):
        path = rewritten(write(net, tmp_path / "m"), arch=json.dumps(arch))
        for read in reads:
            start = time.monotonic()
            with pytest.raises(ValueError, match=said):
                read(path)
            assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    "entry",
    [
        [[10**15], "float32"],
        [[-1], "float32"],
        [[16, "8"], "float32"],
        [[16, 8], "int32"],
        [[16, 8], "ab"],
        3,
        [[16, 8]],
    ],
)
def test_what_is_said_of_packed_tensors_must_fit_the_bits(entry, tmp_path):
    path = pack_model(trained(), tmp_path / "m")
    _, about = checkpoint.read_tensors(path, "file")
    path = rewritten(path, packed=json.dumps(json.loads(about["packed"]) | {"fc1.weight": entry}))
    for read in (unpack_model, load_packed, model_size, inspect_file):
        with pytest.raises(ValueError, match="is damaged: what it says about its packed tensors does not fit"):
            read(path)


@pytest.mark.parametrize("path", sorted(FOUND.glob("packed-*")), ids=lambda p: p.name)
def test_files_that_were_changed_at_random_get_a_sentence(path):
    read = getattr(packing, path.name.split("-")[1], None) or load_model
    start = time.monotonic()
    with pytest.raises(ValueError) as e:
        read(path)
    assert str(path) in str(e.value) and len(str(e.value).splitlines()) == 1
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("kind", READERS)
def test_a_file_of_an_earlier_format_says_what_to_do(kind, tmp_path):
    write, readers = READERS[kind]
    old = rewritten(write(trained(), tmp_path / "m"), format=f"bayesbinn_nb.{kind}.1")
    for read in readers:
        with pytest.raises(ValueError, match=f"bayesbinn_nb.{kind}.1.*writes a new file"):
            read(old)
    with pytest.raises(ValueError, match="this version does not read"):
        inspect_file(old)


@pytest.mark.parametrize("code, said", [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "can only be read")])
def test_a_disk_that_cannot_be_written_is_one_sentence(code, said, tmp_path, monkeypatch):
    path = save_checkpoint({"epoch": 1}, tmp_path / "last.pt")
    before = path.read_bytes()

    def full(*_args):
        raise OSError(code, "…")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match=f"last.pt could not be written: .*{said}.*; the file of that name is as it was"
    ) as e:
        save_checkpoint({"epoch": 2}, path)
    assert e.value.errno == code
    with pytest.raises(OSError, match="no part of it was left behind"):
        save_model(model(), tmp_path / "new")
    monkeypatch.undo()
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["last.pt"]
    assert load_checkpoint(path)["epoch"] == 1


def test_a_layer_called_module_keeps_its_name(tmp_path):
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(4, 3)

    net = Inner()
    net.module.weight.data.sign_()
    assert torch.equal(load_model(save_model(net, tmp_path / "m"), Inner()).module.weight, net.module.weight)
    assert torch.equal(unpack_model(pack_model(net, tmp_path / "p"), Inner()).module.weight, net.module.weight)


def test_a_sound_file_of_another_kind_is_named_with_its_reader(tmp_path):
    model = nn.Sequential(nn.Linear(4, 3, bias=False))
    trainer = Trainer(model, device="cpu").compile(STE()).prepare(10)
    trainer.save(tmp_path / "a.pt")
    save_model(model, tmp_path / "a.safetensors")
    pack_model(model, tmp_path / "a.packed.safetensors")
    torch.save(model.state_dict(), tmp_path / "state.pt")
    (tmp_path / "last.pt").write_bytes(b"PK torn")
    (tmp_path / "torn.pt").write_bytes(b"PK torn")
    for call, said in (
        (lambda: trainer.load(tmp_path / "a.safetensors"), "is not a checkpoint but a model file: load_model"),
        (
            lambda: trainer.load(tmp_path / "a.packed.safetensors"),
            "is not a checkpoint but a packed model: unpack_model",
        ),
        (lambda: load_model(tmp_path / "a.pt"), r"is not a model file but a training checkpoint: Trainer.load"),
        (lambda: unpack_model(tmp_path / "a.pt"), "is not a packed model but a training checkpoint: Trainer.load"),
        (lambda: load_model(tmp_path / "state.pt"), "is not a model file but a file of torch: torch.load"),
        (lambda: trainer.load(tmp_path / "last.pt"), "damaged or of another kind. Delete it to start afresh"),
        (lambda: trainer.load(tmp_path / "torn.pt"), "damaged or of another kind. Copy it again"),
    ):
        with pytest.raises(ValueError, match=said) as caught:
            call()
        assert ("Delete" in str(caught.value)) == ("last.pt" in str(caught.value))
