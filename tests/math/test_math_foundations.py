"""The small functions under every page: dtypes, broadcasting, edge values, errors (the identities are checked on
the pages of nbs/math)."""

import math

import pytest
import torch

from bayesbinn_nb.math import bernoulli as B
from bayesbinn_nb.math import learning_rule as L
from bayesbinn_nb.math import relaxation as R

DTYPES = (torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_maps_keep_dtype_and_invert(dtype):
    lam = torch.linspace(-3, 3, 13, dtype=dtype)
    for f in (
        B.prob_from_natural,
        B.mean_from_natural,
        B.log_partition,
        B.variance,
        B.fisher_information,
        B.entropy,
        B.sample,
    ):
        assert f(lam).dtype == dtype and f(lam).shape == lam.shape
    tol = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(B.natural_from_prob(B.prob_from_natural(lam)), lam, rtol=tol * 100, atol=tol)
    torch.testing.assert_close(B.natural_from_mean(B.mean_from_natural(lam)), lam, rtol=tol * 100, atol=tol)
    assert B.kl_divergence(lam, torch.tensor(0.5)).dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_decided_weights_stay_finite(dtype):
    lam = torch.tensor([-1e7, -30.0, 30.0, 1e7], dtype=dtype)
    assert B.log_partition(lam).tolist() == pytest.approx([1e7, 30, 30, 1e7])
    assert (B.entropy(lam) >= 0).all() and B.entropy(lam).max() < 1e-20
    assert B.log_prob(lam.sign(), lam).abs().max() < 1e-20
    assert B.sample(lam).tolist() == [-1, -1, 1, 1]
    assert B.kl_divergence(lam, 0.0).tolist() == pytest.approx([math.log(2)] * 4, rel=1e-6)
    for one, other, exact in (
        (1e7, 3.3, 0.0013594),
        (3.0, 3.0005, 1.23285e-9),
        (10.0, 10.1, 3.8607e-11),
    ):  # where the formula of the log-partitions cancels in float32
        assert B.kl_divergence(torch.tensor([one], dtype=dtype), other).item() == pytest.approx(
            exact, rel=2e-4, abs=0 if dtype == torch.float64 else 1e-8
        )
    assert (
        B.sample(torch.full((10_010_000,), -40.0, dtype=torch.float32), torch.Generator().manual_seed(0)) < 0
    ).all()  # rand returns 0 about once in 16 million times


@pytest.mark.parametrize("dtype, least", ((torch.float32, 2.0**-25), (torch.float64, 2.0**-54)))
def test_half_logistic_clamps_exact_zero_and_one(dtype, least):
    delta = R.half_logistic(torch.tensor([0.0, 0.5, 1.0], dtype=dtype))
    assert delta.dtype == dtype and delta.isfinite().all()
    assert delta[0].item() == pytest.approx(0.5 * math.log(least), rel=1e-6)
    assert delta[1] == 0 and 0 < delta[2] < -delta[0]


def test_half_logistic_leaves_every_other_draw_alone():
    """The smallest and largest non-trivial float32 draws of torch.rand are 2^-24 and 1 - 2^-24."""
    u = torch.tensor([2.0**-24, 1 - 2.0**-24])
    torch.testing.assert_close(R.half_logistic(u), 0.5 * torch.logit(u.double()).float())


@pytest.mark.parametrize("dtype", DTYPES)
def test_relaxation_keeps_dtype_and_limits(dtype):
    g = torch.Generator().manual_seed(0)
    lam = torch.linspace(-2, 2, 9, dtype=dtype)
    w = R.relaxed_sample(lam, 1e-12, g)
    assert w.dtype == dtype and set(w.tolist()) <= {-1.0, 1.0}
    w = R.relaxed_sample(lam, 1.0, g)
    assert (w.abs() < 1).all()
    assert R.relaxation_scale(w, torch.tanh(lam), 1.0).dtype == dtype
    assert R.binary_concrete_log_density(w, lam, 0.5).dtype == dtype


def test_scale_of_a_saturated_float32_weight_is_one_over_temperature():
    one = torch.ones(3)
    assert R.relaxation_scale(one, one, 1e-10).tolist() == pytest.approx([1e10] * 3)
    assert R.relaxation_scale(one, torch.zeros(3), 1e-2).tolist() == pytest.approx([1e-8] * 3)


def test_scale_takes_the_mean_it_is_given():
    w, lagged = torch.tensor([0.5]), torch.tensor([0.9])
    assert R.relaxation_scale(w, lagged, 0.5, eps=0).item() == pytest.approx((1 - 0.25) / (0.5 * (1 - 0.81)))


def test_generators_make_draws_repeatable():
    lam = torch.zeros(64)
    a, b = (R.relaxed_sample(lam, 1.0, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b)
    a, b = (B.sample(lam, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b) and not torch.equal(a, B.sample(lam, torch.Generator().manual_seed(4)))


def test_sign_vectors_are_all_different_and_ordered():
    w = B.sign_vectors(5)
    assert w.shape == (32, 5) and len({tuple(r) for r in w.tolist()}) == 32
    assert w[0].tolist() == [-1] * 5 and w[1].tolist() == [-1] * 4 + [1] and w[-1].tolist() == [1] * 5


def test_exact_expectation_is_differentiable_and_takes_vectors():
    lam = torch.tensor([0.3, -1.2], dtype=torch.float64, requires_grad=True)
    e = B.exact_expectation(lambda w: w, lam)
    torch.testing.assert_close(e, torch.tanh(lam))
    e[0].backward()
    torch.testing.assert_close(lam.grad, torch.stack((1 - e[0] ** 2, torch.zeros_like(e[0]))).detach())


@pytest.mark.parametrize(
    "call, words",
    (
        (lambda: B.natural_from_prob(torch.tensor([1.5])), "natural_from_mean"),
        (lambda: B.natural_from_mean(torch.tensor([-1.5])), r"\[-1,1\]"),
        (lambda: B.sign_vectors(21), "draw samples"),
        (lambda: R.relaxed_weights(torch.zeros(1), torch.zeros(1), 0.0), "positive"),
        (lambda: R.relaxation_scale(torch.zeros(1), torch.zeros(1), -1.0), "-1.0"),
        (lambda: R.binary_concrete_log_density(torch.zeros(1), torch.zeros(1), 0.0), "positive"),
        (
            lambda: L.bayesbinn_step(
                torch.zeros(1), torch.zeros(1), 0, [(None, torch.zeros(1))], train_size=1, lr=0.1, temperature=1.0
            ),
            "from 1",
        ),
        (
            lambda: L.bayesbinn_step(torch.zeros(1), torch.zeros(1), 1, [], train_size=1, lr=0.1, temperature=1.0),
            "samples is empty",
        ),
    ),
)
def test_errors_teach(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def _hyper(**kw):
    return dict(train_size=10, lr=0.1, temperature=0.7, **kw)


def test_twin_without_momentum_is_the_learning_rule():
    g = torch.Generator().manual_seed(0)
    lam = torch.randn(6, generator=g, dtype=torch.float64)
    u, grad = torch.rand(6, generator=g, dtype=torch.float64), torch.randn(6, generator=g, dtype=torch.float64)
    new, _, mu = L.bayesbinn_step(lam, torch.zeros_like(lam), 1, [(u, grad)], prior=0.4, **_hyper())
    w = torch.tanh((lam + 0.5 * torch.logit(u)) / 0.7)
    scale = (1 - w**2 + 1e-10) / (0.7 * (1 - torch.tanh(lam) ** 2 + 1e-10))
    torch.testing.assert_close(new, L.natural_gradient_step(lam, 10 * scale * grad, 0.1, 0.4))
    torch.testing.assert_close(mu, torch.tanh(lam))


def test_twin_takes_functions_lagged_means_and_several_samples():
    lam = torch.tensor([0.2, -0.4], dtype=torch.float64)
    zero, u = (
        torch.zeros_like(lam),
        [torch.tensor([0.3, 0.6], dtype=torch.float64), torch.tensor([0.9, 0.1], dtype=torch.float64)],
    )
    both = L.bayesbinn_step(lam, zero, 1, [(x, lambda w: w**3) for x in u], **_hyper())[0]
    each = [L.bayesbinn_step(lam, zero, 1, [(x, lambda w: w**3)], **_hyper())[0] for x in u]
    torch.testing.assert_close(both, (each[0] + each[1]) / 2)
    lagged = L.bayesbinn_step(lam, zero, 1, [(u[0], lambda w: w**3)], mean=torch.zeros_like(lam), **_hyper())[0]
    assert not torch.allclose(lagged, each[0])
    calm = L.bayesbinn_step(lam, zero, 1, [(None, lambda w: w)], kl_weight=0.0, **_hyper())[0]
    torch.testing.assert_close(calm, lam - 0.1 * 10 * torch.tanh(lam))


def test_twin_does_not_write_into_its_arguments():
    lam, m, u = torch.ones(3), torch.ones(3), torch.full((3,), 0.25)
    L.bayesbinn_step(lam, m, 2, [(u, torch.ones(3))], momentum=0.9, mean=torch.zeros(3), **_hyper())
    assert lam.tolist() == m.tolist() == [1] * 3 and u.tolist() == [0.25] * 3
