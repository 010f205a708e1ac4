"""Activations, Bop, PMF, LR-Net: against float64 references written from the papers, and their contracts."""

import copy
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from bayesbinn_nb.methods.activations import BinaryActivation, sign_ste
from bayesbinn_nb.methods.bayesbinn import BayesBiNN
from bayesbinn_nb.methods.bop import Bop, BopOptimizer, bop_update_, flip_ratio
from bayesbinn_nb.methods.lrnet import (
    LRConv2d,
    LRLinear,
    LRNet,
    local_reparameterisation_layer,
    logits_from_weights,
    mode_weights,
    sample_weights,
    weight_moments,
    weight_probabilities,
)
from bayesbinn_nb.methods.method import Method, is_binary_weight_or_bias
from bayesbinn_nb.methods.pmf import PMF, pmf_gradient_, pmf_weights, released_pair_gradient
from bayesbinn_nb.methods.ste import STE
from bayesbinn_nb.methods.write_your_own import SignEMA, check_method

# ---------------------------------------------------------------- binary activations


def test_sign_ste_values_and_gradient():
    x = torch.tensor([-2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 1.0001], requires_grad=True)
    y = sign_ste(x)
    assert y.tolist() == [-1, -1, -1, 1, 1, 1, 1, 1]
    (g,) = torch.autograd.grad(y, x, torch.arange(1.0, 9))
    assert g.tolist() == [0, 2, 3, 4, 5, 6, 7, 0]


def test_sign_ste_refuses_integers():
    with pytest.raises(TypeError, match="floating-point.*float()"):
        sign_ste(torch.arange(3))


def test_sign_ste_under_vmap_and_autocast():
    x = torch.randn(4, 5)
    per_example = torch.func.vmap(torch.func.grad(lambda r: (sign_ste(r) * r.detach()).sum()))(x)
    torch.testing.assert_close(per_example, x * (x.abs() <= 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert set(BinaryActivation()(nn.Linear(5, 6)(x)).unique().tolist()) <= {-1.0, 1.0}


# ---------------------------------------------------------------- helpers


def small_net(seed=0, bias=False):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(12, 16, bias=bias), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3, bias=bias), nn.BatchNorm1d(3)
    )


def small_data(n=300):
    g = torch.Generator().manual_seed(5)
    x = torch.randn(n, 12, generator=g)
    teacher = torch.where(torch.rand(12, 3, generator=g) < 0.5, -1.0, 1.0)
    return x, (x @ teacher).argmax(1)


def train(net, method, steps, start=0, batch=50):
    "The protocol's loop; the batches depend on the step number only"
    x, y = small_data()
    for t in range(start, start + steps):
        i = torch.randint(len(x), (batch,), generator=torch.Generator().manual_seed(t))
        for p in method.train_passes():
            with p:
                loss = nn.functional.cross_entropy(net(x[i]), y[i])
                extra = method.regularizer()
                (loss if extra is None else loss + extra).backward()
        method.step()


def accuracy(net):
    x, y = small_data()
    net.eval()
    with torch.no_grad():
        return (net(x).argmax(1) == y).float().mean().item()


def assert_levels(method, levels=(-1.0, 1.0)):
    for name, p in method.binary_parameters.items():
        assert set(p.detach().unique().tolist()) <= set(levels), name


METHODS = {
    "bop": lambda: Bop(1e-2, 1e-4),
    "pmf": lambda: PMF(1e-2, beta_every=5),
    "lrnet": lambda: LRNet(5e-2),
    "lrnet-ternary": lambda: LRNet(5e-2, ternary=True),
    "sign-ema": lambda: SignEMA(1e-2),
    "pmf-released": lambda: PMF(1e-2, beta_every=5, jacobian="released", weight_decay=1e-4),
}


@pytest.fixture(params=list(METHODS))
def make(request):
    return METHODS[request.param]


def prepared(make, seed=0):
    net, method = small_net(), make()
    return method.prepare(net, train_size=300, seed=seed), method


# ---------------------------------------------------------------- every method of this file


def test_levels_before_between_and_after_steps(make):
    net, method = prepared(make)
    levels = getattr(method, "levels", (-1.0, 1.0))
    assert_levels(method, levels)
    before = [p.detach().clone() for p in method.binary_parameters.values()]
    train(net, method, 30)
    assert_levels(method, levels)
    assert any((b != p).any() for b, p in zip(before, method.binary_parameters.values()))
    for how in method.predictions:
        for p in method.predict_passes(how, samples=3):
            with p, torch.no_grad():
                net(small_data()[0])
        assert_levels(method, levels)


def test_levels_and_state_survive_a_body_that_raises(make):
    net, method = prepared(make)
    train(net, method, 3)
    before = copy.deepcopy(net.state_dict())
    x, y = small_data()
    with pytest.raises(RuntimeError, match="boom"):
        for p in method.train_passes():
            with p:
                net.eval()  # so that the BatchNorm statistics stay
                nn.functional.cross_entropy(net(x), y).backward()
                raise RuntimeError("boom")
    assert_levels(method, getattr(method, "levels", (-1.0, 1.0)))
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in method.binary_parameters.values())
    with pytest.raises(RuntimeError, match="no gradient to learn from"):
        method.step()
    for how in method.predictions:
        with pytest.raises(RuntimeError, match="boom"):
            for p in method.predict_passes(how, samples=2):
                with p:
                    raise RuntimeError("boom")
        assert_levels(method, getattr(method, "levels", (-1.0, 1.0)))


def test_learns_the_tiny_problem(make):
    net, method = prepared(make)
    train(net, method, 300)
    assert accuracy(net) > 0.8


def test_resume_is_bit_identical(make, tmp_path):
    net, method = prepared(make)
    method.on_epoch_start(1)
    train(net, method, 20)
    torch.save({"model": net.state_dict(), "method": method.state_dict()}, tmp_path / "half.pt")
    train(net, method, 20, start=20)

    saved = torch.load(tmp_path / "half.pt", weights_only=True)
    again, other = prepared(make, seed=7)
    train(again, other, 2)  # whatever happened before loading must not matter
    again.load_state_dict(saved["model"])
    other.load_state_dict(saved["method"])
    train(again, other, 20, start=20)
    for (name, a), (_, b) in zip(net.state_dict().items(), again.state_dict().items()):
        assert torch.equal(a, b), name
    one, two = flatten(method.state_dict()), flatten(other.state_dict())
    assert one.keys() == two.keys()
    for key, a in one.items():
        b = two[key]
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, key
    assert method.metrics() == other.metrics()


def flatten(x, prefix=""):
    if isinstance(x, dict):
        items = x.items()
    elif isinstance(x, (list, tuple)):
        items = enumerate(x)
    else:
        return {prefix: x}
    return {k: v for key, value in items for k, v in flatten(value, f"{prefix}.{key}").items()}


def test_state_dict_of_another_method_is_refused(make):
    _, method = prepared(make)
    with pytest.raises(ValueError, match="saved by the method 'other'"):
        method.load_state_dict({**method.state_dict(), "method": "other"})


def test_same_seed_same_run(make):
    one, two = prepared(make), prepared(make)
    for net, method in (one, two):
        train(net, method, 10)
    for a, b in zip(one[0].parameters(), two[0].parameters()):
        assert torch.equal(a, b)


def test_model_state_dict_is_the_binary_model(make):
    net, method = prepared(make)
    assert set(net.state_dict()) == set(small_net().state_dict())
    train(net, method, 5)
    copy_ = small_net(seed=9)
    copy_.load_state_dict(net.state_dict())
    x, _ = small_data()
    net.eval(), copy_.eval()
    assert torch.equal(net(x), copy_(x))


# ---------------------------------------------------------------- Bop


def bop_reference(w, m, g, gamma, tau, convention):
    "float64, from the paper: average, then flip where |m| > τ and the signs agree; the conventions at equality"
    m = (1 - gamma) * m + gamma * g
    if convention == "original":
        s = -np.sign(w * m - tau) * w
        return np.where(s >= 0, 1.0, -1.0), m
    return np.where((np.abs(m) >= tau) & (np.sign(m) == np.sign(w)), -w, w), m


@pytest.mark.parametrize("convention", ["original", "report"])
@pytest.mark.parametrize("gamma,tau", [(1e-2, 0.1), (0.3, 0.0), (1e-3, 1e-2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bop_equals_its_reference_for_100_steps(convention, gamma, tau, dtype):
    rng = np.random.default_rng(1)
    p = nn.Parameter(torch.tensor(rng.normal(size=(30, 20)), dtype=dtype))
    w, m = np.where(p.detach().numpy() >= 0, 1.0, -1.0), np.zeros((30, 20))
    opt = BopOptimizer([p], gamma, tau, convention=convention)
    total = 0
    for _ in range(100):
        g = rng.normal(size=(30, 20)) + 0.2 * w
        g[0] = 0  # weights that never see a gradient
        p.grad = torch.tensor(g, dtype=dtype)
        opt.step()
        old, (w, m) = w, bop_reference(w, m, g, gamma, tau, convention)
        np.testing.assert_array_equal(p.detach().numpy(), w)
        assert opt.flips().item() == (old != w).sum()
        total += (old != w).sum()
    assert total > 100
    np.testing.assert_allclose(opt.state[p]["momentum"].numpy(), m, atol=1e-6 if dtype == torch.float32 else 1e-12)


def test_bop_conventions_at_equality():
    for convention, expected in (("original", [1.0, 1.0, -1.0, 1.0]), ("report", [-1.0, 1.0, -1.0, 1.0])):
        w, m = torch.tensor([1.0, -1.0, -1.0, 1.0]), torch.tensor([0.5, -0.5, 0.5, -0.5])
        bop_update_(w, m, torch.zeros(4), 1e-30, 0.5, convention)
        assert w.tolist() == expected
    w = torch.tensor([1.0, -1.0])  # τ = 0 and no gradient at all
    assert bop_update_(w, torch.zeros(2), torch.zeros(2), 0.1, 0.0, "report").item() == 0 and w.tolist() == [1, -1]
    assert bop_update_(w, torch.zeros(2), torch.zeros(2), 0.1, 0.0, "original").item() == 1 and w.tolist() == [1, 1]


def test_bop_pieces_equal_the_whole_and_layouts_do_not_matter():
    torch.manual_seed(3)
    n = (1 << 18) * 2 + 77
    w, m, g = torch.where(torch.rand(n) < 0.5, -1.0, 1.0), torch.randn(n), torch.randn(n)
    expected_m = m.lerp(g, 0.1)
    expected = torch.where(0.2 * w - expected_m >= 0, 1.0, -1.0)
    flips = bop_update_(w_ := w.clone(), m, g, 0.1, 0.2)
    assert torch.equal(w_, expected) and flips.item() == (w != expected).sum().item()

    w = torch.where(torch.rand(4, 3, 5, 5) < 0.5, -1.0, 1.0).to(memory_format=torch.channels_last)
    g = torch.randn(4, 3, 5, 5)  # another layout than the weights'
    m = torch.zeros_like(w)
    expected = torch.where(0.2 * w - 0.1 * g >= 0, 1.0, -1.0)
    bop_update_(w, m, g, 0.1, 0.2)
    assert torch.equal(w, expected) and w.is_contiguous(memory_format=torch.channels_last)


def test_bop_bfloat16_weights_keep_float32_averages():
    p = nn.Parameter(torch.ones(1000))
    opt = BopOptimizer([p], 1e-3, 1e-4)
    w, m = p.detach().clone(), torch.zeros(1000)
    p.data = p.data.to(torch.bfloat16)
    for t in range(50):
        g = torch.randn(1000, generator=torch.Generator().manual_seed(t)).to(torch.bfloat16)
        p.grad = g
        opt.step()
        flips = bop_update_(w, m, g.float(), 1e-3, 1e-4)
        assert torch.equal(p.detach().float(), w) and opt.flips() == flips
    assert opt.state[p]["momentum"].dtype == torch.float32 and torch.equal(opt.state[p]["momentum"], m)


def test_bop_graph_key_follows_the_rate():
    _, method = prepared(lambda: Bop(1e-3, 1e-6, decay=0.1))
    before = method.graph_key()
    method.on_epoch_start(2)
    assert method.graph_key() != before


def test_bop_first_gradient_start():
    p, q = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(5))
    p.grad, q.grad = torch.full((5,), 0.2), torch.full((5,), 0.2)
    zero, first = BopOptimizer([p], 0.1, 0.1), BopOptimizer([q], 0.1, 0.1, initial_momentum="first_gradient")
    zero.step(), first.step()
    assert p.tolist() == [1] * 5 and q.tolist() == [-1] * 5
    torch.testing.assert_close(first.state[q]["momentum"], torch.full((5,), 0.2))


def test_bop_groups_schedulers_and_closures():
    a, b = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4))
    opt = BopOptimizer(
        [{"params": [a], "adaptivity_rate": 0.5}, {"params": [b], "threshold": 9.0}], adaptivity_rate=0.1, threshold=0.0
    )
    schedule = torch.optim.lr_scheduler.StepLR(opt, 1, 0.1)

    def closure():
        opt.zero_grad()
        loss = (a + b).sum()
        loss.backward()
        return loss

    loss = opt.step(closure)
    assert loss.item() == (a + b).sum().item() + 2 * opt.flips().item()
    assert opt.state[a]["momentum"].tolist() == [0.5] * 4 and a.tolist() == [-1] * 4
    torch.testing.assert_close(opt.state[b]["momentum"], torch.full((4,), 0.1))
    schedule.step()
    opt.step(closure)
    torch.testing.assert_close(opt.state[a]["momentum"], torch.full((4,), 0.5 + 0.05 * 0.5))


@pytest.mark.parametrize(
    "bad,message",
    [
        (dict(adaptivity_rate=0.0), r"adaptivity_rate is 0.0, but must lie in \(0, 1\]"),
        (dict(adaptivity_rate=1.5), "adaptivity_rate is 1.5"),
        (dict(threshold=-1e-8), "threshold is -1e-08, but must be ≥ 0"),
        (dict(threshold=float("inf")), "threshold is inf"),
        (dict(convention="larq"), "convention is 'larq'"),
        (dict(initial_momentum="one"), "'first_gradient'"),
    ],
)
def test_bop_errors_teach(bad, message):
    with pytest.raises(ValueError, match=message):
        BopOptimizer([torch.ones(3)], **bad)
    with pytest.raises(ValueError, match=message):
        Bop(**bad)


def test_bop_more_errors():
    with pytest.raises(ValueError, match="decay is 0"):
        Bop(decay=0)
    with pytest.raises(ValueError, match="decay_every is 0"):
        Bop(decay_every=0)
    with pytest.raises(TypeError, match="autocast"):
        BopOptimizer([torch.ones(3, dtype=torch.bfloat16)])
    with pytest.raises(ValueError, match="total must be"):
        flip_ratio(1, 0)


def test_bop_decay_by_epochs_and_metrics():
    net, method = small_net(), Bop(1e-3, 1e-6, decay=0.1, decay_every=2)
    method.prepare(net, train_size=300)
    rates = []
    for epoch in range(1, 6):
        method.on_epoch_start(epoch)
        rates.append(method.metrics()["adaptivity_rate"])
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 1e-4, 1e-4, 1e-5])
    assert method.metrics()["step_flip_ratio"] == -9
    total = sum(p.numel() for p in method.parameters)
    flips = 0
    for t in range(4):
        before = [p.detach().clone() for p in method.parameters]
        train(net, method, 1, start=t)
        flips += sum((a != b).sum().item() for a, b in zip(before, method.parameters))
    assert flips > 0
    assert method.metrics()["step_flip_ratio"] == pytest.approx(np.log(flips / 4 / total + np.exp(-9)))
    assert len(method.optimizers()) == 2 and isinstance(method, Method)


def test_bop_more_flips_with_higher_adaptivity_and_lower_threshold():
    def flips(gamma, tau):
        net, method = small_net(), Bop(gamma, tau)
        method.prepare(net, train_size=300)
        method.on_epoch_start(1)
        train(net, method, 100)
        return method.metrics()["step_flip_ratio"]

    assert flips(0.1, 1e-3) > flips(1e-2, 1e-3) > flips(1e-3, 1e-3)
    assert flips(1e-2, 0.0) > flips(1e-2, 1e-3) > flips(1e-2, 1e-1)


# ---------------------------------------------------------------- PMF


class AdamReference:
    "Adam with coupled weight decay, float64 numpy"

    def __init__(self, lr, decay=0.0, eps=1e-8):
        self.lr, self.decay, self.eps, self.t, self.m, self.v = lr, decay, eps, 0, 0.0, 0.0

    def __call__(self, x, g):
        g = g + self.decay * x
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * g
        self.v = 0.999 * self.v + 0.001 * g**2
        return x - self.lr * (self.m / (1 - 0.9**self.t)) / (np.sqrt(self.v / (1 - 0.999**self.t)) + self.eps)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize(
    "jacobian,decay,opposite",
    [("true", 0.0, False), ("true", 1e-2, True), ("released", 0.0, False), ("released", 1e-2, False)],
)
def test_pmf_equals_its_reference_for_100_steps(jacobian, decay, opposite):
    """The pair ũ of every weight, its softmax, the written-out Jacobian, Adam: against our fewer numbers"""
    layer = nn.Linear(7, 5, bias=False).double()
    method = PMF(1e-2, beta_every=10, lr_decay=0.5, lr_every=40, jacobian=jacobian, weight_decay=decay)
    method.prepare(layer, train_size=10)
    rng = np.random.default_rng(0)
    pair = rng.normal(size=(35, 2)) * 0.1
    if opposite:
        pair[:, 1] = -pair[:, 0]
    with torch.no_grad():
        shaped = torch.tensor(pair.T.reshape(2, 5, 7))
        for a, start in zip(method.auxiliary[0], shaped if jacobian == "released" else [(shaped[1] - shaped[0]) / 2]):
            a.copy_(start)
    adam, beta, labels = AdamReference(1e-2, decay), 1.0, np.array([-1.0, 1.0])
    for t in range(100):
        target = rng.normal(size=35)
        u = softmax(beta * pair)
        w = u @ labels
        for p in method.train_passes():
            with p:
                np.testing.assert_allclose(layer.weight.detach().numpy().ravel(), w, atol=1e-9)
                ((layer.weight - torch.tensor(target).view(5, 7)) ** 2).sum().backward()
        method.step()
        g_u = (2 * (w - target))[:, None] * labels
        if jacobian == "true":
            jac = np.stack([np.diag(q) - np.outer(q, q) for q in u])
        else:
            jac = np.stack([np.eye(2) - np.outer(q, q) for q in softmax(beta * u)])
        pair = adam(pair, beta * np.einsum("nij,nj->ni", jac, g_u))
        if t % 10 == 0:
            beta = min(beta * 1.2, 1e4)
        if t and t % 40 == 0:
            adam.lr *= 0.5
        rounded = np.where(pair[:, 1] > pair[:, 0], 1.0, -1.0)
        np.testing.assert_array_equal(layer.weight.detach().numpy().ravel(), rounded)
    assert method.beta == pytest.approx(1.2**10) and method.optimizer.param_groups[0]["lr"] == pytest.approx(2.5e-3)


def test_pmf_gradient_is_the_derivative():
    h = torch.randn(50, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(torch.tanh(3.0 * h).sum(), h)
    torch.testing.assert_close(pmf_weights(h.detach(), 3.0), torch.tanh(3.0 * h.detach()))
    torch.testing.assert_close(2 * pmf_gradient_(torch.ones(50, dtype=torch.float64), h.detach(), 3.0), expected)


def test_pmf_released_gradient_does_not_vanish_where_the_true_one_does():
    released = released_pair_gradient(torch.ones(1), torch.ones(1), 1e4)
    assert [r.item() for r in released] == [-1e4, 0]
    assert pmf_gradient_(torch.ones(1), torch.ones(1), 1e4).item() == 0


def test_pmf_ties_go_to_minus_one():
    net, method = prepared(METHODS["pmf"])
    method.auxiliary[0][0].data.zero_()
    method.show_weights()
    assert (method.parameters[0] == -1).all()


def test_pmf_schedule():
    net, method = prepared(lambda: PMF(1.0, beta_growth=10.0, beta_every=2, beta_max=500.0, lr_every=3))
    seen = []
    for t in range(7):
        seen.append((method.beta, round(method.optimizer.param_groups[0]["lr"], 6)))
        train(net, method, 1, start=t)
    # β grows after iterations 0, 2, 4, …; the rate falls after 3, 6, …
    assert seen == [(1, 1), (10, 1), (10, 1), (100, 1), (100, 0.2), (500, 0.2), (500, 0.2)]
    _, method = prepared(lambda: PMF(1.0, lr_every=3, decay_at_start=True))
    train(net, method, 1)
    assert method.optimizer.param_groups[0]["lr"] == pytest.approx(0.2)


def test_pmf_schedule_in_device_memory_is_the_schedule():
    "What a recorded step does on a GPU, here on the CPU: β, iteration and rate as tensors"
    settings = dict(beta_growth=3.0, beta_every=2, beta_max=50.0, lr_decay=0.5, lr_every=3)
    for start in (False, True):
        (_, host), (_, device) = (prepared(lambda: PMF(1.0, decay_at_start=start, **settings)) for _ in range(2))
        device._schedule_on("cpu")
        device.optimizer.param_groups[0]["lr"] = torch.tensor(1.0)
        for _ in range(12):
            host.advance(), device.advance()
            assert float(device.beta) == host.beta and int(device.iteration) == host.iteration
            assert device.optimizer.param_groups[0]["lr"].item() == pytest.approx(host.optimizer.param_groups[0]["lr"])
    one, other = prepared(METHODS["pmf"]), prepared(METHODS["pmf"])
    other[1].lr_every = 0
    other[1]._schedule_on("cpu")
    for net, method in (one, other):
        train(net, method, 25)
    assert other[1].state()["beta"] == pytest.approx(one[1].beta) and other[1].state()["iteration"] == 25
    for a, b in zip(one[1].auxiliary, other[1].auxiliary):
        torch.testing.assert_close(a[0], b[0])
    other[1].load_state(one[1].state())
    assert isinstance(other[1].beta, torch.Tensor) and float(other[1].beta) == one[1].beta


def test_pmf_beta_drives_the_weights_to_decide():
    net, method = prepared(METHODS["pmf"])
    early = method.metrics()["decidedness"]
    train(net, method, 300)
    late = method.metrics()["decidedness"]
    assert early < 0.3 and late > 0.99


@pytest.mark.parametrize(
    "bad,message",
    [
        (dict(lr=0.0), "lr is 0.0"),
        (dict(beta=0.0), "beta is 0.0"),
        (dict(beta=2.0, beta_max=1.0), "beta_max=1"),
        (dict(beta_growth=0.9), "beta_growth is 0.9"),
        (dict(beta_every=0), "beta_every is 0"),
        (dict(lr_decay=0.0), "lr_decay is 0.0"),
        (dict(lr_every=-1), "lr_every is -1"),
        (dict(weight_decay=-1.0), "weight_decay is -1.0"),
        (dict(jacobian="diag"), "jacobian is 'diag'"),
    ],
)
def test_pmf_errors_teach(bad, message):
    with pytest.raises(ValueError, match=message):
        PMF(**bad)


def test_pmf_refuses_a_state_of_the_other_jacobian():
    _, one = prepared(METHODS["pmf"])
    _, other = prepared(METHODS["pmf-released"])
    with pytest.raises(ValueError, match="saved with jacobian='released'"):
        one.load_state_dict(other.state_dict())


# ---------------------------------------------------------------- LR-Net


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("ternary", [False, True])
def test_lrnet_equals_its_reference_for_100_steps(ternary):
    """One linear layer, squared loss: moments, sampled pre-activation, gradients by hand, Adam; the same noise"""
    layer = nn.Linear(7, 5, bias=False).double()
    omega = 1e-2
    method = LRNet(5e-2, ternary=ternary, regularization=omega, init="pretrained")
    rng = np.random.default_rng(0)
    start = rng.normal(size=(5, 7))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(start))
    layer = method.prepare(layer, train_size=10, seed=3)
    noise = torch.Generator().manual_seed(3)

    w = np.clip(start / start.std(), -1, 1)

    def logit(p):
        return np.log(p / (1 - p))

    if ternary:
        p0 = 0.95 - 0.9 * abs(w)
        c, s = logit(p0), logit(np.clip(0.5 * (1 + w / (1 - p0)), 0.05, 0.95))
    else:
        s = logit(np.clip(0.5 * (1 + w), 0.05, 0.95))
    adam_c, adam_s = AdamReference(5e-2), AdamReference(5e-2)
    for _t in range(100):
        x, y = rng.normal(size=(11, 7)), rng.normal(size=(11, 5))
        for p in method.train_passes():
            with p:
                loss = ((layer(torch.tensor(x)) - torch.tensor(y)) ** 2).mean() + method.regularizer()
                loss.backward()
        method.step()

        p = sigmoid(s)
        q = 1 - sigmoid(c) if ternary else np.ones_like(p)
        mean, var = q * (2 * p - 1), q - (q * (2 * p - 1)) ** 2
        eps = torch.randn(11, 5, generator=noise, dtype=torch.float64).numpy()
        sd = np.sqrt(x**2 @ var.T + 1e-3)
        z = x @ mean.T + sd * eps
        d = 2 * (z - y) / z.size
        d_mean, d_var = d.T @ x, (d * eps / (2 * sd)).T @ x**2
        d_p = 2 * q * d_mean - 4 * q**2 * (2 * p - 1) * d_var
        reference = ((z - y) ** 2).mean()
        if ternary:
            reference += omega / 2 * (c**2 + s**2).sum()
            d_q = (2 * p - 1) * d_mean + (1 - 2 * q * (2 * p - 1) ** 2) * d_var
            c_new = adam_c(c, -q * (1 - q) * d_q + omega * c)
            s = adam_s(s, d_p * p * (1 - p) + omega * s)
            c = c_new
            levels = np.stack([(1 - sigmoid(c)) * (1 - sigmoid(s)), sigmoid(c), (1 - sigmoid(c)) * sigmoid(s)])
            mode = levels.argmax(0) - 1.0
        else:
            reference += omega * (p * (1 - p)).sum()
            s = adam_s(s, (d_p + omega * (1 - 2 * p)) * p * (1 - p))
            mode = np.where(s >= 0, 1.0, -1.0)
        assert loss.item() == pytest.approx(reference, rel=1e-9)
        np.testing.assert_allclose(method.logits[0][-1].detach().numpy(), s, atol=1e-7)
        np.testing.assert_array_equal(layer.weight.detach().numpy(), mode)


@pytest.mark.parametrize("n", [1, 2])
def test_lrnet_moments_against_the_sum_over_values(n):
    logits = [(4 * torch.randn(200, dtype=torch.float64)).requires_grad_() for _ in range(n)]
    p = torch.stack(weight_probabilities(*logits))
    values = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)[:, None]
    mean = (p * values).sum(0)
    mean_, var_ = weight_moments(*logits)
    torch.testing.assert_close(mean_, mean)
    torch.testing.assert_close(var_, (p * values**2).sum(0) - mean**2)
    assert torch.autograd.gradcheck(lambda *l: weight_moments(*l), logits)


def test_lrnet_gaussian_preactivations_match_sampled_weights():
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 3, 3, bias=False)
    method = LRNet(init="pretrained")
    layer = method.prepare(layer, train_size=1)
    x = torch.randn(1, 6, 5, 5)
    with torch.no_grad():
        sampled = []
        for p in method.predict_passes("sample", samples=3000):
            with p:
                sampled.append(layer(x))
        gaussian = []
        for _ in range(3000):
            for p in method.train_passes():
                with p:
                    gaussian.append(layer(x))
    a, b = torch.stack(sampled).flatten(1), torch.stack(gaussian).flatten(1)
    sd = a.std(0)
    assert ((a.mean(0) - b.mean(0)).abs() / sd).max() < 0.12
    assert (b.std(0) / sd - 1).abs().max() < 0.08
    quantiles = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    assert ((a.quantile(quantiles, 0) - b.quantile(quantiles, 0)).abs() / sd).max() < 0.25


def test_lrnet_noise_is_its_own_and_seeded():
    outs = []
    for seed, disturb in ((1, 0), (1, 5), (2, 0)):
        net, method = prepared(METHODS["lrnet"], seed=seed)
        torch.manual_seed(disturb)
        torch.rand(disturb + 1)
        for p in method.train_passes():
            with p:
                outs.append(net(small_data()[0]).detach())
    assert torch.equal(outs[0], outs[1]) and not torch.equal(outs[0], outs[2])


def test_lrnet_layers_share_parameters_and_are_plain_outside_passes():
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), nn.Flatten(), nn.Linear(48, 4))
    weights = [net[0].weight, net[2].weight]
    method = LRNet()
    net = method.prepare(net, train_size=1)
    assert (
        isinstance(net[0], LRConv2d)
        and isinstance(net[2], LRLinear)
        and net[0].weight is weights[0]
        and net[2].weight is weights[1]
    )
    x = torch.randn(2, 2, 4, 4)
    assert torch.equal(net(x), net(x))  # deterministic outside
    plain = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), nn.Flatten(), nn.Linear(48, 4))
    plain.load_state_dict(net.state_dict())
    assert torch.equal(plain(x), net(x))
    for p in method.train_passes():
        with p:
            assert not torch.equal(net(x), net(x))
    again = LRNet()
    assert again.prepare(net, train_size=1)[0] is net[0]  # replaced once


def test_lrnet_real_last_layer_and_its_weight_decay():
    net, method = small_net(), LRNet(real_last=True, regularization=0.0, real_weight_decay=0.5)
    before = net[3].weight.detach().clone()
    method.prepare(net, train_size=300)
    assert (
        list(method.binary_parameters) == ["0.weight"]
        and torch.equal(net[3].weight, before)
        and type(net[3]) is nn.Linear
    )
    assert method.regularizer().item() == pytest.approx(0.25 * before.square().sum().item(), rel=1e-5)
    train(net, method, 5)
    assert not torch.equal(net[3].weight, before)
    with pytest.raises(ValueError, match="leaves no discrete layer"):
        LRNet(real_last=True).prepare(nn.Linear(2, 2), train_size=1)


def test_lrnet_binary_biases():
    net, method = small_net(bias=True), LRNet(5e-2, binary=is_binary_weight_or_bias)
    method.prepare(net, train_size=300)
    train(net, method, 50)
    assert_levels(method)
    assert len(method.binary_parameters) == 4


def test_lrnet_initialisation():
    w = torch.tensor([-5.0, -0.5, 0.0, 0.5, 5.0])
    sd = w.std(correction=0)
    (a,) = logits_from_weights(w)
    torch.testing.assert_close(torch.sigmoid(a), (0.5 * (1 + (w / sd).clamp(-1, 1))).clamp(0.05, 0.95))
    c, s = logits_from_weights(w, ternary=True)
    zero = 0.95 - 0.9 * (w / sd).clamp(-1, 1).abs()
    torch.testing.assert_close(torch.sigmoid(c), zero)
    assert mode_weights(c, s).tolist() == [-1, 0, 0, 0, 1]
    net, method = prepared(lambda: LRNet(ternary=True))
    torch.testing.assert_close(torch.sigmoid(method.logits[0][0]), torch.full_like(method.logits[0][0], 0.33))
    assert prepared(lambda: LRNet())[1].metrics()["posterior_entropy"] == pytest.approx(np.log(2))


def test_lrnet_samples_follow_the_probabilities():
    c, s = torch.full((100_000,), -0.5), torch.full((100_000,), 0.8)
    w = sample_weights(c, s, generator=torch.Generator().manual_seed(0))
    for value, p in zip((-1, 0, 1), weight_probabilities(c[0], s[0])):
        assert abs((w == value).float().mean() - p) < 0.008
    net, method = prepared(METHODS["lrnet"])
    draws = []
    for p in [*method.predict_passes("sample", 2), *method.predict_passes("mean", 1)]:
        with p:
            draws.append(method.parameters[0].detach().clone())
            assert_levels(method)
    assert torch.equal(draws[0], draws[2]) and not torch.equal(draws[0], draws[1])


def test_lrnet_rates_decay_by_epochs():
    net, method = small_net(), LRNet(0.01, lr_decay=0.1, lr_every=2)
    method.prepare(net, train_size=300)
    rates = []
    for epoch in range(1, 6):
        method.on_epoch_start(epoch)
        rates.append([o.param_groups[0]["lr"] for o in method.optimizers()])
    np.testing.assert_allclose(rates, [[0.01] * 2] * 2 + [[0.001] * 2] * 2 + [[0.0001] * 2])


@pytest.mark.parametrize(
    "bad,message",
    [
        (dict(lr=0.0), "lr is 0.0"),
        (dict(init="warm"), "init is 'warm'"),
        (dict(regularization=-1.0), "must be ≥ 0"),
        (dict(lr_decay=2.0), "lr_decay is 2.0"),
        (dict(lr_every=-1), "lr_every is -1"),
    ],
)
def test_lrnet_errors_teach(bad, message):
    with pytest.raises(ValueError, match=message):
        LRNet(**bad)


def test_lrnet_more_errors():
    with pytest.raises(TypeError, match="ConvTranspose2d was chosen to be binary"):
        LRNet().prepare(nn.Sequential(nn.ConvTranspose2d(2, 2, 2)), train_size=1)
    with pytest.raises(TypeError, match="Exclude it with binary="):
        local_reparameterisation_layer(nn.Bilinear(2, 2, 2))
    with pytest.raises(ValueError, match="but not its weight"):
        LRNet(binary=lambda m, module, name: name == "bias" and isinstance(module, nn.Linear)).prepare(
            nn.Linear(2, 2), train_size=1
        )
    _, method = prepared(METHODS["lrnet"])
    _, ternary = prepared(METHODS["lrnet-ternary"])
    with pytest.raises(ValueError, match="ternary=True"):
        method.load_state_dict(ternary.state_dict())
    with pytest.raises(ValueError, match="samples is 0"):
        next(method.predict_passes("mean", 0))
    with pytest.raises(ValueError, match="cannot predict by how='median'"):
        next(method.predict_passes("median"))


# ---------------------------------------------------------------- through the trainer

# (the marks leave room for another processor or number of threads: last bits grow over twelve epochs)
LEARN = {  # settings for the tiny problem and the accuracy to reach on its test split
    "bop": ("Bop(1e-2, 1e-4)", 0.8),
    "pmf": ("PMF(2e-2, beta_every=3)", 0.8),
    "pmf-released": ("PMF(2e-2, beta_every=3, jacobian='released')", 0.8),
    "sign-ema": ("SignEMA(1e-3)", 0.8),
    "lrnet": ("LRNet(5e-2)", 0.7),
    "lrnet-ternary": ("LRNet(5e-2, ternary=True)", 0.7),
}
SETUP = """
import torch
from bayesbinn_nb.library.data import load_data
from bayesbinn_nb.library.models import build_model
from bayesbinn_nb.library.trainer import Trainer
from bayesbinn_nb.methods.bop import Bop
from bayesbinn_nb.methods.lrnet import LRNet
from bayesbinn_nb.methods.pmf import PMF
from bayesbinn_nb.methods.write_your_own import SignEMA

def new_trainer(method):
    torch.manual_seed(0)
    return Trainer(build_model("mnist_mlp", in_features=64, hidden=128, layers=1, dropout=0.), device="cpu", seed=0).compile(method=eval(method))
"""  # noqa: E501


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "One trained and saved trainer per method, with its predictions"
    torch.manual_seed(0)
    scope, folder, done = {}, tmp_path_factory.mktemp("trained"), {}
    exec(SETUP, scope)
    data = scope["load_data"]("digits")
    for name, (method, _) in LEARN.items():
        trainer = scope["new_trainer"](method)
        trainer.fit(data.train, data.val, epochs=12, batch_size=50, progress="silent")
        path = trainer.save(folder / f"{name}.pt")
        predictions = {
            how: trainer.predict(data.test.x[:50].float() / 16, how=how, samples=3)
            for how in trainer.method.predictions
        }
        done[name] = trainer, path, predictions
    return data, done, folder


@pytest.mark.parametrize("name", list(LEARN))
def test_trainer_learns_saves_loads_and_predicts_identically(trained, name):
    data, done, _ = trained
    trainer, path, predictions = done[name]
    assert trainer.evaluate(data.test)["accuracy"] > LEARN[name][1]
    assert_levels(trainer.method, getattr(trainer.method, "levels", (-1.0, 1.0)))
    scope = {}
    exec(SETUP, scope)
    other = scope["new_trainer"](LEARN[name][0]).load(path)
    assert_levels(other.method, getattr(other.method, "levels", (-1.0, 1.0)))
    for how, expected in predictions.items():
        assert torch.equal(other.predict(data.test.x[:50].float() / 16, how=how, samples=3), expected)
    assert other.evaluate(data.test) == trainer.evaluate(data.test)


def test_a_fresh_process_predicts_identically(trained):
    data, done, folder = trained
    x = data.test.x[:50].float() / 16
    torch.save({"x": x, **{n: p for n, (_, _, p) in done.items()}}, folder / "expected.pt")
    code = SETUP + textwrap.dedent(f"""
        expected = torch.load("expected.pt", weights_only=True)
        for name, (method, _) in {LEARN!r}.items():
            trainer = new_trainer(method).load(name + ".pt")
            for how, value in expected[name].items():
                assert torch.equal(trainer.predict(expected["x"], how=how, samples=3), value), (name, how)
        print("identical")
    """)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0 and "identical" in result.stdout, result.stderr


def test_trainer_resumes_bit_identically_with_schedule_and_bfloat16(tmp_path):
    scope = {}
    exec(SETUP, scope)
    data = scope["load_data"]("digits", limit=300)
    from bayesbinn_nb.library.trainer import Trainer

    def run(name, epochs, folder=None):
        torch.manual_seed(0)
        model = scope["build_model"]("mnist_mlp", in_features=64, hidden=32, layers=1)
        trainer = Trainer(model, device="cpu", seed=2, precision="bfloat16").compile(
            method=eval(LEARN[name][0]), scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.5)
        )
        trainer.fit(data.train, data.val, epochs=epochs, batch_size=50, progress="silent", checkpoint_dir=folder)
        return trainer

    for name in ("bop", "pmf", "lrnet", "sign-ema"):
        whole = run(name, 4)
        run(name, 2, tmp_path / name)
        resumed = run(name, 4, tmp_path / name)
        for (key, a), b in zip(whole.model.state_dict().items(), resumed.model.state_dict().values()):
            assert torch.equal(a, b), (name, key)

        def strip(history):
            return [{k: v for k, v in row.items() if "seconds" not in k} for row in history]

        assert strip(whole.history) == strip(resumed.history)
        assert whole.history[-1]["lr"] == pytest.approx(whole.history[0]["lr"] / 8)


# ---------------------------------------------------------------- the protocol, and a method of one's own


@pytest.mark.parametrize(
    "make,levels",
    [
        (lambda: SignEMA(0.05), (-1.0, 1.0)),
        (lambda: Bop(1e-2, 1e-6), (-1.0, 1.0)),
        (lambda: PMF(1e-2), (-1.0, 1.0)),
        (lambda: PMF(1e-2, jacobian="released"), (-1.0, 1.0)),
        (lambda: LRNet(1e-2), (-1.0, 1.0)),
        (lambda: LRNet(1e-2, ternary=True), (-1.0, 0.0, 1.0)),
        (lambda: STE(lr=1e-2), (-1.0, 1.0)),
        (lambda: BayesBiNN(lr=1e-3, temperature=1e-2), (-1.0, 1.0)),
        (lambda: BayesBiNN(lr=1e-3, temperature=1.0, samples=3, momentum=0.9), (-1.0, 1.0)),
    ],
    ids=["sign-ema", "bop", "pmf", "pmf-released", "lrnet", "lrnet-ternary", "ste", "bayesbinn", "bayesbinn-samples"],
)
def test_every_method_keeps_the_protocol(make, levels):
    assert len(check_method(make, levels)) == 9


def test_check_method_notices():
    class Forgetful(SignEMA):
        def state(self):
            return {**super().state(), "averages": [torch.zeros_like(m) for m in self.averages]}

    class Real(SignEMA):
        def show_weights(self):
            for p, m in zip(self.parameters, self.averages):
                p.data.copy_(-m)

    class Swallows(SignEMA):
        def gradient_pass(self):
            from contextlib import contextmanager

            @contextmanager
            def one():
                try:
                    yield
                except KeyError:
                    pass
                self.gradients, self.passes = self.take_gradients(), self.passes + 1

            return one()

    class Steps(SignEMA):
        def step(self):
            if self.passes:
                super().step()

    for broken, message in (
        (Forgetful, "resumed from state_dict"),
        (Real, "exactly .* after prepare"),
        (Swallows, "its error goes through"),
        (Steps, "without a pass is a RuntimeError"),
    ):
        with pytest.raises(AssertionError, match=message):
            check_method(lambda: broken(0.05))


def test_sign_ema_errors_teach():
    with pytest.raises(ValueError, match="adaptivity_rate is 2"):
        SignEMA(2)
    with pytest.raises(ValueError, match="start is 0"):
        SignEMA(0.1, start=0)


# ---------------------------------------------------------------- which parameters


class OneParameter(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return x @ self.w


def test_full_precision_needs_no_layer_that_could_be_binary():
    from bayesbinn_nb.methods.full_precision import FullPrecision

    method = FullPrecision()
    method.prepare(OneParameter(), train_size=10)
    assert len(method.optimizers()[0].param_groups[0]["params"]) == 1
    with pytest.raises(ValueError, match="No parameter of OneParameter"):
        FullPrecision(clip_weights=1.0).prepare(OneParameter(), train_size=10)


@pytest.mark.parametrize("make", [STE, BayesBiNN, Bop, PMF])
def test_frozen_weights_are_named_and_the_method_stays_free(make):
    frozen, free, method = nn.Linear(3, 2), nn.Linear(3, 2), make()
    frozen.requires_grad_(False)
    with pytest.raises(ValueError, match="frozen .requires_grad=False., so there is nothing to train: weight"):
        method.prepare(frozen, train_size=10)
    method.prepare(free, train_size=10)  # a refused model is not "another model"
    assert list(method.binary_parameters) == ["weight"]
