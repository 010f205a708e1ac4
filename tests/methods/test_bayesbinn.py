"""The optimiser: the paper's algorithm, exact ±1 weights outside a pass, and the manners of a torch optimiser."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bayesbinn_nb.math.learning_rule import bayesbinn_step
from bayesbinn_nb.methods.bayesbinn import BayesBiNN, BayesBiNNOptimizer
from bayesbinn_nb.methods.kernels import draw_key, half_logistic_noise

N, D = 64, 12


def problem():
    g = torch.Generator().manual_seed(3)
    return torch.randn(N, D, generator=g), torch.randn(N, 1, generator=g)


def is_binary(*parameters):
    return all(bool((p.detach().abs() == 1).all()) for p in parameters)


@pytest.mark.parametrize(
    "settings",
    [
        dict(lr=1e-3, temperature=1.0, init_lambda=0.5),
        dict(
            lr=1e-3, temperature=1.0, init_lambda=0.5, momentum=0.9, samples=2, kl_weight=0.3, prior=0.2, mean="lagged"
        ),
        dict(lr=1e-3, temperature=0.5, init_lambda=1.0, samples=0),
        dict(lr=1e-3, temperature=0.1, init_lambda=3.0, samples=5, momentum=0.99, mean="lagged"),
        dict(lr=1e-4, temperature=1e-10, init_lambda=10.0),
        dict(lr=1e-4, temperature=1e-10, init_lambda=10.0, mean="lagged"),
    ],
    ids=lambda s: "-".join(f"{k}={v}" for k, v in s.items()),
)
def test_a_hundred_steps_beside_the_reference_twin(settings):
    x, y = problem()
    net = nn.Linear(D, 1, bias=False)
    opt = BayesBiNNOptimizer(net.parameters(), train_size=N, seed=5, **settings)
    lam, m, mean = opt.natural_parameters()[0].clone(), torch.zeros(1, D), None
    group = opt.param_groups[0]
    if group["mean"] == "lagged":
        mean = torch.tanh(lam)
    draw = 0
    for t in range(1, 101):
        samples = []
        for _ in range(max(1, group["samples"])):
            delta = half_logistic_noise(D, draw_key(5, draw)).clone().view(1, D).double()
            samples.append(
                (
                    torch.sigmoid(2 * delta).float() if group["samples"] else None,
                    lambda w: 2 * ((x @ w.T - y).T @ x) / N,
                )
            )
            draw += 1
        lam, m, lagged = bayesbinn_step(
            lam,
            m,
            t,
            samples,
            train_size=N,
            lr=group["lr"],
            temperature=group["temperature"],
            momentum=group["momentum"],
            kl_weight=group["kl_weight"],
            prior=group["prior"],
            eps=group["eps"],
            mean=mean,
        )
        mean = lagged if group["mean"] == "lagged" else None
        opt.step(lambda: (loss := F.mse_loss(net(x), y)).backward() or loss)
    ours = opt.natural_parameters()[0]
    assert (ours - lam).abs().max() <= 1e-4 * max(1.0, lam.abs().max().item())
    assert torch.equal(net.weight.detach(), torch.where(ours > 0, 1.0, -1.0))


def test_the_model_is_binary_outside_a_pass_also_after_an_error():
    net = nn.Sequential(nn.Linear(6, 8, bias=False), nn.Tanh(), nn.Linear(8, 1, bias=False))
    opt = BayesBiNNOptimizer(net.parameters(), train_size=10, temperature=1.0, init_lambda=0.5)
    before = [p.detach().clone() for p in net.parameters()]
    with pytest.raises(RuntimeError, match="boom"), opt.sampled_params():
        assert not is_binary(*net.parameters())
        raise RuntimeError("boom")
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters()))
    with pytest.raises(RuntimeError, match="found no gradient"):
        opt.step()


def test_a_gradient_outside_a_pass_does_not_count_and_is_said_once():
    net = nn.Linear(4, 1, bias=False)
    opt = BayesBiNNOptimizer(net.parameters(), train_size=10, temperature=1.0)
    with pytest.warns(UserWarning, match="outside a pass"):
        net(torch.ones(1, 4)).sum().backward()
    net(torch.ones(1, 4)).sum().backward()  # not said again: warnings are errors here
    with pytest.raises(RuntimeError, match="found no gradient"):
        opt.step()
    with opt.sampled_params():
        net(torch.ones(1, 4)).sum().backward()
    assert torch.equal(net.weight.grad, torch.ones(1, 4))  # of the pass alone, to be looked at or clipped


def test_two_passes_are_the_mean_of_two_samples():
    x, y = problem()

    def train(split):
        net = nn.Linear(D, 1, bias=False)
        opt = BayesBiNNOptimizer(net.parameters(), train_size=N, lr=1e-2, temperature=1.0, init_lambda=0.5, samples=2)
        if split:
            for _ in range(2):
                with opt.sampled_params():
                    F.mse_loss(net(x), y).backward()
            opt.step()
        else:
            opt.step(lambda: (loss := F.mse_loss(net(x), y)).backward() or loss)
        return opt.natural_parameters()[0]

    assert torch.equal(train(True), train(False))


def test_accumulating_inside_one_pass_is_the_large_batch():
    x, y = problem()

    def train(pieces):
        net = nn.Linear(D, 1, bias=False)
        opt = BayesBiNNOptimizer(net.parameters(), train_size=N, lr=1e-2, temperature=1.0, init_lambda=0.5)
        with opt.sampled_params():
            for a, b in zip(x.chunk(pieces), y.chunk(pieces)):
                (F.mse_loss(net(a), b) / pieces).backward()
        opt.step()
        return opt.natural_parameters()[0]

    assert torch.allclose(train(1), train(4), rtol=1e-4, atol=1e-5)


def make(dtype=torch.float32):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Flatten(), nn.Linear(8 * 36, 2, bias=False)).to(dtype)
    net[0].to(memory_format=torch.channels_last)
    groups = [
        {"params": net[0].parameters(), "temperature": 0.5, "mean": "lagged"},
        {"params": net[2].parameters(), "momentum": 0.9},
    ]
    opt = BayesBiNNOptimizer(groups, train_size=10, temperature=1.0, init_lambda=0.5, lr=1e-2, seed=4)
    return net, opt, torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=20)


def go(net, opt, schedule, steps, dtype=torch.float32):
    x = torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(9)).to(dtype)
    for _ in range(steps):
        with opt.sampled_params():
            net(x).float().square().mean().backward()
        opt.step()
        schedule.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_optimiser_goes_on_to_the_last_bit(dtype):
    net, opt, schedule = make(dtype)
    go(net, opt, schedule, 4, dtype)
    saved = copy.deepcopy((net.state_dict(), opt.state_dict(), schedule.state_dict()))
    go(net, opt, schedule, 3, dtype)
    again = make(dtype)
    for thing, state in zip(again, saved):
        thing.load_state_dict(state)
    go(*again, 3, dtype)
    assert all(torch.equal(a, b) for a, b in zip(opt.natural_parameters(), again[1].natural_parameters()))
    assert all(lam.dtype == torch.float32 for lam in again[1].natural_parameters())
    assert is_binary(*again[0].parameters())


def test_a_state_of_another_model_is_refused():
    _, opt, _ = make()
    other = BayesBiNNOptimizer([nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))], train_size=10)
    state = other.state_dict()
    state["param_groups"] = [{**state["param_groups"][0], "params": [0]}, {**state["param_groups"][0], "params": [1]}]
    with pytest.raises(ValueError, match="not the same model"):
        opt.load_state_dict(state)


def test_the_prior_is_a_copy_of_the_posterior():
    net = nn.Linear(D, 1, bias=False)
    opt = BayesBiNNOptimizer(net.parameters(), train_size=N, lr=0.1, temperature=1.0, init_lambda=2.0)
    opt.set_prior_to_posterior()
    lam = opt.natural_parameters()[0]
    prior, start = opt.state[net.weight]["prior"], lam.clone()
    with opt.sampled_params():
        (net.weight.sum() * 0.1).backward()
    opt.step()
    assert torch.equal(prior, start) and not torch.equal(lam, start)
    # without data the prior is where λ returns to
    for _ in range(200):
        with opt.sampled_params():
            (net.weight.sum() * 0.0).backward()
        opt.step()
    assert torch.allclose(lam, prior, atol=1e-3)


def test_posterior_draws_follow_the_posterior_and_disturb_nothing():
    p = nn.Parameter(torch.ones(200_000))
    opt = BayesBiNNOptimizer([p], train_size=1, init="weights", init_lambda=0.3, temperature=1.0)
    draws = opt.draws()
    with opt.posterior_sample(0):
        first = p.detach().clone()
    with opt.posterior_sample(1):
        second = p.detach().clone()
    assert is_binary(first, second) and opt.draws() == draws and torch.equal(p.detach(), torch.ones_like(p))
    expected = torch.sigmoid(torch.tensor(0.6)).item()
    for draw in (first, second):
        assert abs((draw > 0).double().mean().item() - expected) < 5 * (expected * (1 - expected) / p.numel()) ** 0.5
    assert abs(((first > 0) & (second > 0)).double().mean().item() - expected**2) < 0.01


def test_a_parameter_without_gradient_feels_only_the_prior():
    used, unused = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))
    opt = BayesBiNNOptimizer([used, unused], train_size=1, lr=0.1, temperature=1.0, init="weights", init_lambda=2.0)
    with opt.sampled_params():
        used.sum().backward()
    opt.step()
    assert torch.allclose(opt.natural_parameters()[1], torch.full((4,), 1.8))


@pytest.mark.parametrize(
    "bad,message",
    [
        ({"temperature": 0}, "temperature must be > 0"),
        ({"temperature": -1.0}, "temperature must be > 0"),
        ({"lr": 2.0}, "lr must be in"),
        ({"train_size": 0}, "train_size must be"),
        ({"train_size": 10.0}, "train_size must be"),
        ({"mean": "stale"}, "mean must be"),
        ({"momentum": 1.0}, "momentum must be"),
        ({"samples": -1}, "samples must be"),
        ({"eps": -1.0}, "eps must be"),
        ({"init": "zeros"}, "init must be"),
    ],
)
def test_wrong_settings_are_refused_with_the_allowed_range(bad, message):
    with pytest.raises(ValueError, match=message):
        BayesBiNNOptimizer(nn.Linear(2, 2).parameters(), **({"train_size": 1} | bad))
    with pytest.raises(ValueError, match=message):
        BayesBiNN(**bad)


def test_train_size_is_not_optional_and_integers_are_not_weights():
    with pytest.raises(TypeError, match="train_size"):
        BayesBiNNOptimizer(nn.Linear(2, 2).parameters())
    with pytest.raises(TypeError, match="floating-point"):
        BayesBiNNOptimizer([torch.ones(3, dtype=torch.int64)], train_size=1)


def small(**settings):
    net = nn.Linear(D, 1, bias=False)
    return net, BayesBiNNOptimizer(
        net.parameters(), train_size=N, seed=5, **dict(lr=1e-3, temperature=1.0, init_lambda=0.5) | settings
    )


def one_step(net, opt, factor=1.0):
    x, y = problem()
    with opt.sampled_params():
        (factor * F.mse_loss(net(x), y)).backward()
    opt.step()
    return opt.natural_parameters()[0].clone()


def test_a_scheduler_may_switch_momentum_on():
    (net, opt), (late_net, late) = small(momentum=0.95), small()
    late.param_groups[0]["momentum"] = 0.95  # as OneCycleLR does
    for _ in range(3):
        assert torch.equal(one_step(net, opt), one_step(late_net, late))


def test_zero_grad_forgets_a_pass_that_went_wrong():
    net, opt = small()
    x, y = problem()
    with opt.sampled_params():
        (float("nan") * F.mse_loss(net(x), y)).backward()
    opt.zero_grad()
    assert one_step(net, opt).isfinite().all()


@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["deepcopy", "pickle"]
)
def test_a_copy_goes_on_alike(how):
    net, opt = small(momentum=0.9, mean="lagged")
    for _ in range(3):
        one_step(net, opt)
    other, other_opt = how((net, opt))
    assert torch.equal(one_step(net, opt), one_step(other, other_opt))
    with opt.posterior_sample(0):
        drawn = net.weight.detach().clone()
    with other_opt.posterior_sample(0):
        assert torch.equal(drawn, other.weight)


def test_weights_are_narrow_only_where_they_are_signs():
    def narrow(**settings):
        return (lambda m: (m.prepare(nn.Linear(4, 2), train_size=9), m)[1].low_precision_weights)(BayesBiNN(**settings))

    assert narrow() and narrow(temperature=1e-8) and not narrow(temperature=1.0)


@pytest.mark.parametrize(
    "settings", [dict(), dict(momentum=0.9, mean="lagged"), dict(samples=0), dict(samples=0, momentum=0.9)]
)
def test_the_memory_format_may_change_after_the_optimiser_was_built(settings):
    "Parameters and λ must lie alike in memory: the kernels walk through both in the order of memory"

    def run(change):
        torch.manual_seed(0)
        net = nn.Conv2d(4, 6, 3, bias=False)
        opt = BayesBiNNOptimizer(
            net.parameters(), train_size=100, lr=0.01, temperature=1.0, init_lambda=1.0, **settings
        )
        opt.set_prior_to_posterior()
        x = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        for step in range(4):
            if step == 2 and change:
                net.to(memory_format=torch.channels_last)
            with opt.sampled_params():
                net(x).square().mean().backward()
            opt.step()
        return net.weight.detach().contiguous(), opt.natural_parameters()[0].contiguous()

    w, lam = run(True)
    assert torch.equal(w > 0, lam > 0) and is_binary(w)
    if settings.get("samples") == 0:  # without noise, which is drawn in the order of memory, nothing else may change
        torch.testing.assert_close(lam, run(False)[1])
