"""STE, Bop and the decayed sum: conventions at zero, errors, and the equivalences the page states."""

import pytest
import torch

from bayesbinn_nb.math.limits import binary_sign, bop_step, decayed_sum, hysteresis, sign_of_decayed_sum, ste_step


def test_sign_of_zero_is_plus_one():
    x = torch.tensor([-2.0, -0.0, 0.0, 3.0])
    assert binary_sign(x).tolist() == [-1, 1, 1, 1]
    assert binary_sign(x.double()).dtype == torch.float64


@pytest.mark.parametrize(
    "w, m, flips",
    [
        (1.0, 0.2, True),
        (1.0, 0.05, False),
        (1.0, -0.2, False),
        (-1.0, -0.2, True),
        (-1.0, 0.2, False),
        (-1.0, -0.05, False),
    ],
)
def test_hysteresis_flips_only_past_the_threshold(w, m, flips):
    new = hysteresis(torch.tensor([m]), torch.tensor([w]), 0.1).item()
    assert new == (-w if flips else w)


def test_ties_become_plus_one():
    w = torch.tensor([1.0, -1.0])
    assert hysteresis(0.25 * w, w, 0.25).tolist() == [1, 1]


def test_bop_step_is_a_moving_average_and_keeps_its_inputs():
    m, w, g = torch.zeros(3), torch.tensor([1.0, -1.0, 1.0]), torch.tensor([4.0, 4.0, -4.0])
    m2, w2 = bop_step(m, g, w, 0.25, 0.5)
    assert m2.tolist() == [1, 1, -1] and w2.tolist() == [-1, -1, 1]
    assert m.eq(0).all() and w.tolist() == [1, -1, 1]


def test_ste_step_clamps_only_when_asked():
    w, g = torch.tensor([0.9, -0.9, 0.0]), torch.tensor([-1.0, 1.0, 0.5])
    assert torch.allclose(ste_step(w, g, 0.5), torch.tensor([1.0, -1.0, -0.25]))
    assert torch.allclose(ste_step(w, g, 0.5, clip=None), torch.tensor([1.4, -1.4, -0.25]))


@pytest.mark.parametrize("lr", [0.3, torch.linspace(0.5, 0.01, 20, dtype=torch.float64)])
def test_decayed_sum_is_the_recursion(lr):
    g = torch.randn(20, 2, 5, dtype=torch.float64)
    lam = start = torch.full((2, 5), 3.0, dtype=torch.float64)
    for t in range(20):
        a = lr if isinstance(lr, float) else lr[t]
        lam = (1 - a) * lam - a * g[t]
    torch.testing.assert_close(decayed_sum(g, lr, start), lam)
    assert sign_of_decayed_sum(g, lr, start).equal(lam.sign())


@pytest.mark.parametrize(
    "call, word",
    [
        (lambda: ste_step(torch.ones(1), torch.ones(1), 0.0), "lr"),
        (lambda: hysteresis(torch.ones(1), torch.ones(1), -1.0), "threshold"),
        (lambda: bop_step(torch.ones(1), torch.ones(1), torch.ones(1), 0.0, 0.0), "adaptivity_rate"),
    ],
)
def test_errors_name_the_value(call, word):
    with pytest.raises(ValueError, match=word):
        call()
