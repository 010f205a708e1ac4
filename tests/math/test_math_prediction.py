"""Averages over sampled networks, calibration, the temperature and the BatchNorm bound."""

import math

import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from bayesbinn_nb.math.prediction import (
    confidence_bound,
    expected_calibration_error,
    fit_temperature,
    mutual_information,
    nll,
    predictive_entropy,
    predictive_mean,
    predictive_mean_of_logits,
)


@pytest.fixture
def logits_labels():
    g = torch.Generator().manual_seed(0)
    z = torch.randn(4000, 10, generator=g)
    y = torch.multinomial((z / 2).softmax(-1), 1, generator=g)[:, 0]
    return z, y


def test_probabilities_and_logits_average_differently():
    z = torch.tensor([[[4.0, 0.0]], [[0.0, 1.0]]])
    p = predictive_mean(z.softmax(-1))
    torch.testing.assert_close(p, (z[0].softmax(-1) + z[1].softmax(-1)) / 2)
    torch.testing.assert_close(predictive_mean_of_logits(z), torch.tensor([[2.0, 0.5]]).softmax(-1))
    assert (p - predictive_mean_of_logits(z)).abs().max() > 0.1


def test_entropy_at_its_ends():
    assert predictive_entropy(torch.tensor([1.0, 0.0, 0.0])).item() == 0
    assert predictive_entropy(torch.full((5,), 0.2)).item() == pytest.approx(math.log(5))


def test_mutual_information_is_zero_only_without_disagreement():
    same = torch.tensor([[0.7, 0.3]]).expand(4, 1, 2)
    assert mutual_information(same).abs().max() < 1e-6
    split = torch.eye(2)[:, None]
    assert mutual_information(split).item() == pytest.approx(math.log(2))


def test_nll_is_cross_entropy_and_finite_at_zero(logits_labels):
    z, y = logits_labels
    torch.testing.assert_close(nll(z.softmax(-1), y), torch.nn.functional.cross_entropy(z, y))
    assert nll(torch.tensor([[1.0, 0.0]]), torch.tensor([1])).isfinite()


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_ece_agrees_with_torchmetrics(logits_labels, bins):
    z, y = logits_labels
    p = (3 * z).softmax(-1)
    want = multiclass_calibration_error(p, y, num_classes=10, n_bins=bins)
    torch.testing.assert_close(expected_calibration_error(p, y, bins), want, atol=1e-5, rtol=1e-4)


def test_temperature_minimises_the_nll(logits_labels):
    z, y = logits_labels
    t = fit_temperature(z, y)
    assert 1.8 < t < 2.2
    best = nll((z / t).softmax(-1), y)
    assert all(nll((z / (t * k)).softmax(-1), y) > best for k in (0.9, 1.1))


def test_temperature_of_a_perfect_classifier_stops_at_the_bound():
    assert fit_temperature(torch.eye(3), torch.arange(3), low=0.01) == pytest.approx(0.01)


def test_confidence_bound_of_ten_classes():
    p, ce = confidence_bound(10)
    assert (round(p, 3), round(ce, 3)) == (0.757, 0.278)


@pytest.mark.parametrize(
    "call, word",
    [
        (lambda: nll(torch.ones(3, 2), torch.ones(2)), "labels"),
        (lambda: expected_calibration_error(torch.ones(3, 2), torch.ones(3), 0), "bins"),
        (lambda: fit_temperature(torch.ones(3, 2), torch.ones(3), low=2.0, high=1.0), "low"),
        (lambda: confidence_bound(1), "num_classes"),
    ],
)
def test_errors_name_the_value(call, word):
    with pytest.raises(ValueError, match=word):
        call()
