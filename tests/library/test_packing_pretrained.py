"""Trained networks: what is shipped is what its record says."""

import pytest
import torch

from bayesbinn_nb import load_pretrained
from bayesbinn_nb.library.models import assert_binary
from bayesbinn_nb.library.packing import memory_bytes
from bayesbinn_nb.library.pretrained import main, pretrained_networks


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


def test_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no trained network 'mnist'. Known: .*mnist-bayesbinn"):
        load_pretrained("mnist")
    with pytest.raises(ValueError, match="Known: none"):
        load_pretrained("mnist-bayesbinn", folder=tmp_path)


def test_a_run_that_was_not_kept_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="seed0.json.*--keep"):
        main(["name", str(tmp_path)])
