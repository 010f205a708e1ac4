"""Trained networks: what is shipped is what its record says."""

import copy
import json

import pytest
import torch

from bayesbinn_nb import PMF, STE, BayesBiNN, Bop, FullPrecision, Trainer, build_model, load_pretrained
from bayesbinn_nb.library.checkpoint import save_checkpoint
from bayesbinn_nb.library.models import assert_binary, binary_names
from bayesbinn_nb.library.packing import memory_bytes
from bayesbinn_nb.library.pretrained import main, pretrained_networks, write_pretrained


def test_every_network_predicts_packed_as_unpacked():
    assert "mnist-bayesbinn" in pretrained_networks()
    for name in pretrained_networks():
        packed, floats = load_pretrained(name), load_pretrained(name, packed=False)
        assert_binary(floats)
        assert memory_bytes(packed) < memory_bytes(floats) / 20 and not packed.training
        assert {"epochs", "seed", "test_accuracy", "deviations", "commands"} <= packed.record.keys()


def test_the_record_is_true():
    "The whole test set, where it lies on this machine"
    from bayesbinn_nb import load_data

    try:
        test = load_data("mnist").test
    except FileNotFoundError:
        pytest.skip("MNIST is not here")
    model = load_pretrained("mnist-bayesbinn")
    right = 0
    with torch.no_grad():
        for start in range(0, len(test), 500):
            x, y = test.batch(slice(start, start + 500))
            right += int((model(x).argmax(1) == y).sum())
    # trained in bfloat16 perhaps: a few examples near a border may fall on its other side
    assert abs(right / len(test) - model.record["test_accuracy"]) <= 0.001


def test_training_further_begins_with_what_was_learnt():
    "As the page says of each method"
    network, x = build_model("mnist_mlp", hidden=16), torch.randn(20, 1, 28, 28)
    for name in binary_names(network):
        network.get_parameter(name).data.bernoulli_(0.5).mul_(2).sub_(1)
    keep = [BayesBiNN(init="weights"), STE(init="layer"), Bop(), FullPrecision()]
    for method in [*keep, BayesBiNN(), STE(), PMF()]:
        trainer = Trainer(copy.deepcopy(network), device="cpu").compile(method)
        before = trainer.model.eval()(x)
        trainer.prepare(1000)
        assert torch.equal(trainer.model.eval()(x), before) == (method in keep), method


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_in_another_type_predicts_the_same(dtype):
    x = torch.randn(20, 1, 28, 28)
    packed, floats = load_pretrained("mnist-bayesbinn").to(dtype), load_pretrained("mnist-bayesbinn", packed=False)
    with torch.no_grad():
        found, expected = packed(x.to(dtype)), floats(x)
    assert found.dtype == dtype
    assert (found.float() - expected).abs().max() < 0.1 * expected.abs().max()


def test_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no trained network 'mnist'. Known: .*mnist-bayesbinn"):
        load_pretrained("mnist")
    with pytest.raises(ValueError, match="Known: none"):
        load_pretrained("mnist-bayesbinn", folder=tmp_path)


def test_a_run_that_was_not_kept_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="seed0.json.*--keep"):
        main(["name", str(tmp_path)])


def test_nothing_is_packed_without_an_accuracy_to_tell(tmp_path):
    row, there = tmp_path / "row", tmp_path / "networks"
    save_checkpoint({"model": {}}, row / "_work" / "seed0" / "last.pt")
    for metrics in ({}, {"last": {}}):
        (row / "seed0.json").write_text(json.dumps({"metrics": metrics}))
        with pytest.raises(ValueError, match="holds no test_accuracy@mode"):
            write_pretrained("mine", row, folder=there)
    assert not there.exists()
