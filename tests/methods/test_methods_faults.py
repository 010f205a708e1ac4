"""What went wrong in silence once: shared states, slices, stale casts, frozen layers, foreign writes, settings."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bayesbinn_nb.methods.bayesbinn import BayesBiNN, BayesBiNNOptimizer
from bayesbinn_nb.methods.bop import Bop, BopOptimizer
from bayesbinn_nb.methods.full_precision import FullPrecision
from bayesbinn_nb.methods.kernels import use_engine
from bayesbinn_nb.methods.lrnet import LRNet
from bayesbinn_nb.methods.method import adam, is_binary_weight_or_bias, select_binary
from bayesbinn_nb.methods.pmf import PMF
from bayesbinn_nb.methods.ste import STE, weights_init_
from bayesbinn_nb.methods.write_your_own import SignEMA

BINARY = {
    "bayesbinn": lambda: BayesBiNN(lr=1e-3, temperature=1.0, init_lambda=1.0),
    "lagged": lambda: BayesBiNN(lr=1e-3, temperature=1.0, init_lambda=1.0, mean="lagged", momentum=0.9, samples=2),
    "ste": STE,
    "bop": lambda: Bop(1e-2, 1e-5),
    "pmf": lambda: PMF(1e-2, beta_every=5),
    "pmf-released": lambda: PMF(1e-2, beta_every=5, jacobian="released"),
    "lrnet": lambda: LRNet(1e-2),
    "lrnet-ternary": lambda: LRNet(1e-2, ternary=True),
    "sign-ema": lambda: SignEMA(1e-2),
}
ALL = BINARY | {"adam": FullPrecision}


def network(bias=False):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16, bias=bias), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3, bias=bias))


def data():
    g = torch.Generator().manual_seed(1)
    return torch.randn(100, 8, generator=g), torch.randint(0, 3, (100,), generator=g)


def train(net, method, steps=5):
    x, y = data()
    for _ in range(steps):
        for one in method.train_passes():
            with one:
                loss, extra = F.cross_entropy(net(x), y), method.regularizer()
                (loss if extra is None else loss + extra).backward()
        method.step()


def prepared(make, seed=0):
    net, method = network(), make()
    return method.prepare(net, train_size=100, seed=seed), method


def tensors(x):
    if isinstance(x, torch.Tensor):
        return [x]
    values = x.values() if isinstance(x, dict) else x if isinstance(x, (list, tuple)) else ()
    return [t for v in values for t in tensors(v)]


# -- a state that is handed over


@pytest.mark.parametrize("name", list(ALL))
def test_a_loaded_state_is_a_copy(name):
    (net, one), (_, other) = prepared(ALL[name]), prepared(ALL[name], seed=3)
    train(net, one)
    other.load_state_dict(one.state_dict())
    before = [t.clone() for t in tensors(other.state_dict())]
    train(net, one)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(other.state_dict()), strict=True))


@pytest.mark.parametrize("name", list(ALL))
def test_settings_are_those_given_also_after_loading(name):
    _, method = prepared(ALL[name])
    given = [copy.deepcopy(o.defaults) for o in method.optimizers()], method.hyper_parameters()
    for _ in range(3):  # stopped and resumed three times
        net, again = prepared(ALL[name])
        again.load_state_dict(method.state_dict())
        assert ([o.defaults for o in again.optimizers()], again.hyper_parameters()) == given
        train(net, again, 2)
        method = again


@pytest.mark.parametrize("make", [lambda p: BayesBiNNOptimizer(p, train_size=9), BopOptimizer])
def test_the_optimisers_alone_keep_their_settings_and_copy_too(make):
    def run():
        p = nn.Parameter(torch.randn(3, 4))
        return p, make([p])

    (_, one), (_, other) = run(), run()
    given = dict(other.defaults)
    other.load_state_dict(one.state_dict())
    assert other.defaults == given


def test_bop_averages_stay_float32_behind_bfloat16_weights():
    net, method = prepared(lambda: Bop(1e-2, 1e-5))
    train(net, method)
    again_net, again = prepared(lambda: Bop(1e-2, 1e-5))
    for p in again.binary_parameters.values():
        p.data = p.data.bfloat16()
    again.load_state_dict(method.state_dict())
    for p, q in zip(method.parameters, again.parameters, strict=True):
        assert torch.equal(method.optimizer.state[p]["momentum"], again.optimizer.state[q]["momentum"])


# -- slices


def test_adam_does_not_write_beside_a_slice():
    whole = torch.zeros(8, 3, 3, 3)
    p = nn.Parameter(whole[:, :1])
    p.grad = torch.ones_like(p)
    adam([p], lr=0.1).step()
    assert (whole[:, 0] < 0).all() and (whole[:, 1:] == 0).all()


@pytest.mark.parametrize("engine,rows", [("torch", 16), ("numba", 40_000)])
@pytest.mark.parametrize("settings", [{}, {"mean": "lagged", "momentum": 0.9, "samples": 2}])
def test_bayesbinn_on_a_slice_is_bayesbinn_on_a_copy(engine, rows, settings):
    if engine == "numba":
        pytest.importorskip("numba")
    target, results = torch.randn(rows, 8), []
    with use_engine(engine):
        for slice_ in (True, False):
            whole = torch.zeros(rows, 40)
            p = nn.Parameter(whole[:, :8] if slice_ else torch.zeros(rows, 8))
            opt = BayesBiNNOptimizer([p], train_size=10, lr=1e-2, temperature=1.0, init_lambda=1.0, **settings)
            for _ in range(3):
                opt.step(lambda p=p: ((p - target) ** 2).mean().backward())
            with opt.posterior_sample(0):
                drawn = p.detach().clone()
            results.append((p.detach().clone(), opt.natural_parameters()[0], drawn))
            assert (whole[:, 8:] == 0).all()
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
    assert set(results[0][0].unique().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("name", list(BINARY))
def test_every_method_trains_a_layer_whose_weight_is_a_slice(name):
    layer = nn.Linear(4, 3, bias=False)
    whole = torch.zeros(3, 9)
    layer.weight = nn.Parameter(whole[:, :4])
    method = BINARY[name]()
    method.prepare(layer, train_size=10)
    for _ in range(3):
        for one in method.train_passes():
            with one:
                layer(torch.eye(4)).square().mean().backward()
        method.step()
    assert set(layer.weight.unique().tolist()) <= {-1.0, 0.0, 1.0} and (whole[:, 4:] == 0).all()


# -- autocast


def test_draws_differ_inside_one_autocast_block():
    layer = nn.Linear(8, 3, bias=False)
    opt = BayesBiNNOptimizer(layer.parameters(), train_size=10, init_lambda=0.1, temperature=1.0)
    x, outs = torch.randn(5, 8), []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for i in range(4):
            with opt.posterior_sample(i):
                outs.append(layer(x).float().detach())
    assert torch.stack(outs).std(0).mean() > 0.5


@pytest.mark.parametrize("name", list(ALL))
def test_an_outer_autocast_block_changes_nothing(name):
    def run(outer):
        net, method = prepared(ALL[name])
        x, y = data()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=outer):
            for _ in range(4):
                for one in method.train_passes():
                    with one:
                        with torch.autocast("cpu", dtype=torch.bfloat16):
                            out = net(x)
                        with torch.autocast("cpu", enabled=False):
                            loss, extra = F.cross_entropy(out.float(), y), method.regularizer()
                            (loss if extra is None else loss + extra).backward()
                method.step()
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
                return net.eval()(x), [p.detach().clone() for p in net.parameters()]

    (out, weights), (out_in, weights_in) = run(False), run(True)
    assert torch.equal(out, out_in) and all(torch.equal(a, b) for a, b in zip(weights, weights_in, strict=True))


# -- frozen, released


@pytest.mark.parametrize("name", list(ALL))
def test_a_layer_frozen_between_steps_stays_what_it_is(name):
    net, method = prepared(ALL[name])
    train(net, method, 3)
    net[0].weight.requires_grad_(False)
    kept = net[0].weight.clone(), [t.clone() for t in method.behind().get("0.weight", [])]
    train(net, method, 20)
    assert torch.equal(net[0].weight, kept[0])
    assert all(torch.equal(a, b) for a, b in zip(kept[1], method.behind().get("0.weight", []), strict=True))
    net[0].weight.requires_grad_(True)
    train(net, method, 20)  # and it goes on
    if name not in ("bop", "adam"):
        assert not all(torch.equal(a, b) for a, b in zip(kept[1], method.behind()["0.weight"], strict=True))


@pytest.mark.parametrize("name", list(ALL))
@pytest.mark.parametrize("which", ["0.weight", "1.bias"])
def test_a_parameter_released_after_prepare_is_an_error_not_a_silence(name, which):
    net, method = network(), ALL[name]()
    frozen = net.get_parameter(which).requires_grad_(False)
    net = method.prepare(net, train_size=100)
    kept = frozen.clone()
    train(net, method, 2)
    assert torch.equal(frozen, kept)  # frozen means untouched, not even made ±1
    frozen.requires_grad_(True)
    with pytest.raises(RuntimeError, match=f"{which} was frozen when .* Release it before prepare"):
        train(net, method, 1)


def test_the_optimiser_warns_of_vectors_and_leaves_the_frozen_alone():
    net = network(bias=True)
    net[3].weight.requires_grad_(False)
    kept = net[3].weight.clone()
    with pytest.warns(UserWarning, match="4 of 5 parameters have one dimension.*select_binary"):
        opt = BayesBiNNOptimizer(net.parameters(), train_size=10)
    assert torch.equal(net[3].weight, kept) and len(opt.natural_parameters()) == 5
    BayesBiNNOptimizer(network(bias=True).parameters(), train_size=10, vectors=True)  # meant so: no warning
    BayesBiNNOptimizer([nn.Parameter(torch.ones(4))], train_size=10)
    method = BayesBiNN(binary=is_binary_weight_or_bias)
    method.prepare(network(bias=True), train_size=10)
    with pytest.raises(ValueError, match="All these parameters are frozen"):
        BayesBiNNOptimizer([kept.detach()], train_size=10)


def test_the_optimiser_leaves_a_parameter_frozen_later_alone():
    a, b = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))
    opt = BayesBiNNOptimizer([a, b], train_size=1, lr=0.1, temperature=1.0, init_lambda=2.0)
    b.requires_grad_(False)
    kept = opt.natural_parameters()[1].clone()
    opt.step(lambda: (a * b).sum().backward())
    assert torch.equal(opt.natural_parameters()[1], kept)


# -- names


def test_names_may_be_given_and_must_exist():
    for make in (STE, Bop, PMF, LRNet, BayesBiNN, SignEMA):
        method = make(binary=["0", "3.weight"])
        method.prepare(network(), train_size=10)
        assert list(method.binary_parameters) == ["0.weight", "3.weight"]
        with pytest.raises(ValueError, match="no layer '4.weight'. Did you mean"):
            make(binary=["4.weight"]).prepare(network(), train_size=10)

    class Except:
        def check(self, model):
            raise ValueError("no such layer")

        def __call__(self, *_):
            return True

    with pytest.raises(ValueError, match="no such layer"):
        select_binary(network(), Except())


def test_what_stays_real_is_said():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2)
            self.last = nn.utils.parametrizations.weight_norm(nn.Linear(8, 3))

    method = STE()
    with pytest.warns(UserWarning, match="stay real: attention.in_proj_weight, last.parametrizations.weight.original0"):
        method.prepare(Attends(), train_size=10)
    assert "attention.in_proj_weight" in method.stayed_real
    STE(binary=["attention.out_proj"]).prepare(Attends(), train_size=10)  # chosen by name: no warning
    STE().prepare(network(), train_size=10)


# -- foreign writes


def test_weights_loaded_after_the_optimiser_was_built_are_noticed():
    layer = nn.Linear(8, 3, bias=False)
    opt = BayesBiNNOptimizer(layer.parameters(), train_size=10)
    same = copy.deepcopy(layer.state_dict())
    layer.load_state_dict(same)  # the very same weights: no harm
    opt.step(lambda: layer(torch.ones(1, 8)).sum().backward())
    layer.load_state_dict({"weight": -layer.weight.detach()})
    with pytest.raises(RuntimeError, match="init='weights'"):
        opt.step(lambda: layer(torch.ones(1, 8)).sum().backward())


@pytest.mark.parametrize("name", [n for n in BINARY if n != "bop"])
@pytest.mark.parametrize("how", ["load", "data", "assign"])
def test_every_method_notices_foreign_weights_once_an_epoch(name, how):
    net, method = prepared(BINARY[name])
    train(net, method, 2)
    method.on_epoch_start(1)  # nothing happened
    other = -net[0].weight.detach() if name != "lrnet-ternary" else (net[0].weight.detach() == 0).float()
    if how == "load":
        net.load_state_dict({**net.state_dict(), "0.weight": other})
    elif how == "data":
        net[0].weight.data.copy_(other)
    else:
        net.load_state_dict({**net.state_dict(), "0.weight": other}, assign=True)
    with pytest.raises(RuntimeError, match="0.weight.* changed from outside"):
        method.on_epoch_start(2)
    if how == "data":
        assert torch.equal(net[0].weight, other)  # what was written is still there


def test_bop_goes_on_from_foreign_signs_but_not_from_real_weights():
    net, method = prepared(BINARY["bop"])
    net[0].weight.data.neg_()
    method.on_epoch_start(1)
    net[0].weight.data.mul_(0.5)
    with pytest.raises(RuntimeError, match="0.weight .*changed from outside"):
        method.on_epoch_start(2)


def test_loaded_weights_are_a_start():
    net = network()
    signs = torch.where(net[0].weight > 0, 1.0, -1.0)
    for method in (BayesBiNN(init="weights"), STE(init=weights_init_), LRNet(init="pretrained")):
        model = copy.deepcopy(net)
        method.prepare(model, train_size=10)
        assert torch.equal(model[0].weight, signs), method.name


# -- numbers that are not finite


@pytest.mark.parametrize("name", [n for n in BINARY if n != "lagged"])
def test_a_number_that_is_not_finite_is_named_although_the_weights_look_fine(name):
    net, method = prepared(BINARY[name])
    train(net, method, 2)
    assert method.non_finite() == []
    method.behind()["3.weight"][0].view(-1)[1] = math.inf
    assert method.non_finite() == ["3.weight"]
    with pytest.raises(FloatingPointError, match="behind 3.weight"):
        method.on_epoch_start(1)


def test_the_optimiser_names_a_non_finite_natural_parameter():
    opt = BayesBiNNOptimizer([nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))], train_size=1)
    opt.natural_parameters()[1][0] = math.nan
    assert opt.non_finite() == [1]


@pytest.mark.parametrize(
    "bad",
    [
        {"init_lambda": math.inf},
        {"init_lambda": math.nan},
        {"init_lambda": 1e39},
        {"init_lambda": -1.0},
        {"kl_weight": math.nan},
        {"kl_weight": math.inf},
        {"eps": math.nan},
        {"eps": math.inf},
        {"temperature": 1e-42},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"momentum": math.nan},
        {"prior": math.nan},
        {"lr": math.nan},
        {"lr": torch.tensor(2.0)},
        {"lr": torch.tensor(math.nan)},
        {"lr": torch.tensor([0.1, 0.1])},
        {"lr": "0.1"},
        {"samples": True},
        {"train_size": True},
    ],
    ids=str,
)
def test_settings_that_cannot_be_right_are_refused(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must be"):
        BayesBiNNOptimizer([nn.Parameter(torch.ones(2, 2))], **({"train_size": 1} | bad))


def test_a_rate_may_be_a_tensor():
    p = nn.Parameter(torch.ones(2))
    opt = BayesBiNNOptimizer([p], train_size=1, lr=torch.tensor(0.5), temperature=1.0)
    opt.step(lambda: p.sum().backward())


# -- passes, clipping, closures


def linear(**settings):
    torch.manual_seed(0)
    net = nn.Linear(8, 3, bias=False)
    settings = {"train_size": 100, "lr": 1e-2, "temperature": 1.0, "init_lambda": 1.0} | settings
    return net, BayesBiNNOptimizer(net.parameters(), **settings)


def one_step(between=lambda net: None, before=lambda net, opt: None):
    (net, opt), (x, y) = linear(), data()
    before(net, opt)
    with opt.sampled_params():
        F.cross_entropy(net(x), y).backward()
    between(net)
    opt.step()
    assert net.weight.grad is None
    return opt.natural_parameters()[0].clone()


def test_clipping_between_pass_and_step_takes_effect():
    plain = one_step()
    clipped = one_step(lambda net: nn.utils.clip_grad_norm_(net.parameters(), 1e-9))
    start = linear()[1].natural_parameters()[0]
    assert not torch.equal(plain, clipped)
    assert torch.allclose(clipped, 0.99 * start, atol=1e-5)  # hardly anything but the prior is left


def test_a_gradient_from_before_the_pass_is_not_counted_and_said():
    x, y = data()
    with pytest.warns(UserWarning, match="outside a pass"):
        noisy = one_step(before=lambda net, opt: F.cross_entropy(net(x), y).backward())
    assert torch.equal(noisy, one_step())


def test_a_pass_whose_gradients_were_dropped_is_no_pass():
    (net, opt), (x, y) = linear(), data()
    with opt.sampled_params():
        F.cross_entropy(net(x), y).backward()
    net.zero_grad()
    with pytest.warns(UserWarning, match="dropped before the step"), pytest.raises(RuntimeError, match="no gradient"):
        opt.step()
    with opt.sampled_params():
        F.cross_entropy(net(x), y).backward()
    first = opt.natural_parameters()[0].clone()
    opt.step()
    assert not torch.equal(first, opt.natural_parameters()[0])


def test_a_closure_may_return_nothing():
    (net, opt), (x, y) = linear(samples=3), data()
    assert opt.step(lambda: F.cross_entropy(net(x), y).backward()) is None and opt.draws() == 3


def test_a_closure_with_samples_is_refused_where_it_reaches_another_optimiser():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 4, bias=False), nn.BatchNorm1d(4))
    opt = BayesBiNNOptimizer(net[0].parameters(), train_size=10, samples=3, temperature=1.0)

    def closure():
        loss = net(data()[0]).square().mean()
        loss.backward()
        return loss

    before = [lam.clone() for lam in opt.natural_parameters()]
    with pytest.raises(RuntimeError, match="with samples=3 runs the closure 3 times.*divide the other gradients by 3"):
        opt.step(closure)
    assert all(map(torch.equal, before, opt.natural_parameters())), "nothing has moved"
    for _ in range(3):  # the loop that the sentence names
        with opt.sampled_params():
            closure()
    opt.step()
    net, opt = linear(samples=3)
    opt.step(lambda: (loss := net(data()[0]).square().mean()).backward() or loss)  # no others: nothing to say
