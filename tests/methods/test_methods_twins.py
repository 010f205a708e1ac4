"""The functions of the derivation, stepped beside the real thing: STE and Bop of `math.limits`, LR-Net and PMF of
`math`."""

from functools import partial

import pytest
import torch
from torch import nn

from bayesbinn_nb.math.bernoulli import entropy, mean_from_natural, variance
from bayesbinn_nb.math.limits import bop_step, sign_of_decayed_sum, ste_step
from bayesbinn_nb.math.relaxation import relaxed_weights
from bayesbinn_nb.methods.bop import BopOptimizer
from bayesbinn_nb.methods.lrnet import weight_moments
from bayesbinn_nb.methods.pmf import pmf_gradient_, pmf_weights
from bayesbinn_nb.methods.ste import STE
from bayesbinn_nb.methods.write_your_own import SignEMA


def stepped(method, layer, gradient):
    for one in method.train_passes():
        with one:
            (layer.weight * gradient).sum().backward()
    method.step()


def test_ste_with_sgd_is_the_step_of_the_derivation():
    layer, method = nn.Linear(30, 20, bias=False), STE(optimizer=partial(torch.optim.SGD, lr=0.1))
    method.prepare(layer, train_size=1)
    latent = method.latent[0].detach().clone()
    for _ in range(100):
        g = torch.randn(20, 30)
        stepped(method, layer, g)
        latent = ste_step(latent, g, 0.1)
        assert torch.allclose(method.latent[0], latent, atol=1e-6)
    assert torch.equal(layer.weight, torch.where(method.latent[0] >= 0, 1.0, -1.0))


@pytest.mark.parametrize("threshold", [0.0, 0.05])
def test_bop_is_the_step_of_the_derivation(threshold):
    p = nn.Parameter(torch.randn(20, 30, dtype=torch.float64))
    opt = BopOptimizer([p], 0.1, threshold)
    w, m, flips = p.detach().clone(), torch.zeros_like(p), 0
    for _ in range(100):
        g = torch.randn(20, 30, dtype=torch.float64)
        p.grad = g
        opt.step()
        m, new = bop_step(m, g, w, 0.1, threshold)
        flips, w = flips + int((new != w).sum()), new
        assert torch.equal(p, w)
    assert flips > 100


def test_the_sign_of_an_average_is_the_sign_of_a_decayed_sum():
    layer, method = nn.Linear(30, 20, bias=False), SignEMA(0.05)
    method.prepare(layer, train_size=1)
    start, gradients = -method.averages[0].double() / 0.05, []
    for _ in range(100):
        gradients.append(torch.randn(20, 30))
        stepped(method, layer, gradients[-1])
    expected = sign_of_decayed_sum(torch.stack(gradients).double(), 0.05, initial=0.05 * start)
    assert torch.equal(layer.weight.double(), expected)


def test_lrnet_has_the_moments_of_a_bernoulli_with_half_the_logit():
    a = torch.randn(500, dtype=torch.float64) * 4
    mean, var = weight_moments(a)
    assert torch.allclose(mean, mean_from_natural(a / 2)) and torch.allclose(var, variance(a / 2))
    assert (entropy(a / 2) >= 0).all()


def test_pmf_weights_are_the_relaxation_without_noise():
    h = torch.randn(500, dtype=torch.float64)
    for beta in (1.0, 7.0):
        assert torch.allclose(pmf_weights(h, beta), relaxed_weights(h, torch.zeros(()), 1 / beta))
        slope = beta * variance(beta * h) / 2  # half of the derivative of tanh(β h̃), (Q4)
        assert torch.allclose(pmf_gradient_(torch.ones_like(h), h, beta), slope)
