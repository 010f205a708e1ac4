"""The passes over all weights: the same noise in every way of computing, pieces of every kind, agreement with the
slow reference."""

import importlib.util
import math
import sys
from pathlib import Path

import pytest
import torch

from bayesbinn_nb.math.learning_rule import bayesbinn_step
from bayesbinn_nb.methods import kernels
from bayesbinn_nb.methods.bayesbinn import BayesBiNNOptimizer
from bayesbinn_nb.methods.kernels import (
    BITS_TO_UNIFORM,
    COMPILED_FROM,
    LARGEST_NOISE,
    accumulate_gradient_,
    draw_key,
    half_logistic_noise,
    random_bits,
    sample_weights_,
    settled_beyond,
    update_natural_parameter_,
    use_engine,
)
from bayesbinn_nb.methods.kernels.memory import CHUNK, flat, share

HAS_NUMBA = importlib.util.find_spec("numba") is not None
ENGINES = ["torch", pytest.param("numba", marks=pytest.mark.skipif(not HAS_NUMBA, reason="Numba is not installed"))]
LARGE = 1 << 17  # several pieces, several blocks
ODD = LARGE + 12_347  # large enough for the compiled loops, a multiple of nothing


@pytest.fixture(params=ENGINES)
def engine(request):
    with use_engine(request.param):
        yield request.param


def hash_in_python(i: int, key: tuple[int, int]) -> int:
    "The definition of the bits, in plain integers"
    m = 2**32 - 1
    x = (i * 0x9E3779B9 + key[0]) & m
    x ^= x >> 16
    x = (x * 0x21F0AAAD + key[1]) & m
    signed = x - 2**32 if x >> 31 else x
    x = (x ^ (signed >> 15)) & m
    x = x * 0x735A2D97 & m
    return x - 2**32 if x >> 31 else x


def noise(n, key, offset=0):
    "δ in float64 from the bits"
    z = random_bits(n, key, offset).clone().float().mul(BITS_TO_UNIFORM).double()
    return 0.5 * torch.log((1 + z) / (1 - z))


# -- the noise


@pytest.mark.parametrize("key", [draw_key(0, 0), draw_key(2**63, 10**9, 1), (-(2**31), 2**31 - 1)])
def test_bits_are_the_defined_hash(key):
    for offset in (0, 1, 10**6, 2**31 - 5, 2**32 - 3):
        assert random_bits(9, key, offset).tolist() == [hash_in_python(offset + i, key) for i in range(9)]


def test_pieces_give_the_same_bits_as_the_whole():
    whole = random_bits(100_001, draw_key(1, 2)).clone()
    assert torch.equal(random_bits(777, draw_key(1, 2), 50_000), whole[50_000:50_777])
    assert torch.equal(random_bits(1, draw_key(1, 2), 100_000), whole[-1:])


def test_keys_differ():
    keys = {draw_key(s, d, t) for s in range(20) for d in range(200) for t in (0, 1)}
    assert len(keys) == 20 * 200 * 2
    assert all(-(2**31) <= k < 2**31 for key in keys for k in key)


def test_noise_is_half_a_logistic():
    d = half_logistic_noise(1 << 18, draw_key(0, 0)).clone().double()
    n = len(d)
    assert d.isfinite().all() and d.abs().max() <= LARGEST_NOISE
    assert abs(d.mean()) < 5 * math.pi / math.sqrt(12 * n)
    assert abs(d.var() - math.pi**2 / 12) < 5 * math.pi**2 / 12 * math.sqrt(3.2 / n)  # kurtosis of a logistic: 4.2
    u, _ = torch.sigmoid(2 * d).sort()
    assert (u - (torch.arange(n) + 0.5) / n).abs().max() < 1.95 / math.sqrt(n)  # Kolmogorov, p = 0.001
    centred = torch.sigmoid(2 * d) - 0.5
    power = torch.fft.rfft(centred)[1:-1].abs().square() / (n / 12)
    assert power.max() < 25  # white: an exponential's largest of 131 072


def test_draws_are_independent():
    u = torch.stack([torch.sigmoid(2 * half_logistic_noise(4096, draw_key(3, t)).clone()) for t in range(100)]) - 0.5
    assert (torch.corrcoef(u) - torch.eye(100)).abs().max() < 5.5 / 64
    assert abs((u.mean(0) * math.sqrt(1200)).var() - 1) < 5 * math.sqrt(2 / 4096)  # a weight's noise over the draws


def test_largest_bits_are_finite_noise():
    z = torch.tensor([-(2**31), 2**31 - 1], dtype=torch.int32).float().mul(BITS_TO_UNIFORM)
    assert z.abs().max() < 1 and torch.atanh(z).abs().max() <= LARGEST_NOISE


# -- sampling


@pytest.mark.parametrize("n", [1, 7, 1000, COMPILED_FROM - 1, COMPILED_FROM, 5003, ODD])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_samples_follow_the_formula(engine, n, temperature):
    lam, key = torch.randn(n) * 3, draw_key(5, 6)
    w = torch.full_like(lam, math.nan)
    sample_weights_(w, lam, temperature, key, offset=99)
    expected = torch.tanh((lam.double() + noise(n, key, 99)) / temperature)
    assert torch.allclose(w.double(), expected, atol=5e-6)


def test_samples_at_temperature_zero_are_signs_of_the_same_noise(engine):
    lam, key = torch.randn(ODD), draw_key(5, 6)
    w = torch.full_like(lam, math.nan)
    sample_weights_(w, lam, 0.0, key)
    y = lam.double() + noise(ODD, key)
    clear = y.abs() > 1e-6
    assert torch.equal(w[clear].double(), y[clear].sign()) and set(w.unique().tolist()) == {-1.0, 1.0}
    assert abs(w.mean() - torch.tanh(lam).mean()) < 5 / math.sqrt(ODD)


def test_settled_pieces_are_signs_and_mixed_pieces_are_not_mistaken(engine):
    lam = torch.randn(5 * LARGE).sign() * (settled_beyond(0.5) + 0.01)
    lam[3 * LARGE] = 0.1  # one undecided weight among settled ones
    w = torch.full_like(lam, math.nan)
    flags = sample_weights_(w, lam, 0.5, draw_key(0, 0))
    others = torch.arange(len(lam)) != 3 * LARGE
    assert torch.equal(w[others], lam[others].sign())
    y = torch.tanh((0.1 + noise(1, draw_key(0, 0), 3 * LARGE)) / 0.5)
    assert torch.allclose(w[3 * LARGE].double(), y, atol=1e-5)
    if engine == "torch":
        assert flags.count(False) == 1


@pytest.mark.parametrize("share", [0.0, 0.005, 0.02, 0.04, 0.5])
@pytest.mark.parametrize("temperature", [1e-10, 0.3, 1.0])
def test_any_share_of_settled_weights(engine, share, temperature):
    "Blocks with none, few and many unsettled weights, wherever they lie, through sampling and update"
    n, key = LARGE + 777, draw_key(8, 9)
    where = torch.rand(n) < share
    where[-1] = where[2047] = share > 0
    lam = torch.where(
        where, torch.randn(n) * 2, torch.randn(n).sign() * (settled_beyond(temperature) + 1e6 * torch.rand(n))
    )
    w, g, mode = torch.full_like(lam, math.nan), torch.randn(n), torch.full_like(lam, math.nan)
    flags = sample_weights_(w, lam, temperature, key, offset=5)
    y = lam.double() + noise(n, key, 5)
    clear = y.abs() > 1e3 * temperature * (temperature < 1e-6) + 1e-5 * (temperature < 1e-6)
    assert torch.allclose(w.double()[clear], torch.tanh(y / temperature)[clear], atol=5e-6)
    before, w = lam.double(), torch.where(where, w.clamp(-0.9, 0.9), w)  # away from the rounding of 1 - w²
    update_natural_parameter_(
        lam, mode, g, w, None, None, lr=0.01, data_scale=temperature, temperature=temperature, settled=flags
    )
    s = (1 - w.double() ** 2 + 1e-10) / (1 - torch.tanh(before) ** 2 + 1e-10)
    near = before.abs() < 2.5  # beyond, 1 - tanh² is a matter of rounding
    assert torch.allclose(lam.double()[near], (0.99 * before - 0.01 * s * g)[near], rtol=1e-4, atol=1e-5)
    assert torch.allclose(lam.double()[~where], (0.99 * before - 0.01 * g)[~where], rtol=1e-5)
    assert torch.equal(mode > 0, lam > 0) and set(mode.unique().tolist()) == {-1.0, 1.0}


def test_bound_for_settled_weights_is_safe():
    for temperature in (1e-10, 0.1, 1.0, 3.0):
        limit = torch.tensor(settled_beyond(temperature))
        assert torch.tanh((limit - LARGEST_NOISE) / temperature) == 1 and torch.tanh(limit) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_weights_are_the_rounded_wide_ones(engine, dtype):
    lam, key = torch.randn(ODD) * 2, draw_key(1, 1)
    lam[: ODD // 2] *= 1e6
    wide, narrow = torch.empty(ODD), torch.empty(ODD, dtype=dtype)
    for temperature in (1.0, 0.0):
        sample_weights_(wide, lam, temperature, key)
        sample_weights_(narrow, lam, temperature, key)
        difference = (narrow.double() - wide.to(dtype).double()).abs().max()
        # float16 is computed by the eager way, where the last place of the wide weight may differ
        assert difference <= (torch.finfo(dtype).eps if dtype == torch.float16 else 0)


@pytest.mark.parametrize("shape", [(64, 33, 3, 3), (700, 401)])
def test_every_memory_layout(engine, shape):
    lam = torch.randn(shape).repeat(8, *[1] * (len(shape) - 1))
    lam = lam.contiguous(memory_format=torch.channels_last) if lam.dim() == 4 else lam.t()
    w = torch.empty_like(lam)
    assert w.stride() == lam.stride()
    sample_weights_(w, lam, 0.7, draw_key(0, 1))
    inside = flat(lam)
    expected = torch.tanh((inside.double() + noise(lam.numel(), draw_key(0, 1))) / 0.7)
    assert torch.allclose(flat(w).double(), expected, atol=5e-6)
    g, before = torch.randn(lam.shape).contiguous().to(memory_format=torch.contiguous_format), lam.clone()
    g = torch.empty_like(lam).copy_(g)
    update_natural_parameter_(lam, None, g, w, None, None, lr=0.01, data_scale=1.0, temperature=0.7)
    s = (1 - w.double() ** 2 + 1e-10) / (0.7 * (1 - torch.tanh(before.double()) ** 2 + 1e-10))
    assert torch.allclose(lam.double(), 0.99 * before - 0.01 * s * g, rtol=1e-3, atol=1e-4)


# -- the update


def double_step(lam, g, w, total, m, *, lr, data_scale, temperature, beta, kl_weight, prior, eps, mean):
    mu = torch.tanh(lam) if mean is None else mean
    d = torch.zeros_like(lam)
    if g is not None:
        d = d + (g if w is None else g * (1 - w**2 + eps) / (temperature * (1 - mu**2 + eps)))
    if total is not None:
        d = d + total
    d = d * data_scale + kl_weight * (lam - prior)
    if m is not None:
        m = d = beta * m + (1 - beta) * d
    return lam - lr * d, m


@pytest.mark.parametrize("n", [1, 5003, ODD])
@pytest.mark.parametrize(
    "what",
    [
        "plain",
        "momentum",
        "prior",
        "own prior",
        "total",
        "total only",
        "total, momentum, own prior",
        "unsampled",
        "lagged",
        "everything",
    ],
)
def test_update_follows_the_formula(engine, n, what):
    torch.manual_seed(2)
    every = what == "everything"
    lam = torch.randn(n).mul(2).clamp(-3, 3)  # where float32 has digits enough of 1 - μ² to compare
    w, g = torch.tanh(lam + torch.randn(n) * 0.3), torch.randn(n) * 1e-2
    total = torch.randn(n) * 1e-2 if "total" in what or every else None
    m = torch.randn(n) if "momentum" in what or every else None
    prior = torch.randn(n) if "own prior" in what or every else 0.3 if what == "prior" else 0.0
    mean = torch.tanh(lam + 0.1) if what == "lagged" or every else None
    g, w = (None, None) if what == "total only" else (g, None if what == "unsampled" else w)
    beta = 0.9 if m is not None else 0.0
    settings = dict(lr=0.02, data_scale=7.0, temperature=0.5, beta=beta, kl_weight=0.8, eps=1e-10)

    def double(t):
        return t.double() if isinstance(t, torch.Tensor) else t

    expected, expected_m = double_step(
        *map(double, (lam, g, w, total, m)), prior=double(prior), mean=double(mean), **settings
    )
    before, mode = lam.clone(), torch.full_like(lam, math.nan)
    update_natural_parameter_(lam, mode, g, w, total, m, prior=prior, mean=mean, **settings)
    assert torch.allclose(lam.double(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(mode, torch.where(lam > 0, 1.0, -1.0))
    if m is not None:
        assert torch.allclose(m.double(), expected_m, rtol=1e-5, atol=1e-5)
    if mean is not None:
        assert torch.allclose(mean, torch.tanh(before), atol=1e-6)


def test_settled_weights_step_like_the_straight_through_estimator(engine):
    lam = torch.randn(ODD).sign() * 1e7
    w, g = torch.empty_like(lam), torch.randn(ODD) * 1e-6
    expected = 0.9 * lam.double() - 0.1 * 54_000 / 1e-10 * g.double()
    flags = sample_weights_(w, lam, 1e-10, draw_key(0, 0))
    update_natural_parameter_(lam, None, g, w, None, None, lr=0.1, data_scale=54_000, temperature=1e-10, settled=flags)
    assert torch.allclose(lam.double(), expected, rtol=1e-5, atol=100)


def test_mode_is_minus_one_at_zero(engine):
    lam, mode = torch.zeros(ODD), torch.empty(ODD)
    update_natural_parameter_(
        lam, mode, torch.zeros(ODD), torch.zeros(ODD), None, None, lr=0.5, data_scale=1.0, temperature=1.0
    )
    assert (mode == -1).all()


def test_bfloat16_weights_and_gradients(engine):
    lam = torch.randn(ODD)
    w, g, mode = torch.tanh(lam).bfloat16(), torch.randn(ODD).bfloat16() * 1e-2, torch.empty(ODD, dtype=torch.bfloat16)
    expected, _ = double_step(
        lam.double(),
        g.double(),
        w.double(),
        None,
        None,
        lr=0.01,
        data_scale=3.0,
        temperature=1.0,
        beta=0.0,
        kl_weight=1.0,
        prior=0.0,
        eps=1e-10,
        mean=None,
    )
    update_natural_parameter_(lam, mode, g, w, None, None, lr=0.01, data_scale=3.0, temperature=1.0)
    assert torch.allclose(lam.double(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(mode.float(), torch.where(lam > 0, 1.0, -1.0))


def test_accumulated_gradient(engine):
    lam, g, total = torch.randn(ODD).clamp(-2, 2), torch.randn(ODD), torch.randn(ODD)
    w = torch.tanh(lam * 0.5)
    for mean in (None, torch.tanh(lam * 0.9)):
        mu = torch.tanh(lam.double()) if mean is None else mean.double()
        expected = total.double() + g * (1 - w.double() ** 2 + 1e-10) / (0.3 * (1 - mu**2 + 1e-10))
        accumulate_gradient_(total, g, w, lam, 0.3, 1e-10, mean)
        assert torch.allclose(total.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature, init, lr", [(1.0, 1.0, 0.05), (1e-10, 10.0, 1e-4)])
def test_hundred_steps_beside_the_reference(engine, temperature, init, lr):
    "The whole optimiser beside math.learning_rule.bayesbinn_step, on the same noise and the same gradients"
    p = torch.nn.Parameter(torch.empty(LARGE if engine == "numba" else 999))
    opt = BayesBiNNOptimizer(
        [p], train_size=100, lr=lr, temperature=temperature, init_lambda=init, momentum=0.9, seed=4
    )
    # the paper's regime lives on float32's rounding of tanh to ±1, so there the reference runs in float32 too
    dtype = torch.float64 if temperature == 1.0 else torch.float32
    lam, m = opt.natural_parameters()[0].to(dtype, copy=True), torch.zeros(p.shape, dtype=dtype)
    target, flips = torch.randn(p.shape), 0
    small = 1.0 if temperature == 1.0 else 1e-5
    for t in range(1, 101):
        key = draw_key(4, t - 1)
        with opt.sampled_params():
            (0.5 * small * (p - target).square()).mean(dim=None).mul(1e-3 * p.numel()).backward()
            g = 1e-3 * small * (p.detach().to(dtype) - target)
        z = random_bits(p.numel(), key).clone().float().mul(BITS_TO_UNIFORM).to(dtype)
        before = lam.sign()
        lam, m, _ = bayesbinn_step(
            lam, m, t, [((1 + z) / 2, g)], train_size=100, lr=lr, temperature=temperature, momentum=0.9
        )
        opt.step()
        flips += (before != lam.sign()).sum().item()
    ours = opt.natural_parameters()[0].to(dtype)
    # close to λ = 0 and near the rounding of tanh single weights part ways; nearly all stay together
    together = torch.isclose(ours, lam, rtol=1e-3, atol=1e-3 * lam.abs().mean().item())
    assert together.double().mean() > 0.999
    assert flips > 0


# -- choosing


def test_engine_is_chosen_by_name_and_by_size(monkeypatch):
    with use_engine("torch"):
        assert kernels.engine() == "torch" and kernels.compiled_kernels(torch.empty(COMPILED_FROM)) is None
    with pytest.raises(ValueError, match="'auto', 'numba' or 'torch'"):
        with use_engine("fast"):
            pass
    monkeypatch.setattr(kernels, "_engine", "c++")
    with pytest.raises(ValueError, match="BAYESBINN_KERNELS"):
        kernels.engine()


def test_without_numba_the_eager_way_is_taken(monkeypatch):
    monkeypatch.setattr(kernels.importlib.util, "find_spec", lambda name: None)
    assert kernels.engine() == "torch"
    with pytest.raises(ModuleNotFoundError, match="pip install numba"):
        with use_engine("numba"):
            pass


@pytest.mark.parametrize("n", [1500, ODD])
@pytest.mark.parametrize("scale", [1.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_lagged_mean_takes_the_same_short_way(engine, n, scale, dtype):
    "Settled weights whose mean is not: few, many, none; against the formula, and the mean that is left behind"
    temperature, eps = 1e-10, 1e-10
    for unsaturated in (0, 3, n // 2):
        lam = torch.randn(n) * scale
        lam[lam.abs() < 20] = 50.0 if scale > 1 else 1.5
        mean = lam.sign()
        mean[torch.randperm(n)[:unsaturated]] = 0.5
        w, g, mode = torch.empty(n, dtype=dtype), torch.randn(n).to(dtype) * 1e-6, torch.empty(n, dtype=dtype)
        flags = sample_weights_(w, lam, temperature, draw_key(0, 0))
        before, s = lam.clone(), (1 - w.double() ** 2 + eps) / (temperature * (1 - mean.double() ** 2 + eps))
        settings = dict(lr=0.01, data_scale=100.0, temperature=temperature, mean=mean, settled=flags)
        update_natural_parameter_(lam, mode, g, w, None, None, **settings)
        expected = 0.99 * before.double() - s * g.double()
        assert torch.allclose(lam.double(), expected, rtol=1e-4, atol=1e-5 * expected.abs().median().item())
        assert torch.allclose(mean, torch.tanh(before), atol=1e-6)
        assert torch.equal(mode > 0, lam > 0)


@pytest.mark.skipif(not HAS_NUMBA, reason="Numba is not installed")
def test_no_constant_of_another_module_is_compiled_in():
    "Kept machine code is looked up by the module's own file: what else it depends on comes as an argument"
    from bayesbinn_nb.methods.kernels import compiled

    own = {n for n, v in vars(compiled).items() if getattr(v, "__module__", None) == compiled.__name__}
    allowed = own | {"_BLOCK", "_ROW", "f32", "i32", "math", "np", "types"} | {n for n in vars(compiled) if n[0] == "_"}
    for name, value in vars(compiled).items():
        if hasattr(value, "py_func"):
            used = set(value.py_func.__code__.co_names) & set(vars(compiled))
            assert used <= allowed, (name, used - allowed)


@pytest.mark.skipif(not HAS_NUMBA, reason="Numba is not installed")
def test_compiled_loops_take_large_float_tensors_only():
    with use_engine("numba"):
        assert kernels.compiled_kernels(torch.empty(COMPILED_FROM - 1)) is None
        assert kernels.compiled_kernels(torch.empty(COMPILED_FROM, dtype=torch.float16)) is None
        assert (
            kernels.compiled_kernels(torch.empty(COMPILED_FROM), None, torch.empty(COMPILED_FROM, dtype=torch.bfloat16))
            is not None
        )


def test_result_does_not_depend_on_the_number_of_threads(engine):
    lam = torch.randn(ODD)
    lam[: ODD // 3] *= 1e6
    g, results, threads = torch.randn(ODD) * 1e-3, [], torch.get_num_threads()
    try:
        for k in (1, 2, 3):
            torch.set_num_threads(k)
            w, l = torch.full_like(lam, math.nan), lam.clone()
            settled = sample_weights_(w, l, 0.5, draw_key(0, 0))
            update_natural_parameter_(
                l, None, g, w, None, None, lr=0.1, data_scale=10.0, temperature=0.5, settled=settled
            )
            results.append((w, l))
    finally:
        torch.set_num_threads(threads)
    for w, l in results[1:]:
        assert torch.equal(w, results[0][0]) and torch.equal(l, results[0][1])


def test_an_error_in_a_thread_arrives():
    threads = torch.get_num_threads()

    def fail_late(first, last):
        if first:
            raise FloatingPointError("in a thread")

    try:
        torch.set_num_threads(2)
        with pytest.raises(FloatingPointError, match="in a thread"):
            share(10 * CHUNK, fail_late)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("open_weight", [False, True])
def test_without_eps_a_settled_weight_has_no_scale_whoever_its_neighbours(engine, open_weight):
    "0/0 is not a number, also in a piece that could take the short way"
    lam = torch.full((ODD,), 20.0)
    if open_weight:
        lam[5] = 1.0
    w = torch.empty_like(lam)
    flags = sample_weights_(w, lam, 1e-2, draw_key(0, 0))
    update_natural_parameter_(
        lam,
        None,
        torch.full_like(lam, 1e-6),
        w,
        None,
        None,
        lr=0.1,
        data_scale=1.0,
        temperature=1e-2,
        eps=0.0,
        settled=flags,
    )
    settled = torch.arange(ODD) != (5 if open_weight else -1)
    assert lam[settled].isnan().all() and (not open_weight or lam[5].isfinite())


# -- several parameters in one call, and Adam with what stands around it


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e7])
@pytest.mark.parametrize("lagged", [False, True])
def test_several_parameters_in_one_call_are_each_as_alone(engine, scale, lagged):
    temperature = 1.0 if scale == 1.0 else 1e-10
    sizes, offsets = (5, 70_001, 300, 1), (0, 5, 80_000, 90_000)
    dtypes = (torch.float32, torch.float32, torch.bfloat16, torch.float16)
    lams = [torch.randn(n) * scale for n in sizes]
    ws = [torch.empty(n, dtype=d) for n, d in zip(sizes, dtypes)]
    flags = kernels.sample_all_(list(zip(ws, lams, offsets)), temperature, draw_key(1, 2))
    rows, alone = [], []
    for lam, w in zip(lams, ws):
        start = [lam, torch.empty_like(w), torch.randn_like(lam) * 1e-3, w, None, None, None]
        rows.append((*[None if t is None else t.clone() for t in start], torch.tanh(lam) if lagged else None))
        alone.append(tuple(None if t is None else t.clone() for t in rows[-1]))
    numbers = dict(lr=0.1, data_scale=temperature, temperature=temperature)
    kernels.update_all_(rows, flags, **numbers)
    for row, (lam, mode, g, w, total, m, _, mean), flag in zip(rows, alone, flags):
        update_natural_parameter_(lam, mode, g, w, total, m, mean=mean, settled=flag, **numbers)
        together = torch.isclose(row[0], lam, rtol=1e-5, atol=1e-5)
        assert together.double().mean() > 0.999 and torch.equal(row[1] > 0, row[0] > 0)
        if lagged:
            assert torch.allclose(row[7], mean, atol=1e-6)


@pytest.mark.skipif(not HAS_NUMBA, reason="Numba is not installed")
@pytest.mark.parametrize("beta", [0.0, 1.0, 100.0, 1e4])
@pytest.mark.parametrize("weight_decay", [0.0, 1e-4])
def test_adam_in_one_walk_is_torchs_adam(beta, weight_decay):
    "Ten steps beside derivative, torch's Adam and clamp, from latent numbers of every size"
    from bayesbinn_nb.methods.pmf import pmf_gradient_

    sizes = (40_000, 300, 3)
    start = [torch.randn(n) * 10 ** torch.empty(n).uniform_(-7, 0) for n in sizes]
    ours, theirs = ([torch.nn.Parameter(x.clone()) for x in start] for _ in range(2))
    a = torch.optim.Adam(ours, lr=0.01, weight_decay=weight_decay)
    b = torch.optim.Adam(theirs, lr=0.01, weight_decay=weight_decay)
    weights = [torch.full((n,), math.nan) for n in sizes]
    with use_engine("numba"):
        for _ in range(10):
            gradients = [torch.randn(n) * 1e-3 for n in sizes]
            done = kernels.adam_with_signs_(a, ours, gradients, weights, bound=1.0, beta=beta, plus_at_zero=False)
            assert done
            for x, y, g in zip(ours, theirs, gradients):
                y.grad = g.clone() if beta == 0 else pmf_gradient_(g.clone(), y.data, beta)
            b.step()
            for x, y, w in zip(ours, theirs, weights):
                y.data.clamp_(-1, 1)
                # where the averages are as small as Adam's ε their quotient keeps fewer digits
                assert torch.allclose(x, y, rtol=1e-5, atol=2e-6)
                assert torch.equal(w, torch.where(x > 0, 1.0, -1.0))
                x.data.copy_(y.data)  # one step at a time: errors shall not add up over steps
                assert torch.equal(a.state[x]["step"], b.state[y]["step"])
                average = b.state[y]["exp_avg"]  # a sum that may cancel: errors are those of its largest terms
                small = 1e-6 * max(average.abs().max().item(), 1e-3)
                assert torch.allclose(a.state[x]["exp_avg"], average, rtol=1e-5, atol=small)


def test_other_optimisers_are_left_to_torch():
    p = [torch.nn.Parameter(torch.randn(5000))]
    g, w = [torch.randn(5000)], [torch.empty(5000)]
    hooked = torch.optim.Adam(p)
    hooked.register_step_post_hook(lambda *_: None)
    for optimizer in (torch.optim.SGD(p), torch.optim.Adam(p, amsgrad=True), torch.optim.AdamW(p), hooked):
        assert not kernels.adam_with_signs_(optimizer, p, g, w)
    with use_engine("torch"):
        assert not kernels.adam_with_signs_(torch.optim.Adam(p), p, g, w)


@pytest.mark.skipif(not HAS_NUMBA, reason="Numba is not installed")
def test_kept_machine_code_is_keyed_by_its_sources(tmp_path, monkeypatch):
    from bayesbinn_nb.methods.kernels import compiled

    before = compiled._contents()
    for name in compiled._SOURCES:
        text = (Path(compiled.__file__).parent / f"{name}.py").read_bytes()
        (tmp_path / f"{name}.py").write_bytes(text)
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "compiled.py"))
    assert compiled._contents() == before
    (tmp_path / "noise.py").write_bytes((tmp_path / "noise.py").read_bytes() + b"\n")
    assert compiled._contents() != before


@pytest.mark.skipif(not HAS_NUMBA, reason="Numba is not installed")
def test_processes_that_compile_at_once_do_not_mix_up_their_codes(tmp_path, monkeypatch):
    from numba import njit

    from bayesbinn_nb.methods.kernels.compiled import named_by_key

    (tmp_path / "racing.py").write_text("def double(x):\n    return x + x\n")

    def of_a_process():
        spec = importlib.util.spec_from_file_location("racing", tmp_path / "racing.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "racing", module)
        spec.loader.exec_module(module)
        return named_by_key(njit(module.double, cache=True))

    one, other = of_a_process(), of_a_process()
    kept = one._cache._cache_file
    kept._load_index = dict  # it read the index before the other wrote, …
    kept._save_index = lambda index: None  # … and what it wrote there is written over
    assert other(1.5) == 3.0 and one(3) == 6
    later = of_a_process()
    assert later(1.5) == 3.0 and later(3) == 6, "the code for integers under the name of the one for numbers"
