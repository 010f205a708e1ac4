"""The prior is a copy; the KL gradient, its quadratic shape and EWC's penalty."""

import torch

from bayesbinn_nb.math.continual import (
    diagonal_fisher,
    ewc_penalty,
    kl_natural_gradient,
    kl_quadratic,
    posterior_as_prior,
)


def test_prior_does_not_follow_the_posterior():
    lam = torch.randn(4, requires_grad=True)
    prior = posterior_as_prior(lam)
    before = prior.clone()
    with torch.no_grad():
        lam.add_(1)
    assert prior.equal(before) and not prior.requires_grad
    torch.testing.assert_close(kl_natural_gradient(lam, prior), torch.ones(4))


def test_quadratic_is_the_second_order_of_the_kl():
    def kl(a, b):  # KL of Bernoulli distributions on ±1, natural parameters a and b
        def logZ(x):
            return torch.log(2 * torch.cosh(x))

        return torch.tanh(a) * (a - b) - logZ(a) + logZ(b)

    prior = torch.linspace(-2, 2, 9, dtype=torch.float64)
    lam = prior + 1e-4
    torch.testing.assert_close(kl_quadratic(lam, prior), kl(lam, prior), rtol=1e-3, atol=1e-12)


def test_ewc_penalty_by_hand():
    w, a, f = torch.tensor([1.0, -1.0]), torch.tensor([1.0, 1.0]), torch.tensor([5.0, 0.5])
    assert ewc_penalty(w, a, f, 3.0).item() == 6.0
    assert ewc_penalty(a, a, f).item() == 0


def test_diagonal_fisher_is_a_mean_square():
    g = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    assert diagonal_fisher(g).tolist() == [5.0, 2.0]
