"""Displayed formulas on the pages of the methods, read from those pages and evaluated; changed ones must be noticed.

These pages are written around their classes; here only the displays are checked, by tag; one that has moved to
another page is named.
"""

import math
from pathlib import Path

import pytest
import torch
from test_math_formulas import mutants

from bayesbinn_nb.math.display import Display, Over, Rule
from bayesbinn_nb.math.limits import bop_step
from bayesbinn_nb.methods.bop import flip_ratio

METHODS = Path(__file__).parents[2] / "nbs" / "methods"
GRID = torch.tensor([-1.3, -0.2, 0.2, 1.3, 0.7], dtype=torch.float64)
W = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0], dtype=torch.float64)
G = torch.tensor([0.3, -1.2, 2.0, -0.1, 0.4], dtype=torch.float64)


def bop_average(shown):
    new, _ = bop_step(GRID, G, W, 0.25, 0.1)
    shown.check("3", after={"m": new}, m=GRID, g=G, γ=0.25)


def bop_flip(shown):
    for m in (GRID, -GRID):
        _, new = bop_step(m, 0 * G, W, 1e-9, 0.5)
        shown.check("4", after={"w": new}, m=m, w=W, τ=0.5)


def bop_switch(shown):
    for m in (GRID, -GRID):
        _, new = bop_step(m, 0 * G, W, 1e-9, 0.5)
        shown.check("a", after={"w": new}, m=m, w=W, τ=0.5)


def bop_spread(shown):
    gamma, weights = 0.2, 0.2 * 0.8 ** torch.arange(400, dtype=torch.float64)  # of past gradients in m
    spread = Over(lambda body: body(m=1.7 * weights.square().sum().sqrt()))
    shown.check("b", sd=spread, m=1.0, σ=1.7, γ=gamma)


def lrnet_binary(shown):
    a = torch.tensor([-1.0, 0.3, 2.0], dtype=torch.float64)
    p = torch.sigmoid(a)
    mean = Over(lambda body: p * body(w=1.0) + (1 - p) * body(w=-1.0))
    spread = Over(lambda body: p * (1 - p) * (body(w=1.0) - body(w=-1.0)) ** 2)
    chance = Over(lambda event: p * event(w=torch.tensor(1.0)) + (1 - p) * event(w=torch.tensor(-1.0)))
    shown.check("a", p=p, P=chance, E=mean, Var=spread, σ=torch.sigmoid, a=a)


def pmf_tanh(shown):
    plus, minus = torch.tensor([0.2, -1.0], dtype=torch.float64), torch.tensor([0.7, 0.4], dtype=torch.float64)
    for beta in (0.5, 3.0):  # not only β = 1
        u = torch.softmax(beta * torch.stack([plus, minus]), 0)
        names = {"u_+": u[0], "u_-": u[1], "tilde_u_+": plus, "tilde_u_-": minus, "tilde_h": (plus - minus) / 2}
        shown.check("e", w=u[0] - u[1], β=beta, **names)


def pmf_jacobian(shown):
    for beta in (0.5, 3.0):
        latent = torch.tensor([0.2, -0.4], dtype=torch.float64, requires_grad=True)
        u = torch.softmax(beta * latent, 0)
        outer = torch.tensor([1.3, -0.7], dtype=torch.float64)
        (inner,) = torch.autograd.grad((u * outer).sum(), latent)
        u = u.detach()
        expected = beta * (torch.diag(u) - torch.outer(u, u)) @ outer
        torch.testing.assert_close(inner, expected)
        w, g = u[0] - u[1], torch.tensor(0.9, dtype=torch.float64)
        for sign in (1.0, -1.0):
            names = {"u_+": u[0], "u_-": u[1], "±": sign, "l": Rule(lambda at, beta=beta, g=g: _loss(at, beta, g))}
            start = latent.detach()[0 if sign > 0 else 1]
            shown.check("d", β=beta, w=w, g=g, other=latent.detach(), **{"tilde_u_pm": start}, **names, rtol=1e-5)


def _loss(at, beta, g):
    "g·w, with the latent number of one side taken from the formula"
    plus, minus = at.other
    plus, minus = (at["tilde_u_pm"], minus) if at["±"] > 0 else (plus, at["tilde_u_pm"])
    return g * torch.tanh(beta * (plus - minus) / 2)


def kernels_artanh(shown):
    u = torch.tensor([0.01, 0.3, 0.5, 0.9], dtype=torch.float64)
    shown.check("K1", δ=torch.logit(u) / 2, u=u, z=2 * u - 1)


def kernels_tanh(shown):
    x = torch.tensor([-2.0, -0.1, 0.0, 1.5], dtype=torch.float64)
    shown.check("KA", x=x, σ=torch.sigmoid)


def flip_ratio_value():
    assert flip_ratio(0, 10) == -9 and math.isclose(flip_ratio(10, 10), math.log(1 + math.exp(-9)))


CASES = [
    ("bop", "3", bop_average),
    ("bop", "4", bop_flip),
    ("bop", "a", bop_switch),
    ("bop", "b", bop_spread),
    ("lrnet", "a", lrnet_binary),
    ("pmf", "e", pmf_tanh),
    ("pmf", "d", pmf_jacobian),
    ("kernels/noise", "K1", kernels_artanh),
    ("kernels/eager", "KA", kernels_tanh),
]


def _shown(page):
    path = METHODS / f"{page}.ipynb"
    return Display(path) if path.exists() else None


def _survivors(page, tag, check):
    shown = _shown(page)
    text = shown.formulas[tag]
    check(shown)  # as it stands
    alive = []
    for what, changed in mutants(text):
        shown.formulas[tag] = changed
        try:
            check(shown)
            alive.append(what)
        except Exception:
            pass
    return alive


@pytest.mark.parametrize("page, tag, check", CASES, ids=[f"{p}-{t}" for p, t, _ in CASES])
def test_formula_of_a_method(page, tag, check):
    shown = _shown(page)
    assert shown is not None and tag in shown.formulas, f"{page} displays no ({tag}) any more: bring CASES up to date"
    assert not (alive := _survivors(page, tag, check)), "\n".join(alive)


def test_the_flip_ratio_of_the_report():
    flip_ratio_value()


if __name__ == "__main__":
    for page, tag, check in CASES:
        try:
            print(page, tag, _survivors(page, tag, check))
        except Exception as error:
            print(page, tag, "FAILS", repr(error)[:300])
