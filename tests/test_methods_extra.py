"""Activations, Bop, PMF, LR-Net: against float64 references written from the papers, and their contracts."""
import pytest
import torch
from torch import nn

from bayesbinn_nb.methods.activations import BinaryActivation, sign_ste


# ---------------------------------------------------------------- binary activations

def test_sign_ste_values_and_gradient():
    x = torch.tensor([-2., -1., -.5, -0., 0., .5, 1., 1.0001], requires_grad=True)
    y = sign_ste(x)
    assert y.tolist() == [-1, -1, -1, 1, 1, 1, 1, 1]
    (g,) = torch.autograd.grad(y, x, torch.arange(1., 9))
    assert g.tolist() == [0, 2, 3, 4, 5, 6, 7, 0]


def test_sign_ste_refuses_integers():
    with pytest.raises(TypeError, match="floating-point.*float()"):
        sign_ste(torch.arange(3))


def test_sign_ste_under_vmap_and_autocast():
    x = torch.randn(4, 5)
    per_example = torch.func.vmap(torch.func.grad(lambda r: (sign_ste(r) * r.detach()).sum()))(x)
    torch.testing.assert_close(per_example, x * (x.abs() <= 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert set(BinaryActivation()(nn.Linear(5, 6)(x)).unique().tolist()) <= {-1., 1.}
