"""Numbers about numbers: the grid of torch.rand, the saturation of tanh, who can still flip."""

import pytest
import torch

from bayesbinn_nb.math.floating_point import (
    can_flip,
    fractional_probability,
    largest_half_logistic,
    saturation_threshold,
    uniform_step,
)

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rand_lies_on_the_grid(dtype):
    u = torch.rand(20_000, dtype=dtype).double() / uniform_step(dtype)
    assert u.eq(u.round()).all() and u.min() >= 0 and u.max() < 1 / uniform_step(dtype)
    assert u.remainder(2).eq(1).any()  # no coarser grid would do


@pytest.mark.parametrize("dtype", FLOATS)
def test_tanh_saturates_just_there(dtype):
    x = torch.tensor(saturation_threshold(dtype), dtype=dtype)
    assert torch.tanh(x) == 1 and torch.tanh(torch.nextafter(x, torch.zeros_like(x))) < 1


def test_can_flip_is_exact_at_its_edge():
    edge = largest_half_logistic()
    lam = torch.tensor([0.0, 0.999 * edge, -0.999 * edge, 1.001 * edge, -1.001 * edge])
    assert can_flip(lam).tolist() == [True, True, True, False, False]
    assert edge == pytest.approx(8.3178, abs=1e-4)


def test_fractional_probability_is_a_difference_of_sigmoids():
    lam = torch.linspace(-6, 6, 25, dtype=torch.float64)
    for tau in (1.0, 1e-2, 1e-4):
        h = tau * saturation_threshold()
        want = torch.sigmoid(2 * (h - lam)) - torch.sigmoid(2 * (-h - lam))
        torch.testing.assert_close(fractional_probability(lam, tau), want, rtol=1e-7, atol=1e-12)


def test_fractional_probability_neither_overflows_nor_goes_below_zero():
    p = fractional_probability(torch.tensor([0.0, 1e7]), 1e3)
    assert p.tolist() == [1.0, 0.0]
    assert 0 < fractional_probability(torch.tensor([0.0]), 1e-10).item() < 1e-8


def test_unknown_dtype_and_bad_temperature():
    with pytest.raises(TypeError, match="float32 or float64"):
        uniform_step(torch.bfloat16)
    with pytest.raises(TypeError, match="dtype"):
        saturation_threshold(torch.int32)
    with pytest.raises(ValueError, match="temperature"):
        fractional_probability(torch.zeros(1), 0.0)
