"""Metrics against brute force."""

import numpy as np
import pytest
import torch

from bayesbinn_nb.library.metrics import METRICS, accuracy, binary_accuracy, calibration, mse, segmentation_scores


def test_accuracy_per_example():
    out, y = torch.randn(20, 4), torch.randint(0, 4, (20,))
    assert accuracy(out, y).tolist() == [float(int(np.argmax(o)) == t) for o, t in zip(out.numpy(), y.tolist())]
    assert METRICS["accuracy"] is accuracy


def test_accuracy_of_label_maps_is_the_share_of_pixels():
    out, y = torch.randn(3, 2, 5, 7), torch.randint(0, 2, (3, 5, 7))
    brute = [
        np.mean([[out[i, :, r, c].argmax().item() == y[i, r, c].item() for c in range(7)] for r in range(5)])
        for i in range(3)
    ]
    assert accuracy(out, y).shape == (3,) and np.allclose(accuracy(out, y).numpy(), brute)


def test_binary_accuracy_and_mse_accept_both_shapes():
    out, y = torch.tensor([[1.0], [-2.0], [3.0], [-0.1]]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert binary_accuracy(out, y).tolist() == binary_accuracy(out, y[:, None]).tolist() == [1.0, 0.0, 0.0, 1.0]
    assert torch.allclose(mse(out, y), torch.tensor([0.0, 9.0, 9.0, 0.01])) and mse(out, y[:, None]).shape == (4,)
    assert mse(torch.ones(2, 3), torch.zeros(2, 3)).tolist() == [1.0, 1.0]


def test_shape_mismatches_are_refused():
    with pytest.raises(ValueError, match="binary_accuracy"):
        accuracy(torch.zeros(3), torch.zeros(3))
    with pytest.raises(ValueError, match="must match"):
        mse(torch.zeros(3, 2), torch.zeros(3))


def test_calibration_against_brute_force_and_own_formula():
    from bayesbinn_nb.math.prediction import expected_calibration_error

    logits, y = torch.randn(500, 10) * 2, torch.randint(0, 10, (500,))
    probs = logits.softmax(1)
    r = calibration(probs, y)
    conf, pred = probs.max(1)
    brute = 0.0
    for b in range(15):
        inside = (conf > b / 15) & (conf <= (b + 1) / 15)
        if inside.any():
            brute += inside.float().mean().item() * abs((pred == y)[inside].float().mean() - conf[inside].mean()).item()
    assert r["ece"] == pytest.approx(brute, abs=1e-5) and r["ece"] == pytest.approx(
        float(expected_calibration_error(probs, y)), abs=1e-5
    )
    assert r["nll"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, y)), abs=1e-5)
    assert r["accuracy"] == pytest.approx(float((pred == y).float().mean())) and "temperature" not in r


def test_temperature_is_fitted_on_validation_only():
    g = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(3000, 4, generator=g)
    y = torch.multinomial(logits.softmax(1), 1, generator=g)[:, 0]
    r = calibration((logits[:1000] / 2).softmax(1), y[:1000], (logits[1000:] / 2).softmax(1), y[1000:])
    assert (
        r["temperature"] == pytest.approx(0.5, abs=0.05) and r["nll_fitted"] < r["nll"] and r["ece_fitted"] < r["ece"]
    )
    other = calibration((logits[:500] / 2).softmax(1), y[:500], (logits[1000:] / 2).softmax(1), y[1000:])
    assert other["temperature"] == r["temperature"]


def test_calibration_refuses_logits():
    with pytest.raises(ValueError, match="must sum to 1"):
        calibration(torch.randn(5, 3), torch.zeros(5, dtype=torch.long))
    with pytest.raises(ValueError, match=r"probabilities \(N, K\)"):
        calibration(torch.full((5, 2), 0.5), torch.zeros(4, dtype=torch.long))


def test_segmentation_scores_against_sets():
    y = (torch.rand(4, 9, 9) < 0.7).long()
    out = torch.randn(4, 2, 9, 9)
    s = segmentation_scores(out, y)
    guess = out.argmax(1).numpy()
    for k, name in ((1, "cell_iou"), (0, "membrane_iou")):
        a, b = guess == k, y.numpy() == k
        assert s[name] == pytest.approx((a & b).sum() / (a | b).sum(), abs=1e-6)
    assert s["pixel_error"] == pytest.approx((guess != y.numpy()).mean()) and s["score"] == pytest.approx(
        1 - s["cell_iou"]
    )
    perfect, trivial = segmentation_scores(y, y), segmentation_scores(torch.ones_like(y), y)
    assert perfect["mean_iou"] == 1 and perfect["pixel_error"] == 0
    assert trivial["membrane_iou"] == 0 and trivial["cell_iou"] == pytest.approx(float(y.float().mean()))
    with pytest.raises(ValueError, match="0/255"):
        segmentation_scores(y, y * 255)
    with pytest.raises(ValueError, match="aligned"):
        segmentation_scores(y[:, :8], y)


def test_segmentation_wants_two_classes():
    with pytest.raises(ValueError, match="two classes along dimension 1"):
        segmentation_scores(torch.full((2, 1, 4, 4), 5.0), torch.ones(2, 4, 4, dtype=torch.long))
