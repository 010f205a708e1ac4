"""Every claim on made-up records: a case for each word of its rule, and mutants of every rule that they must notice."""

import ast
import copy
import dataclasses
import importlib
import inspect
import textwrap
import warnings

import pytest

from bayesbinn_nb.repro import claims as frame
from bayesbinn_nb.repro import claims_bop as bop
from bayesbinn_nb.repro import claims_cost as cost
from bayesbinn_nb.repro import claims_distributions as dist
from bayesbinn_nb.repro import claims_images as images
from bayesbinn_nb.repro import pages
from bayesbinn_nb.repro.claims import OTHER_MEAN, WORDS, Claim, Finding, Gap, claims, paired, welch, word_of
from bayesbinn_nb.repro.records import Record

LAGGED = {"method_kwargs": {"mean": "lagged"}}


def rec(experiment, method, seed=0, arm=None, dataset="mnist", epochs=10, full=10, metrics=None, **more):
    fields = {"experiment": experiment, "method": method, "seed": seed, "arm": arm or method, "dataset": dataset}
    fields |= {
        "epochs": epochs,
        "schedule_epochs": full,
        "complete": epochs == full,
        "metrics": {"last": metrics or {}},
    }
    return Record(**fields | {"settings": LAGGED if method == "bayesbinn" else {}} | more)


def seeds(n, make):
    return [make(seed) for seed in range(n)]


# ---------------------------------------------------------------------------------------------- image classification


def trained(method, accuracy, n=3, spread=0.0002, epochs=10, full=10, experiment="benchmark", **more):
    def one(seed):
        value = accuracy + seed * spread
        metrics = {"test_accuracy": value} | more.get("also", {})
        rest = {k: v for k, v in more.items() if k != "also"}
        history = {"epoch": [epochs], "test_accuracy": [value]}
        return rec(experiment, method, seed, epochs=epochs, full=full, metrics=metrics, history=history, **rest)

    return seeds(n, one)


def near(adam, bayes, **more):
    return trained("adam", adam, **more) + trained("bayesbinn", bayes, **more)


LONG_LRNET = trained("lrnet", 0.99, epochs=2, full=190)
NEAR = [
    (near(0.984, 0.983), {"margin": 0.5}, "yes"),
    (near(0.984, 0.95), {"margin": 0.5}, "no"),
    (near(0.984, 0.983, full=500), {"margin": 0.5}, "so far"),
    (near(0.984, 0.95, full=500), {"margin": 0.5}, "open"),
    (near(0.984, 0.979, n=2, spread=0.003), {"margin": 0.5}, "open"),
    (near(0.984, 0.983) + LONG_LRNET, {"margin": 0.5}, "yes"),
    (near(0.984, 0.983) + trained("bayesbinn", 0.985, n=1, epochs=20, full=20), {"margin": 0.5}, "yes"),
    (near(0.984, 0.983) + trained("ste", 0.9, full=500), {"margin": 0.5}, "yes"),
    (trained("adam", 0.984) + trained("bayesbinn", 0.983, full=500), {"margin": 0.5}, "so far"),
    (trained("adam", 0.984), {"margin": 0.5}, "open"),
]
RIVALS = trained("pmf", 0.9, full=500) + trained("ste", 0.98)
BEST = [
    (RIVALS + trained("bayesbinn", 0.985), {}, "yes"),
    (RIVALS + trained("bayesbinn", 0.97), {}, "no"),
    (RIVALS + trained("bayesbinn", 0.979), {}, "yes"),
    (RIVALS + trained("bayesbinn", 0.96) + trained("adam", 0.5), {}, "no"),
    (trained("ste", 0.98, full=500) + trained("bayesbinn", 0.985, full=500), {}, "so far"),
    (trained("ste", 0.98) + trained("bayesbinn", 0.985, full=500), {}, "so far"),
    (trained("ste", 0.98, full=500) + trained("bayesbinn", 0.9, full=500), {}, "open"),
    (trained("ste", 0.98, n=1) + trained("bayesbinn", 0.985, n=1), {}, "open"),
    (trained("bayesbinn", 0.985) + trained("adam", 0.99), {}, "not run yet"),
    (trained("ste", 0.985), {}, "not run yet"),
]


def fractional(*decided):
    also = {"train_accuracy": 0.9, "test_accuracy": 0.8}
    return [rec("benchmark", "pmf", s, metrics=also | {"decidedness": d}) for s, d in enumerate(decided)]


DECIDED = [
    (fractional(0.95, 0.99), {}, "yes"),
    (fractional(0.5, 0.2), {}, "no"),
    (fractional(0.95, 0.2), {}, "in part"),
    (trained("ste", 0.9), {}, "not run yet"),
]


def modes(*gaps, entropy=0.01, epochs=10):
    quiet = {"posterior_entropy": entropy, "stochastic_weights": 0.02, "test_ece@mode": 0.2, "test_ece@mean": 0.1}
    made = [quiet | {"test_accuracy": 0.9, "test_accuracy@mean": 0.9 + gap / 100} for gap in gaps]
    return [rec("benchmark", "bayesbinn", s, metrics=m, epochs=epochs) for s, m in enumerate(made)]


NO_ENTROPY = {"test_accuracy": 0.9, "test_accuracy@mean": 0.9}
MODES = [
    (modes(0.1, -0.2), {}, "yes"),
    (modes(1.0, -2.0), {}, "no"),
    (modes(0.1, -2.0), {}, "in part"),
    (modes(0.1, 0.1) + modes(0.2, epochs=5), {}, "yes"),
    (modes(0.1) + trained("ste", 0.9, also={"test_accuracy@mean": 0.1, "posterior_entropy": 0.5}), {}, "yes"),
    (trained("bayesbinn", 0.9), {}, "not run yet"),
    ([rec("benchmark", "bayesbinn", metrics=NO_ENTROPY)], {}, "not run yet"),
]


def point(value, accuracy, key="temperature", n=3, spread=0.0002, epochs=500, row=""):
    common = {"lr": 1e-4, "temperature": 1e-10, "momentum": 0.0}
    experiment = {"temperature": "sweep-temperature", "lr": "sweep-learning-rate", "momentum": "sweep-momentum"}[key]
    more = {"parameters": common | {key: value}, "row": row or f"{key} {value:g}", "experiment": experiment}
    return trained("bayesbinn", accuracy, n, spread, epochs, 500, **more)


PLATEAU = point(1e-8, 0.979) + point(1e-10, 0.98)
RATES = point(1e-4, 0.98, "lr") + point(1e-2, 0.981, "lr")
BAD_RATES = point(1e-4, 0.98, "lr") + point(1e-2, 0.9, "lr")
FREE = [
    (PLATEAU + point(1e-3, 0.5) + RATES, {}, "yes"),
    (PLATEAU + point(1e-3, 0.5) + BAD_RATES, {}, "in part"),
    (PLATEAU + point(1e-3, 0.979) + BAD_RATES, {}, "no"),
    (PLATEAU + point(1e-3, 0.5) + RATES + trained("ste", 0.5, epochs=500, full=500), {}, "yes"),
    (PLATEAU + point(5e-8, 0.99) + point(1e-3, 0.5) + RATES, {}, "in part"),
    (PLATEAU + point(1e-3, 0.5) + point(1e-4, 0.98, "lr") + point(1e-2, 0.96, "lr"), {}, "in part"),
    (point(1e-8, 0.97) + point(1e-10, 0.98) + point(1e-3, 0.95) + point(1e-6, 0.972) + BAD_RATES, {}, "in part"),
    (PLATEAU + point(1e-6, 0.96) + point(1e-7, 0.9) + point(1e-4, 0.98, "lr") + point(1e-2, 0.977, "lr"), {}, "yes"),
    (point(1e-8, 0.98, epochs=3) + point(1e-3, 0.5, epochs=3) + RATES, {}, "open"),
    (trained("bayesbinn", 0.9), {}, "not run yet"),
]
TEMPERATURES = point(1e-12, 0.98) + point(1e-10, 0.981) + point(1e-3, 0.5)
SETTING = [
    (TEMPERATURES, {"sweep": "temperature", "upto": 1e-9}, "yes"),
    (TEMPERATURES, {"sweep": "temperature", "upto": 1.0}, "no"),
    (point(1e-12, 0.98) + point(1e-10, 0.97), {"sweep": "temperature", "upto": 1e-9}, "no"),
    (point(1e-12, 0.98, n=2) + point(1e-10, 0.981, n=2), {"sweep": "temperature", "upto": 1e-9}, "open"),
    (point(1e-12, 0.98) + point(1e-3, 0.9), {"sweep": "temperature", "upto": 1e-9}, "not run yet"),
]
WARM = [
    (TEMPERATURES, {}, "yes"),
    (TEMPERATURES + point(1e-6, 0.9805), {}, "in part"),
    (point(1e-12, 0.98) + point(1e-6, 0.9799), {}, "no"),
    (point(1e-12, 0.98, n=1) + point(1e-3, 0.3, n=1), {}, "yes"),
    (point(1e-12, 0.98, n=1) + point(1e-3, 0.969, n=1), {}, "open"),
    (point(1e-12, 0.98) + point(1e-9, 0.981) + point(1e-3, 0.5), {}, "yes"),
    (point(1e-12, 0.98) + point(1e-3, 0.3, n=1) + point(1e-6, 0.95), {}, "yes"),
    (point(1e-8, 0.1) + point(1e-12, 0.98) + point(1e-6, 0.5), {}, "yes"),
    (point(1e-3, 0.5) + point(1e-5, 0.5), {}, "not run yet"),
    (point(1e-12, 0.98) + point(1e-11, 0.98), {}, "not run yet"),
]


def arm(name, accuracy, n=1, spread=0.0002, also=None, **more):
    extra = {"test_size": 10_000, "differ": [0.0, 0.07]}
    bar = {"name": "one class", "metric": "test_accuracy", "value": 0.1}
    metrics = {"test_accuracy": accuracy} | (also or {})
    fields = {"arm": name, "extra": extra, "baseline": bar} | more

    def one(seed):
        own = metrics | {"test_accuracy": accuracy + seed * spread}
        return rec("float32-study", "bayesbinn", seed, metrics=own, **fields)

    return seeds(n, one)


def study(**accuracies):
    names = {"signs": "sign of the sum", "derived": "exact, no eps", "current": "current mean"}
    return [r for name, value in accuracies.items() for r in arm(names.get(name, name), value)]


DISTRIBUTION = [
    (study(authors=0.96, signs=0.96, derived=0.1), {}, "no"),
    (study(authors=0.96, signs=0.9, derived=0.9), {}, "yes"),
    (study(authors=0.96, signs=0.96, derived=0.9), {}, "in part"),
    (study(authors=0.96, signs=0.95, derived=0.1), {}, "open"),
    (study(authors=0.96, signs=0.952, derived=0.1), {}, "open"),
    (arm("authors", 0.96, 3) + arm("sign of the sum", 0.96, 3) + arm("exact, no eps", 0.1, 3), {}, "no"),
    (study(authors=0.96, signs=0.96), {}, "not run yet"),
]
SIGN = [
    (study(authors=0.96, signs=0.961), {}, "yes"),
    (study(authors=0.96, signs=0.9), {}, "no"),
    (study(authors=0.96, signs=0.95), {}, "open"),
    (arm("authors", 0.96, 3) + arm("sign of the sum", 0.955, 3), {}, "yes"),
    (study(authors=0.96), {}, "not run yet"),
]


def agreeing(*shares):
    arms = [arm("sign of the sum", 0.9, also={"agreement_with_authors": share})[0] for share in shares]
    return [dataclasses.replace(r, seed=seed) for seed, r in enumerate(arms)]


AGREEMENT = [
    (agreeing(0.999, 0.998), {}, "yes"),
    (agreeing(0.5, 0.7), {}, "no"),
    (agreeing(0.999, 0.7), {}, "in part"),
    (study(authors=0.96), {}, "not run yet"),
]
DERIVED = [
    (study(authors=0.9, derived=0.9), {}, "yes"),
    (study(authors=0.9, derived=0.1), {}, "no"),
    (study(authors=0.9, derived=0.3), {}, "open"),
    (arm("authors", 0.9, 3) + arm("exact, no eps", 0.12, 3), {}, "no"),
    (study(authors=0.9), {}, "not run yet"),
]
EPS = [
    (study(authors=0.96, exact=0.963, derived=0.1), {}, "yes"),
    (study(authors=0.96, exact=0.6), {}, "in part"),
    (study(authors=0.96, exact=0.1), {}, "no"),
    (study(authors=0.96, exact=0.95), {}, "in part"),
    (arm("authors", 0.96, 3) + arm("exact", 0.955, 3), {}, "yes"),
    (study(authors=0.96), {}, "not run yet"),
]
LAG = [
    (study(authors=0.96, current=0.9), {}, "yes"),
    (study(authors=0.9, current=0.96), {}, "yes"),
    (study(authors=0.96, current=0.961), {}, "open"),
    (arm("authors", 0.96, 3) + arm("current mean", 0.9, 3), {}, "yes"),
    (study(authors=0.96), {}, "not run yet"),
]
HOT = [
    (study(authors=0.96) + arm("tau 1e-2", 0.1), {}, "yes"),
    (study(authors=0.96) + arm("tau 1e-2", 0.1) + arm("tau 1e-6", 0.962), {}, "in part"),
    (study(authors=0.96) + arm("tau 1e-6", 0.962), {}, "no"),
    (arm("authors", 0.96, 3) + arm("tau 1e-6", 0.955, 3), {}, "no"),
    (study(authors=0.96, exact=0.1), {}, "not run yet"),
    (arm("tau 1e-2", 0.1), {}, "not run yet"),
]


def soft(mode, mean, n=3):
    chosen = {"temperature": 1.0, "init_lambda": 0.1, "lr": 0.01, "eps": 0.0}
    also = {"test_accuracy@mean": 0.8, "posterior_entropy": 0.6}

    def one(seed):
        errors = {"test_ece_fitted@mode": mode + seed / 1000, "test_ece_fitted@mean": mean + seed / 1000}
        return dataclasses.replace(arm("soft", 0.7, also=also | errors)[0], seed=seed, parameters=chosen)

    return seeds(n, one)


SOFT = [
    (soft(0.03, 0.01), {}, "yes"),
    (soft(0.01, 0.03), {}, "no"),
    (soft(0.02, 0.02), {}, "open"),
    (soft(0.03, 0.01, 1), {}, "open"),
    (arm("soft", 0.7, also={"test_ece_fitted@mode": 0.1}), {}, "not run yet"),
    (arm("soft", 0.7, also={"test_ece_fitted@mean": 0.1}), {}, "not run yet"),
]


def still(share, gap):
    return arm("authors", 0.96, also={"stochastic_weights": share / 100, "test_accuracy@mean": 0.96 + gap / 100})


RANDOM = [
    (still(0.0, 0.0), {}, "yes"),
    (still(0.05, 0.02), {}, "yes"),
    (still(0.5, 0.0), {}, "no"),
    (still(0.0, 0.3), {}, "no"),
    (arm("authors", 0.96, also={"stochastic_weights": 0.0}), {}, "not run yet"),
    (arm("authors", 0.96, also={"test_accuracy@mean": 0.9}), {}, "not run yet"),
]


def network(method, accuracy, name=None, dataset="mnist", n=3, epochs=190, **more):
    fields = {"arm": name or method, "dataset": dataset, "row": f"{dataset} {name or method}"} | more
    return trained(method, accuracy, n, epochs=epochs, full=190, experiment="lrnet-comparison", **fields)


LRNET = [
    (network("bayesbinn", 0.99) + network("lrnet", 0.992), {}, "yes"),
    (network("bayesbinn", 0.97) + network("lrnet", 0.992), {}, "no"),
    (network("bayesbinn", 0.99) + network("lrnet", 0.98, epochs=10), {}, "open"),
    (
        network("bayesbinn", 0.99)
        + network("lrnet", 0.98)
        + network("bayesbinn", 0.8, dataset="cifar10")
        + network("lrnet", 0.9, dataset="cifar10"),
        {},
        "in part",
    ),
    (network("bayesbinn", 0.99) + network("bayesbinn", 0.1, "as in the report") + network("lrnet", 0.98), {}, "yes"),
    (network("bayesbinn", 0.99), {}, "not run yet"),
]
PLAIN = network("bayesbinn", 0.94, dataset="cifar10")
SUSPECTS = [
    (PLAIN + network("bayesbinn", 0.84, "as in the report", "cifar10"), {}, "yes"),
    (PLAIN + network("bayesbinn", 0.93, "as in the report", "cifar10"), {}, "no"),
    (PLAIN + network("bayesbinn", 0.84, "cosine-500", "cifar10"), {}, "open"),
    (
        PLAIN + network("bayesbinn", 0.84, "as in the report", "cifar10") + network("lrnet", 0.1, "other", "cifar10"),
        {},
        "yes",
    ),
    (network("bayesbinn", 0.9) + network("bayesbinn", 0.8, "as in the report"), {}, "open"),
    (
        network("bayesbinn", 0.94, dataset="cifar10", epochs=10)
        + network("bayesbinn", 0.8, "as in the report", "cifar10", epochs=10),
        {},
        "open",
    ),
    (network("bayesbinn", 0.84, "as in the report", "cifar10"), {}, "open"),
]

# ---------------------------------------------------------------------------------------------- distributions


def toys(n=4, experiment="toy", jitter=1, **columns):
    "name=(method, metric, value): seeds differ by a thousandth a step, each column in its own direction"
    made = {}
    for i, (method, metric, value) in enumerate(columns.values()):
        for seed in range(n):
            made.setdefault((method, seed), {})[metric] = value * (1 + jitter * (i + 1) * seed / 1000)
    return [rec(experiment, method, seed, metrics=metrics) for (method, seed), metrics in made.items()]


def moons(far, near, ste, **more):
    columns = {"far": "confidence_far@mean", "near": "confidence_data@mean"}
    values = {k: ("bayesbinn", m, v) for (k, m), v in zip(columns.items(), (far, near), strict=True)}
    return toys(**values, ste=("ste", "confidence_far@mode", ste), **more)


def alone(method, **metrics):
    return [rec("toy", method, seed, metrics=metrics) for seed in range(3)]


FAR = [
    (moons(0.7, 0.9, 0.99), {}, "yes"),
    (moons(0.7, 0.6, 0.99), {}, "in part"),
    (moons(0.7, 0.9, 0.6), {}, "in part"),
    (moons(0.9, 0.8, 0.7), {}, "no"),
    (moons(0.7, 0.9, 0.99, n=1), {}, "open"),
    (alone("ste", **{"confidence_far@mode": 0.9}), {}, "not run yet"),
]


def three(measure, mean, mode, ste, **more):
    return toys(
        mean=("bayesbinn", f"{measure}@mean", mean),
        mode=("bayesbinn", f"{measure}@mode", mode),
        ste=("ste", f"{measure}@mode", ste),
        **more,
    )


HELPS = [
    (three("train_accuracy", 0.98, 0.95, 0.99), {}, "yes"),
    (three("train_accuracy", 0.9, 0.95, 0.99), {}, "no"),
    (three("train_accuracy", 0.98, 0.95, 0.99, n=1), {}, "open"),
    (alone("ste", **{"train_accuracy@mode": 0.9}), {}, "not run yet"),
]
LOWERS = [
    (three("confidence_far", 0.9, 0.98, 0.97), {}, "yes"),
    (three("confidence_far", 0.9, 0.95, 0.99), {}, "in part"),
    (three("confidence_far", 0.98, 0.95, 0.99), {}, "no"),
    (three("confidence_far", 0.9, 0.95, 0.99, n=1), {}, "in part"),
    (alone("ste", **{"confidence_far@mode": 0.9}), {}, "not run yet"),
]


def curves(bending, band, n=4, variation=2.0):
    return toys(
        n,
        ste=("ste", "bending@mode", bending),
        rough=("ste", "total_variation@mode", variation),
        mean=("bayesbinn", "bending@mean", 1.0),
        calm=("bayesbinn", "total_variation@mean", 1.0),
        outside=("bayesbinn", "band_outside", band),
        inside=("bayesbinn", "band_inside", 1.0),
    )


SMOOTH = [
    (curves(40, 2.0), {}, "yes"),
    (curves(40, 1.2), {}, "in part"),
    (curves(0.5, 2.0), {}, "in part"),
    (curves(5, 9.0), {}, "yes"),
    (curves(0.5, 1.1), {}, "no"),
    (curves(40, 2.0, n=1), {}, "open"),
    ([r for r in curves(40, 2.0) if (r.method, r.seed) != ("ste", 2)], {}, "yes"),
    (alone("ste"), {}, "not run yet"),
]


def bands(data, usual, n=4):
    return toys(
        n,
        outside=("bayesbinn", "band_outside_data_norm", data),
        inside=("bayesbinn", "band_inside_data_norm", 1.0),
        u_outside=("bayesbinn", "band_outside", usual),
        u_inside=("bayesbinn", "band_inside", 1.0),
    )


HIDDEN = [
    (bands(2.0, 1.0), {}, "yes"),
    (bands(2.0, 2.0), {}, "in part"),
    (bands(1.0, 2.0), {}, "no"),
    (bands(5.0, 5.0), {}, "in part"),
    (bands(1.2, 1.0), {}, "in part"),
    (alone("ste"), {}, "not run yet"),
]
FIT = [
    (three("train_mse", 0.3, 0.4, 0.2), {}, "yes"),
    (three("train_mse", 0.2, 0.4, 0.3), {}, "no"),
    (three("train_mse", 0.3, 0.4, 0.2, n=1), {}, "open"),
    (alone("ste", **{"train_mse@mode": 0.9}), {}, "not run yet"),
]
ROW = dist.published_errors()
TAUS = sorted(ROW, reverse=True)


def heated(errors, how="mode", baseline=None, epochs=10):
    bar = baseline and {"name": "mean", "metric": "train_mse", "value": baseline}
    return [
        rec(
            "snelson-temperature",
            "bayesbinn",
            s,
            f"tau {t:g}",
            "snelson",
            epochs,
            metrics={f"train_mse@{how}": v},
            parameters={"temperature": t},
            baseline=bar,
        )
        for t, values in errors.items()
        for s, v in enumerate(values)
    ]


HIGH, LOW = next((h, c) for h, c in zip(TAUS, TAUS[1:], strict=False) if ROW[c] > ROW[h])
H2, L2 = [(h, c) for h, c in zip(TAUS, TAUS[1:], strict=False) if ROW[c] > ROW[h]][1]
SMALL, LARGE = [0.1, 0.11, 0.12], [5.0, 5.1, 5.2]
TIED = [0.1, 0.2, 0.15], [0.12, 0.2, 0.15]
HALFWAY = [0.1, 0.2, 0.3], [0.15, 0.25, 0.35]
INVERSIONS = [(h, c) for i, h in enumerate(TAUS) for c in TAUS[i + 1 :] if ROW[c] > ROW[h]]
ONCE = min({c for _, c in INVERSIONS}, key=[c for _, c in INVERSIONS].count)
LEANING = {t: [0.1, 0.2, 0.3] for t in TAUS} | {ONCE: [0.12, 0.2, 0.3]}  # one inversion like chance, the others lean
INVERTED = [
    (heated(LEANING), {}, "open"),
    (heated({HIGH: SMALL, LOW: LARGE}), {}, "yes"),
    (heated({HIGH: TIED[0], LOW: TIED[1]}), {}, "no"),
    (heated({HIGH: LARGE, LOW: SMALL}), {}, "no"),
    (heated({HIGH: HALFWAY[0], LOW: HALFWAY[1]}), {}, "open"),
    (heated({HIGH: SMALL, LOW: LARGE, H2: LARGE, L2: SMALL}), {}, "in part"),
    (heated({HIGH: SMALL[:2], LOW: LARGE}), {}, "open"),
    (heated({HIGH: SMALL}), {}, "open"),
    (heated({HIGH: SMALL}, "mean"), {}, "not run yet"),
]
COLD = [
    (heated({1e-4: [0.1, 0.3, 0.2], 1e-5: [0.12, 0.32, 0.22]}), {}, "yes"),
    (heated({1e-4: [0.1, 0.101, 0.102, 0.103], 1e-5: [0.9, 0.901, 0.902, 0.903]}), {}, "no"),
    (heated({1e-4: [0.1, 0.4, 0.2], 1e-5: [0.3, 0.5, 0.6]}), {}, "yes"),
    (heated({1e-4: [0.1, 0.1, 0.5], 1e-5: [0.45, 0.6, 0.6]}), {}, "open"),
    (heated({1e-4: [0.1, 0.3, 0.2], 1e-5: [0.12, 0.32, 0.22], 5e-3: [5.0, 6.0, 7.0]}), {}, "yes"),
    (heated({1e-4: [0.1, 0.3], 1e-5: [0.12, 0.32, 0.3]}), {}, "open"),
    (heated({1e-4: [0.2, 0.2, 0.2], 1e-5: [0.2, 0.2, 0.2]}), {}, "open"),
    (heated({1e-4: [0.1, 0.3, 0.2], 1e-2: [0.1, 0.3, 0.2]}), {}, "not run yet"),
]


def ranked(shift, how="mode"):
    "Three runs at every temperature, a share of them below the report's value that varies by 1/3 around the shift"
    ways = {
        "low": ([0.5, 0.6, 2.0], [0.5, 0.6, 0.7]),
        "high": ([2.0, 3.0, 0.5], [2.0, 3.0, 4.0]),
        "even": ([0.5, 2.0, 3.0], [0.5, 0.6, 2.0]),
    }
    return heated({t: [ROW[t] * f for f in ways[shift][i % 2]] for i, t in enumerate(TAUS)}, how)


def both_ways(mode, mean):
    pairs = zip(ranked(mode), ranked(mean, "mean"), strict=True)
    return [dataclasses.replace(a, metrics={"last": a.metrics["last"] | b.metrics["last"]}) for a, b in pairs]


ANOTHER = [
    (both_ways("low", "low"), {}, "yes"),
    (both_ways("high", "low"), {}, "yes"),
    (both_ways("low", "even"), {}, "in part"),
    (both_ways("even", "low"), {}, "in part"),
    (both_ways("even", "even"), {}, "open"),
    (heated({TAUS[0]: [0.1]}), {}, "open"),
]
HOTTEST = [
    (heated({10.0: [2.0, 2.1, 2.2], 0.1: [0.1, 0.2]}, baseline=1.0), {}, "yes"),
    (heated({10.0: [0.2, 0.21, 0.22], 0.1: [2.0, 3.0]}, baseline=1.0), {}, "no"),
    (heated({10.0: [0.5, 2.0, 1.0]}, baseline=1.0), {}, "open"),
    (heated({10.0: [2.0, 2.1]}), {}, "not run yet"),
    (heated({10.0: [2.0, 2.1]}, "mean", 1.0), {}, "not run yet"),
]


def learned(arm, lost, kept=0.5, n=3, extra=None, **also):
    def one(seed):
        metrics = {"forgetting@mean": lost + seed / 1000, "test_accuracy@mean": kept + seed / 900} | also
        tasks = {"tasks": [dict(t, histogram=t["histogram"](seed)) for t in extra]} if extra else {}
        return rec("continual", "bayesbinn", seed, arm, "permuted-mnist", metrics=metrics, extra=tasks)

    return seeds(n, one)


def remembered(lagged, current, without=0.8, **more):
    arms = (
        ("prior, lagged", lagged),
        ("no prior, lagged", without),
        ("prior, current", current),
        ("no prior, current", without + 0.01),
    )
    return [r for arm, lost in arms for r in learned(arm, lost, **more)]


PRIOR = [
    (remembered(0.1, 0.1), {}, "yes"),
    (remembered(0.6, 0.6), {}, "in part"),
    (remembered(0.1, 0.6), {}, "in part"),
    (remembered(0.1, 0.9), {}, "in part"),
    (remembered(0.9, 0.9), {}, "no"),
    (remembered(0.1, 0.1, n=1), {}, "open"),
    (learned("prior, lagged", 0.1) + learned("no prior, lagged", 0.8), {}, "yes"),
    (learned("prior, lagged", 0.1), {}, "not run yet"),
]
LATE = [
    (learned("prior, lagged", 0.1, 0.9) + learned("prior, current", 0.1, 0.8), {}, "yes"),
    (learned("prior, lagged", 0.1, 0.8) + learned("prior, current", 0.1, 0.9, n=4), {}, "yes"),
    (learned("prior, lagged", 0.1, 0.8, n=1) + learned("prior, current", 0.1, 0.9, n=1), {}, "open"),
    (learned("prior, lagged", 0.1, 0.8), {}, "not run yet"),
]


def task(undecided, shift=0.0, gain=0.1):
    def histogram(seed):
        middle = undecided + shift * seed / 1000
        return [(1 - middle) / 2, middle / 2, middle / 2, (1 - middle) / 2]

    return {"histogram": histogram, "mode": [0.5, 0.5], "statistics": [0.5 + gain, 0.5]}


def sits(before, after, arm="prior, lagged"):
    extra = [task(0.5), task(0.4, gain=0.02)]
    return learned(
        arm,
        0.1,
        extra=extra,
        forgetting=before,
        forgetting_restored=after,
        test_accuracy=0.5,
        test_accuracy_restored=0.6,
    )


SITS = [
    (sits(0.5, 0.49), {}, "yes"),
    (sits(0.5, 0.1), {}, "no"),
    (sits(0.5, 0.4), {}, "open"),
    (sits(0.5, 0.49) + sits(0.5, 0.1, "no prior, lagged"), {}, "in part"),
    (learned("prior, lagged", 0.1, forgetting=0.5), {}, "not run yet"),
    (learned("prior, lagged", 0.1, forgetting_restored=0.5), {}, "not run yet"),
]
CERTAIN = [
    (learned("prior, lagged", 0.1, extra=[task(0.7), task(0.2, 1)]), {}, "yes"),
    (learned("prior, lagged", 0.1, extra=[task(0.2), task(0.7, 1)]), {}, "no"),
    (learned("prior, lagged", 0.1, n=1, extra=[task(0.7), task(0.2)]), {}, "open"),
    (
        learned("prior, lagged", 0.1, extra=[task(0.7), task(0.2)])
        + learned("prior, current", 0.1, extra=[task(0.2), task(0.7)]),
        {},
        "in part",
    ),
    (learned("no prior, lagged", 0.1, extra=[task(0.7), task(0.2)]), {}, "not run yet"),
]
TRIVIAL = {"everywhere": {"pixel_error": 0.2, "score": 0.2}, "perfect": {"score": 0.3}}


def segmented(method, iou, wrong, arm=None, n=3, scoring="aligned", membrane=0.5, extra=TRIVIAL):
    def one(seed):
        values = {"val_mean_iou": iou, "val_pixel_error": wrong, "val_membrane_iou": membrane}
        metrics = {k: v + seed / 1000 for k, v in values.items()}
        fields = {"parameters": {"scoring": scoring}, "extra": extra, "metrics": metrics}
        return rec("segmentation", method, seed, arm or method, "isbi2012", **fields)

    return seeds(n, one)


STRONG = segmented("ste", 0.8, 0.09) + segmented("adam", 0.81, 0.08)
BEHIND = [
    (STRONG + segmented("bayesbinn", 0.4, 0.3), {}, "yes"),
    (STRONG + segmented("bayesbinn", 0.7, 0.1), {}, "in part"),
    (STRONG + segmented("bayesbinn", 0.9, 0.3), {}, "in part"),
    (STRONG + segmented("bayesbinn", 0.7, 0.1) + segmented("bayesbinn", 0.9, 0.05, "tuned"), {}, "no"),
    (segmented("ste", 0.6, 0.2) + segmented("adam", 0.81, 0.1) + segmented("bayesbinn", 0.7, 0.1), {}, "no"),
    (STRONG + segmented("bayesbinn", 0.4, 0.3, n=1), {}, "open"),
    (segmented("ste", 0.8, 0.09, n=1) + segmented("bayesbinn", 0.7, 0.1), {}, "open"),
    (STRONG, {}, "not run yet"),
    (segmented("bayesbinn", 0.7, 0.1) + segmented("bop", 0.9, 0.1), {}, "not run yet"),
]
LEARNS = [
    (STRONG, {}, "yes"),
    (segmented("ste", 0.4, 0.3), {}, "no"),
    (STRONG + segmented("bayesbinn", 0.4, 0.3), {}, "in part"),
    (segmented("ste", 0.4, 0.199), {}, "no"),
    (segmented("ste", 0.4, 0.1, scoring="misaligned"), {}, "not run yet"),
]
OURS = segmented("bayesbinn", 0.7, 0.1)
TUNED = [
    (OURS + segmented("bayesbinn", 0.6, 0.1, "a"), {}, "yes"),
    (OURS + segmented("bayesbinn", 0.8, 0.1, "a"), {}, "no"),
    (OURS + segmented("bayesbinn", 0.8, 0.1, "a") + segmented("bayesbinn", 0.6, 0.1, "b"), {}, "in part"),
    (
        OURS
        + segmented("bayesbinn", 0.8, 0.1, "a")
        + segmented("bayesbinn", 0.9, 0.1, "b")
        + segmented("bayesbinn", 0.6, 0.1, "c"),
        {},
        "no",
    ),
    (OURS, {}, "not run yet"),
    (segmented("bayesbinn", 0.8, 0.1, "a"), {}, "not run yet"),
]


def bent(method, membrane, extra=TRIVIAL):
    return segmented(method, 0.4, 0.2, f"{method}-misaligned", scoring="misaligned", membrane=membrane, extra=extra)


ENDS = [
    (bent("ste", 0.0), {}, "yes"),
    (bent("ste", 0.4), {}, "no"),
    (bent("ste", 0.05), {}, "no"),
    (bent("ste", 0.0) + bent("adam", 0.4), {}, "in part"),
    (STRONG, {}, "not run yet"),
]
YARDSTICK = [
    (bent("ste", 0.0), {}, "yes"),
    (bent("ste", 0.0, {"everywhere": {"score": 0.4}, "perfect": {"score": 0.1}}), {}, "no"),
    (STRONG, {}, "not run yet"),
]

# ---------------------------------------------------------------------------------------------- Bop, latent weights


def flipping(rate, threshold, pi):
    setting = {"adaptivity_rate": rate, "threshold": threshold}
    return rec("bop-hyperparameters", "bop", dataset="cifar10", metrics={"pi": pi}, parameters=setting)


def grid(rates=(-15, -11, -8), thresholds=(-9, -11, -12)):
    by_rate = [flipping(g, 1e-5, pi) for g, pi in zip((1e-3, 1e-2, 1e-1), rates, strict=True)]
    by_threshold = [flipping(1e-2, t, pi) for t, pi in zip((0.0, 1e-4), (thresholds[0], thresholds[2]), strict=True)]
    return by_rate + by_threshold


FLIPS = [
    (grid(), {}, "yes"),
    (grid((-8, -11, -15)), {}, "yes"),
    (grid((-8, -11, -10)), {}, "in part"),
    (grid((-8, -11, -10), (-9, 0, -10)), {}, "no"),
    (grid()[:1], {}, "open"),
]
REVERSED = [
    (grid(), {}, "yes"),
    (grid((-8, -11, -15)), {}, "no"),
    (grid((-8, -11, -10)), {}, "open"),
    (grid()[:1], {}, "not run yet"),
]
STOPS = [
    (grid(), {}, "yes"),
    (grid(thresholds=(-12, -11, -9)), {}, "no"),
    (grid(thresholds=(-9, 0, -10)), {}, "open"),
    (grid()[:1], {}, "not run yet"),
]


def on_cifar(name, accuracy, n=3, epochs=500, bar=0.1):
    chance = bar and {"name": "one class", "metric": "test_accuracy", "value": bar}
    more = {"arm": name, "dataset": "cifar10", "baseline": chance}
    return trained("bop", accuracy, n, epochs=epochs, full=500, experiment="bop-cifar10", **more)


LATENT_ADAM = on_cifar("adam latent weights", 0.909)
FLIP_ONLY = [
    (on_cifar("paper", 0.913) + LATENT_ADAM, {}, "yes"),
    (on_cifar("paper", 0.907) + LATENT_ADAM, {}, "yes"),
    (on_cifar("paper", 0.9) + LATENT_ADAM, {}, "no"),
    (on_cifar("paper", 0.9, epochs=5) + LATENT_ADAM, {}, "open"),
    (on_cifar("paper", 0.913, n=1) + LATENT_ADAM, {}, "open"),
    (on_cifar("paper", 0.913), {}, "open"),
]
UNNORMALISED = [
    (on_cifar("no BatchNorm", 0.1), {}, "yes"),
    (on_cifar("no BatchNorm", 0.2), {}, "yes"),
    (on_cifar("no BatchNorm", 0.1, epochs=5), {}, "so far"),
    (on_cifar("no BatchNorm", 0.5), {}, "no"),
    (on_cifar("no BatchNorm", 0.5, epochs=5), {}, "no"),
    (
        on_cifar("no BatchNorm", 0.2, n=1) + [dataclasses.replace(on_cifar("no BatchNorm", 0.5, n=1)[0], seed=1)],
        {},
        "in part",
    ),
    (on_cifar("paper", 0.1), {}, "not run yet"),
    (on_cifar("no BatchNorm", 0.1, bar=None), {}, "not run yet"),
]


def latent(binary, retrained, latent_retrained, dataset="mnist", n=4):
    scores = {"binary": binary, "binary+bn": retrained, "latent+bn": latent_retrained}
    return [
        rec("latent-weights", "ste", s, arm, dataset, metrics={"test_accuracy": v + s * (i + 1) / 1000})
        for i, (arm, v) in enumerate(scores.items())
        for s in range(n)
    ]


LOSS, GAIN = latent(0.8, 0.9, 0.85), latent(0.8, 0.9, 0.95, "cifar10")
NOT_WEIGHTS = [
    (LOSS, {}, "yes"),
    (GAIN, {}, "no"),
    (LOSS + GAIN, {}, "in part"),
    (latent(0.8, 0.9, 0.85, n=1), {}, "open"),
    (latent(0.8, 0.9, 0.8985), {}, "open"),
    ([r for r in LOSS if r.arm != "latent+bn"], {}, "not run yet"),
]
RETRAINED = [
    (LOSS, {}, "yes"),
    (GAIN, {}, "no"),
    (latent(0.9, 0.8, 0.7), {}, "no"),
    (LOSS + GAIN, {}, "in part"),
    (latent(0.8, 0.9, 0.85, n=1), {}, "open"),
    (latent(0.8, 0.9, 0.8985), {}, "open"),
    ([r for r in LOSS if r.arm != "latent+bn"], {}, "not run yet"),
]


def scaled(setting, signs, train=(0.5, 0.6), test=(0.5, 0.6), seed=0):
    history = {"epoch": [1, 2], "train_accuracy": list(train), "test_accuracy": list(test)}
    more = {"parameters": {"setting": setting}, "extra": {"signs": signs}, "history": history}
    return rec("arbitrary-learning-rate", "ste", seed, setting, metrics={"train_accuracy": train[-1]}, **more)


def exact(*pairs):
    return [
        scaled(name, sign, (0.5, t), seed=s)
        for s, pair in enumerate(pairs)
        for name, (sign, t) in zip(("exact_1", "exact_2^-7"), pair, strict=True)
    ]


SAME, OTHER, UNEQUAL = (("a", 0.6), ("a", 0.6)), (("a", 0.6), ("b", 0.6)), (("a", 0.6), ("a", 0.7))
ARBITRARY = [
    (exact(SAME, SAME), {}, "yes"),
    (exact(OTHER), {}, "no"),
    (exact(UNEQUAL), {}, "no"),
    (exact(SAME, OTHER), {}, "in part"),
    ([scaled("exact_1", "a")], {}, "not run yet"),
]


def reports(signs, other="b"):
    slow = [scaled("glorot_sgd_0.01", "c", (0.1, 0.3))]
    pairs = [
        [scaled("glorot_sgd_1", "a", seed=s), scaled("glorot_x0.01_sgd_0.01", sign, (0.5, 0.61), seed=s)]
        for s, sign in enumerate(signs)
    ]
    return slow + sum(pairs, [])


PAIR = [
    (reports("aa"), {}, "yes"),
    (reports("bb"), {}, "no"),
    (reports("ab"), {}, "in part"),
    (reports(""), {}, "not run yet"),
]
JUMPS = [
    ([scaled("a", "a", test=(0.5, 0.6))], {}, "yes"),
    ([scaled("a", "a", test=(0.5, 0.51)), scaled("b", "a", test=(0.6, 0.5))], {}, "yes"),
    ([scaled("a", "a", test=(0.5, 0.51))], {}, "no"),
    ([scaled("a", "a", test=(0.5, None))], {}, "not run yet"),
]

# ---------------------------------------------------------------------------------------------- size and speed


def counted(*factors, bop=2.0, adam=4.0, momentum=3.0):
    sizes = {f"net {i}": {"float32_bytes": 10 * f, "file_bytes": 10} for i, f in enumerate(factors)}
    rest = {"BayesBiNN, β = 0": 3.0, "BayesBiNN, β = 0.99": 4.0}
    return {
        "sizes": sizes,
        "training": {"Bop": bop, "STE with Adam": adam, "STE with SGD and momentum": momentum} | rest,
    }


TIMES = [(counted(31, 32), {}, "yes"), (counted(20, 25), {}, "no"), (counted(31, 20), {}, "in part")]
NEEDS = [
    (counted(31), {}, "yes"),
    (counted(31, bop=3.5), {}, "in part"),
    (counted(31, bop=5.0), {}, "no"),
    (counted(31, bop=2.5), {}, "yes"),
    (counted(31, bop=2.95), {}, "in part"),
]


def timed(step=1.2, whole=1.0, faster=3.0, weights=10_000_000, batch=100, other=None, method="bayesbinn", memory=True):
    growth = [{"weights": weights, "optimiser": f"{method}, paper", "times_adam": step}]
    growth += [{"weights": 10_000_000, "optimiser": "adam", "times_adam": 9.0}]
    growth += [{"weights": 10_000_000, "optimiser": "bayesbinn, stochastic", "times_adam": other}] if other else []
    steps = [
        {"network": "mlp", "batch": b, "precision": "float32", "method": m, "times_adam": t}
        for b, m, t in ((batch, method, whole), (50, "bayesbinn", 7.0), (100, "ste", 9.0))
    ]
    steps += (
        [{"network": "vgg", "batch": 100, "precision": "float32", "method": "bayesbinn", "times_adam": other}]
        if other
        else []
    )
    beside = [{"network": "mlp", "batch": batch, "precision": "float32", "times_faster": faster, "bound": 4.0}]
    beside += [{"network": "mlp", "batch": 100, "precision": "bfloat16", "times_faster": other}] if other else []
    held = {
        k: {"milliseconds": m, "megabytes": 9.0} for k, m in (("authors, ordinary process", 500.0), ("bfloat16", 50.0))
    }
    extra = {
        "growth": growth,
        "whole": steps,
        "beside": beside,
        "memory": held if memory else {"bfloat16": held["bfloat16"]},
    }
    return [rec("speed", "bayesbinn", row="speed", extra=extra)]


STEP = [
    (timed(), {}, "yes"),
    (timed(step=2.0), {}, "no"),
    (timed(other=2.0), {}, "in part"),
    (timed(weights=1000), {}, "not run yet"),
]
WHOLE = [
    (timed(), {}, "yes"),
    (timed(whole=1.5), {}, "no"),
    (timed(other=2.0), {}, "in part"),
    (timed(batch=10), {}, "not run yet"),
]
FASTER = [
    (timed(), {}, "yes"),
    (timed(faster=0.5), {}, "no"),
    (timed(faster=2.0, other=0.5), {}, "in part"),
    (timed(memory=False), {}, "yes"),
    (timed(batch=10), {}, "not run yet"),
]

# The rules that count verdicts are given the counts themselves: judging is the report's, and tested there.
COUNTS = {
    "all on": {"on the curve": 3, "reproduced": 3, "not comparable": 9},
    "all off": {"off the curve": 3, "differs": 3},
    "some": {"on the curve": 1, "off the curve": 2, "reproduced": 1, "differs": 1},
    "none": {"single run": 2, "within our spread": 4},
}


def verdict_cases(**option):
    words = {"all on": "yes", "all off": "no", "some": "in part", "none": "open"}
    return [
        (trained("bayesbinn", 0.9, row=name) + trained("ste", 0.8, n=2, row=name), option, word)
        for name, word in words.items()
    ]


def made_up_verdicts(records, experiment, method="*"):
    assert experiment in ("curve", "benchmark") and method in ("*", "bayesbinn", "!bayesbinn")
    return dict(COUNTS[records[0].row])


CASES = {
    images: {
        "near_full_precision": NEAR,
        "on_the_curve": verdict_cases(method="bayesbinn") + verdict_cases(method="!bayesbinn"),
        "reproduced": verdict_cases(experiment="benchmark"),
        "best_of_the_binary": BEST,
        "pmf_has_decided": DECIDED,
        "mode_is_mean": MODES,
        "rate_free_temperature_bound": FREE,
        "setting_is_free": SETTING,
        "warm_loses": WARM,
        "distribution_trains": DISTRIBUTION,
        "sign_is_enough": SIGN,
        "sign_has_the_weights": AGREEMENT,
        "derived_gradient_learns": DERIVED,
        "eps_carries": EPS,
        "lag_matters_early": LAG,
        "warm_learns_less": HOT,
        "soft_mean_is_calibrated": SOFT,
        "nothing_is_random": RANDOM,
        "as_good_as_lrnet": LRNET,
        "suspects": SUSPECTS,
    },
    dist: {
        "less_sure_far_away": FAR,
        "averaging_helps": HELPS,
        "averaging_lowers_confidence": LOWERS,
        "smooth_and_widening": SMOOTH,
        "normalisation_hides_the_band": HIDDEN,
        "smoothness_costs_fit": FIT,
        "row_is_temperature": INVERTED,
        "seed_matters_more": COLD,
        "row_is_another": ANOTHER,
        "hot_learns_nothing": HOTTEST,
        "prior_remembers": PRIOR,
        "lag_matters": LATE,
        "forgetting_sits_in_weights": SITS,
        "weights_become_certain": CERTAIN,
        "behind_whatever_is_tuned": BEHIND,
        "every_method_learns": LEARNS,
        "tuning_does_not_help": TUNED,
        "pipeline_ends_trivial": ENDS,
        "yardstick_is_bent": YARDSTICK,
    },
    bop: {
        "settings_set_the_flips": FLIPS,
        "sentence_is_reversed": REVERSED,
        "threshold_stops_flips": STOPS,
        "as_good_as_latent": FLIP_ONLY,
        "nothing_without_normalisation": UNNORMALISED,
        "latent_weights_gain": NOT_WEIGHTS,
        "retraining_gives_the_gain": RETRAINED,
        "rate_is_arbitrary": ARBITRARY,
        "reports_pair_is_one": PAIR,
        "accuracies_jump": JUMPS,
    },
    cost: {
        "thirty_two_times": TIMES,
        "bop_needs_less": NEEDS,
        "optimiser_step": STEP,
        "whole_step": WHOLE,
        "faster_than_released": FASTER,
    },
}
RULES = [(room, name) for room, rules in CASES.items() for name in rules]


def namespace(room):
    return dict(vars(room)) | ({"verdicts": made_up_verdicts} if room is images else {})


def compiled(tree, room):
    space = namespace(room)
    exec(compile(ast.fix_missing_locations(tree), "rule", "exec"), space)
    return space[tree.body[0].name]


def rule_tree(room, name):
    tree = ast.parse(textwrap.dedent(inspect.getsource(getattr(room, name))))
    tree.body[0].decorator_list = []
    return tree


def rounded(value):
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, (list, tuple)) else value


def results(rule, cases):
    "What a rule says of its cases; a rule that breaks says so"
    found = []
    for records, options, _ in cases:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                f = rule(copy.deepcopy(records) if isinstance(records, dict) else list(records), **options)
            found.append((f.word, rounded(f.numbers), f.limits, len(f.rests_on)))
        except Exception as e:  # a mutant may do anything
            found.append(type(e).__name__)
    return found


@pytest.mark.parametrize(("room", "name"), RULES, ids=[name for _, name in RULES])
def test_every_word_of_a_rule(room, name):
    rule = compiled(rule_tree(room, name), room)
    for i, (records, options, word) in enumerate(CASES[room][name]):
        assert rule(records, **options).word == word, f"case {i}"


def test_every_claim_has_cases():
    assert {c.judge.__name__ for c in claims()} == {name for _, name in RULES}


# ---------------------------------------------------------------------------------------------- mutants

FLIPPED = {
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
SWAPPED = {"min": "max", "max": "min", "all": "any", "any": "all"}


def mutations(tree):
    "(what was changed, the changed tree), one change each"
    for i, node in enumerate(ast.walk(tree)):

        def changed(edit, i=i):
            twin = copy.deepcopy(tree)
            edit(list(ast.walk(twin))[i])
            return twin

        where = ast.unparse(node)[:70] if isinstance(node, ast.expr) else ""
        if isinstance(node, ast.Compare):
            for k, op in enumerate(node.ops):
                yield (
                    f"{where}: {type(op).__name__}",
                    changed(lambda n, k=k, op=op: n.ops.__setitem__(k, FLIPPED[type(op)]())),
                )
        elif isinstance(node, ast.BoolOp):
            yield f"{where}: and/or", changed(lambda n: setattr(n, "op", FLIPPED[type(n.op)]()))
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield f"{where}: not", changed(lambda n: setattr(n, "operand", ast.UnaryOp(ast.Not(), n.operand)))
        elif isinstance(node, ast.Name) and node.id in SWAPPED:
            yield f"{node.id}: swapped", changed(lambda n: setattr(n, "id", SWAPPED[n.id]))
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float) and node.value not in (0, 1):
            yield f"{node.value} in line {node.lineno}: × 10", changed(lambda n: setattr(n, "value", n.value * 10))


# Mutants that no records can tell from the rule, with the reason.
EQUIVALENT = {}


@pytest.mark.parametrize(("room", "name"), RULES, ids=[name for _, name in RULES])
def test_a_changed_rule_is_noticed(room, name):
    cases, tree = CASES[room][name], rule_tree(room, name)
    usual = results(compiled(tree, room), cases)
    unnoticed = [
        what
        for what, mutant in mutations(tree)
        if results(compiled(mutant, room), cases) == usual and what not in EQUIVALENT.get(name, {})
    ]
    assert not unnoticed, f"no case of {name} notices: {unnoticed}"


# ---------------------------------------------------------------------------------------------- what rules share


def test_halves_make_a_word():
    assert [word_of(*h) for h in ((True,), (True, True), (False,), (False, False))] == ["yes", "yes", "no", "no"]
    assert [word_of(*h) for h in ((True, False), (True, None), (None, True))] == ["in part"] * 3
    assert [word_of(*h) for h in ((), (None,), (False, None))] == ["open"] * 3


def test_words_are_checked():
    with pytest.raises(ValueError, match="cannot say 'perhaps'"):
        Finding("perhaps")
    assert set(WORDS) == {"yes", "no", "in part", "so far", "open", "not run yet"}


def test_the_tests_are_those_of_scipy():
    from scipy import stats

    a, b = [3.0, 1.0, 2.5, 2.0], [1.0, 1.5, 0.5, 1.0]
    assert paired(a, b).p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert welch(a, b).p == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)
    assert paired(a, b, 0.5).p == pytest.approx(
        stats.ttest_1samp([x - y for x, y in zip(a, b, strict=True)], 0.5).pvalue
    )
    assert welch(a, b, 0.5).p == pytest.approx(stats.ttest_ind([x - 0.5 for x in a], b, equal_var=False).pvalue)


def test_a_margin_moves_the_bar():
    high, low = [5.0, 5.1, 5.2], [1.0, 1.1, 1.0]
    assert [welch(high, low, m).above for m in (0, 3.0, 4.08, 6.0)] == [True, True, None, False]
    assert [paired(high, low, m).above for m in (0, 3.0, 4.08, 6.0)] == [True, True, None, False]
    assert [Gap(2.0, 0.01, 3).above, Gap(-2.0, 0.01, 3).above, Gap(2.0, 0.2, 3).above, Gap(2.0, None, 1).above] == [
        True,
        False,
        None,
        None,
    ]


def test_single_seeds_are_compared_by_pictures_only_when_asked():
    assert [welch([90.0], [95.0]).above, welch([90.0], [95.0], pictures=1000).above] == [None, False]
    assert welch([90.0], [90.5], pictures=1000).above is None
    assert [paired([1.0], [2.0]).p, welch([], [1.0]).mean, paired([], []).mean] == [None, None, None]
    assert [paired([2.0, 2.0], [1.0, 1.0]).p, paired([1.0, 1.0], [1.0, 1.0]).p] == [0.0, 1.0]


def demo(**more):
    def judge(records):
        "Always yes"
        return Finding("yes", {"n": len(records)})

    fields = {"experiments": ("demo*",), "dataset": "mnist"} | more
    return Claim("demo", "page", "it holds", judge.__doc__, judge, "{n} records", **fields)


def test_a_claim_sees_its_own_records_and_real_ones_first():
    real, stand_in = rec("demo-1", "ste"), rec("demo", "ste", dataset="mnist-standin", stand_in="Not real.")
    others = [rec("other", "ste"), rec("demo", "ste", dataset="cifar10")]
    assert demo().find([real, stand_in, *others]).numbers == {"n": 1}
    assert [demo().find(r).word for r in ([real, stand_in], [stand_in], others)] == ["yes", "open", "not run yet"]
    assert demo(any_data=True).find([stand_in]).word == "yes"
    assert demo(dataset=None).find([real, *others]).numbers == {"n": 2}


def test_another_mean_leaves_a_claim_about_the_published_one_open():
    lagged, current = rec("demo", "bayesbinn"), rec("demo", "bayesbinn", settings={})
    assert [demo(variant="lagged").find([r]).word for r in (lagged, current)] == ["yes", "open"]
    assert OTHER_MEAN in demo(variant="lagged").find([lagged, current]).limits
    assert [demo().find([current]).word, demo(variant="lagged").find([rec("demo", "ste")]).word] == ["yes", "yes"]


def test_limits_say_seeds_and_early_stop():
    some = [rec("demo", "ste", s, epochs=3, full=500, deviations=["smaller"]) for s in (0, 1)]
    odd = rec("demo", "pmf", 0, epochs=3, full=500, deviations=["smaller", "its own"])
    one = [rec("demo", "bop", 0, epochs=500, full=500)]
    assert frame.limits_of(some) == ("stopped early (3 of 500 epochs)", "2 seeds", "smaller")
    assert frame.limits_of([*some, odd]) == ("stopped early (3 of 500 epochs)", "1 to 2 seeds", "smaller")
    assert frame.limits_of(some + one) == ("stopped early (3 of 500 epochs)", "1 to 2 seeds")
    assert frame.limits_of(one) == ("1 seed",)


@pytest.mark.parametrize("room", CASES, ids=[room.__name__.rpartition(".")[2] for room in CASES])
def test_every_finding_can_be_said(room):
    for c in claims():
        if c.judge.__module__ != room.__name__:
            continue
        for records, options, _ in CASES[room][c.judge.__name__]:
            if options in ({}, c.options):
                finding = compiled(rule_tree(room, c.judge.__name__), room)(records, **c.options)
                text = frame.paragraph(c, finding)
                assert f"*{finding.word}*" in text and "None" not in text and "{" not in text, text


def test_text_from_records_is_escaped():
    odd = rec("demo", "ste", deviations=["<script> | *x*"])
    text = frame.paragraph(demo(), demo().find([odd]))
    assert "<script>" not in text and "|" not in text and "&lt;script&gt;" in text


def test_rooms_are_all_registered():
    assert [room.__name__.rpartition(".")[2] for room in CASES] == list(frame.ROOMS)
    for room in frame.ROOMS:
        importlib.import_module(f"bayesbinn_nb.repro.{room}")
    assert pages.METHOD_TITLES["bayesbinn"] == "BayesBiNN"
