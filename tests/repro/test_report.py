"""Verdicts: each rule and each edge, on records made by hand."""

import ast
import copy
import dataclasses
import itertools
import math
from pathlib import Path

import pytest

import bayesbinn_nb.repro.published as published_module
import bayesbinn_nb.repro.report as report
from bayesbinn_nb.library.recipes import recipe
from bayesbinn_nb.repro.published import load_curves, load_published
from bayesbinn_nb.repro.records import Record, RecordError, read_record, write_record
from bayesbinn_nb.repro.report import (
    COLUMNS,
    EARLIER,
    RULES,
    VERDICTS,
    collect,
    comparison_table,
    counted_apart,
    counts_sentence,
    counts_table,
    follows_recipe,
    joins,
    other_settings,
    planned,
    reproduced_what,
    same_value,
    scorecard,
    setting,
    show_value,
    text_report,
    verdict_counts,
)
from bayesbinn_nb.repro.suites import SuiteError, experiments_dir, load_suite, template_parameters
from bayesbinn_nb.repro.templates import load_template

PUBLISHED = load_published()
BY_ID = {p.id: p for p in PUBLISHED}
TABLE10 = "paper.t10.mnist.bayesbinn.test"  # 98.86 ± 0.05, ddof 0, n 5
AT_10 = "logs.mnist.bayesbinn.e10.test"  # 98.18 ± 0.11, ddof 1, n 5
BARE = {"std": None, "ddof": None}  # no spread was published


def records(*values, name="test_accuracy", last=None, history=None, lagged=True, **kw):
    "One record per value; `values` at the best validation epoch, `last` (default the same) at the last"
    base = dict(
        experiment="benchmark",
        dataset="mnist",
        method="bayesbinn",
        suite="paper",
        row="r",
        epochs=500,
        schedule_epochs=500,
    )
    base = {**base, **kw}
    base.setdefault("arm", base["method"])
    if lagged and base["method"] == "bayesbinn":  # as every published run of BayesBiNN
        base["parameters"] = {"mean": "lagged"} | base.get("parameters", {})
    return [
        Record(
            seed=i,
            metrics={"last": {name: v if last is None else last[i]}, "best_validation": {name: v}},
            history={k: c[i] if isinstance(c[0], list) else c for k, c in (history or {}).items()},
            **base,
        )
        for i, v in enumerate(values)
    ]


def row(id=TABLE10, **change):
    return dataclasses.replace(BY_ID[id], **change)


def verdict(rs, id=TABLE10, **change):
    return scorecard(rs, [row(id, **change)])[0]


# --- full schedule


def test_reproduced_within_the_floor():
    v = verdict(records(0.9880, 0.9885, 0.9875))
    assert v.verdict == "reproduced" and v.tolerance == 0.3 and v.ours_n == 3
    assert v.ours == pytest.approx(98.80) and v.delta == pytest.approx(-0.06) and v.ours_std == pytest.approx(0.05)


def test_differs_outside():
    assert verdict(records(0.9820, 0.9821, 0.9822)).verdict == "differs"


def test_the_floor_itself_counts_as_reproduced():
    assert verdict(records(0.9856, 0.9856, 0.9856)).verdict == "reproduced"
    assert verdict(records(0.98559, 0.98559, 0.98559)).verdict == "differs"


def test_tolerance_from_both_spreads():
    "2√(s1²/n1 + s2²/n2) with the published deviation converted from ddof 0"
    values = (0.90, 0.92, 0.94)  # mean 92, sample deviation 2
    v = verdict(records(*values), value=94.0, std=1.6, n=5, ddof=0)
    assert v.tolerance == pytest.approx(2 * math.sqrt(4 / 3 + (1.6**2 * 5 / 4) / 5))
    assert v.verdict == "reproduced"
    assert verdict(records(*values), value=95.0, std=1.6, n=5, ddof=0).verdict == "differs"


def test_missing_spread_is_replaced_by_ours():
    values = (0.90, 0.92, 0.94)  # mean 92, sample deviation 2
    v = verdict(records(*values), value=95.0, n=1, **BARE)
    assert v.tolerance == pytest.approx(2 * math.sqrt(4 / 3 + 4 / 1)) and "ours is used" in v.reason
    assert v.verdict == "within our spread"
    assert verdict(records(*values), value=95.0, n=5, **BARE).tolerance == pytest.approx(2 * math.sqrt(4 / 3 + 4 / 5))
    assert verdict(records(*values), value=95.0, n=None, **BARE).tolerance == pytest.approx(2 * math.sqrt(4 / 3 + 4))


def test_agreement_by_our_spread_alone_has_a_weaker_word():
    "Beyond the floor only our own scatter makes the two agree; inside the floor any two implementations would"
    values = (0.90, 0.92, 0.94)
    for delta, said in (
        (0.29, "reproduced"),
        (0.31, "within our spread"),
        (4.6, "within our spread"),
        (4.7, "differs"),
    ):
        assert verdict(records(*values), value=92.0 + delta, n=1, **BARE).verdict == said, delta
    assert (
        verdict(records(*values), value=92.31, std=0.0, n=5, ddof=1).verdict == "reproduced"
    )  # a spread was published


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_than_three_seeds(n):
    v = verdict(records(*[0.9886] * n))
    assert v.verdict == "single run" and v.ours_n == n and v.delta == pytest.approx(0, abs=1e-9) and v.tolerance is None


def test_selection_decides_which_number():
    rs = records(0.9886, 0.9886, 0.9886, last=[0.95, 0.95, 0.95])
    assert verdict(rs).ours == pytest.approx(98.86)  # paper: best validation
    rs = records(0.9886, 0.9886, 0.9886, last=[0.95, 0.95, 0.95], parameters={"momentum": 0.99})
    assert "those of the recipe benchmark_report" in verdict(rs, "report.t2.mnist.bayesbinn.test").reason
    as_there = {"momentum": 0.99, "recipe_of": "benchmark_report"}
    rs = records(0.9886, 0.9886, 0.9886, last=[0.95, 0.95, 0.95], parameters=as_there)
    assert verdict(rs, "report.t2.mnist.bayesbinn.test").ours == pytest.approx(95.0)  # report: last epoch
    assert verdict(rs, "report.t2.mnist.bayesbinn.test").verdict == "differs"


def test_mode_and_mean_are_different_numbers():
    rs = records(0.9886, 0.9886, 0.9886)
    v = verdict(rs, "paper.t2.mnist.bayesbinn_mean.test")
    assert v.verdict == "not comparable" and "no test_accuracy@mean at the best validation epoch" in v.reason
    rs = records(0.90, 0.90, 0.90, name="test_accuracy@mean")
    assert verdict(rs, "paper.t2.mnist.bayesbinn_mean.test").ours == pytest.approx(90.0)
    assert verdict(rs).verdict == "not comparable"


def test_training_accuracy_is_the_running_one():
    assert BY_ID["paper.t10.mnist.bayesbinn.train"].in_records == "train_accuracy"
    assert (
        verdict(records(0.9985, 0.9985, 0.9985, name="train_accuracy"), "paper.t10.mnist.bayesbinn.train").verdict
        == "reproduced"
    )


# --- not comparable, with the reason


@pytest.mark.parametrize(
    "change, reason",
    [
        (dict(stand_in="8x8 digits instead of MNIST"), "stand-in data: 8x8 digits instead of MNIST"),
        (dict(deviations=["half the width", "no dropout"]), "half the width; no dropout"),
        (dict(schedule_epochs=10, epochs=10), "our schedule is 10 epochs long, the published one 500"),
        (dict(schedule_epochs=None), "our schedule is not given, the published one 500"),
        (dict(epochs=10, complete=False), "stopped at epoch 10 of 500"),
    ],
)
def test_not_comparable(change, reason):
    v = verdict(records(0.9886, 0.9886, 0.9886, **change))
    assert v.verdict == "not comparable" and reason in v.reason


def test_stand_in_by_name_joins_but_never_compares():
    v = verdict(records(0.9886, 0.9886, 0.9886, dataset="mnist-standin", stand_in="generated look-alikes"))
    assert v.verdict == "not comparable" and "look-alikes" in v.reason


def test_early_stop_by_its_own_rule_is_complete():
    assert verdict(records(0.9886, 0.9886, 0.9886, epochs=320, complete=True)).verdict == "reproduced"


def test_not_run():
    v = verdict([])
    assert (v.verdict, v.ours, v.ours_n, v.delta) == ("not run", None, 0, None)
    for other in (dict(method="ste"), dict(dataset="cifar10"), dict(experiment="float32-study")):
        assert verdict(records(0.9886, 0.9886, 0.9886, **other)).verdict == "not run"


def test_wall_hours_are_shown_and_never_judged():
    v = verdict(records(0.9, 0.9, 0.9, wall_seconds=7200.0, device="NVIDIA H200"), "report.hours.mnist")
    assert v.verdict == "not comparable" and v.ours == 2.0 and "500 epochs on NVIDIA H200" in v.reason


def test_segmentation_needs_the_same_scoring():
    kw = dict(experiment="segmentation", dataset="isbi2012", name="val_score")
    v = verdict(records(0.42, 0.41, 0.40, **kw), "report.t5.bayesbinn")
    assert v.verdict == "not comparable" and "misaligned" in v.reason
    v = verdict(records(0.42, 0.41, 0.40, parameters={"scoring": "misaligned"}, **kw), "report.t5.bayesbinn")
    assert v.verdict == "reproduced" and v.ours == pytest.approx(0.41)  # a fraction stays a fraction
    v = verdict(records(0.5003, 0.5, 0.4997, parameters={"scoring": "misaligned"}, **kw), "report.t5.bayesbinn")
    assert v.verdict == "differs" and v.tolerance == 0.003


def test_the_run_made_the_published_way_is_preferred_even_under_another_name():
    common = dict(name="val_score", experiment="segmentation", dataset="isbi2012", epochs=500, schedule_epochs=500)
    aligned = records(0.1, 0.1, 0.1, parameters={"scoring": "aligned"}, row="a", **common)
    displaced = records(
        0.41, 0.41, 0.41, parameters={"scoring": "misaligned"}, row="b", arm="bayesbinn-misaligned", **common
    )
    for rs in (aligned + displaced, displaced + aligned):
        v = verdict(rs, id="report.t5.bayesbinn")
        assert (v.row, v.verdict) == ("b", "reproduced"), v
    assert verdict(aligned, id="report.t5.bayesbinn").verdict == "not comparable"


def test_errors_have_no_floor():
    kw = dict(
        experiment="snelson_temperature",
        dataset="snelson",
        name="train_mse",
        epochs=5000,
        schedule_epochs=5000,
        parameters={"temperature": 1.0},
    )
    v = verdict(records(0.30, 0.3001, 0.2999, **kw), "report.t4.tau1")  # published: .208, one run
    assert v.verdict == "differs" and v.tolerance < 0.001
    assert verdict(records(0.15, 0.20, 0.25, **kw), "report.t4.tau1").verdict == "within our spread"


# --- settings that nobody published


def as_benchmark(dataset="mnist", method="bayesbinn", recipe_of="benchmark", **given):
    "What the benchmark template writes as parameters of a run"
    from bayesbinn_nb.library.recipes import recipe

    plan = recipe(dataset, method, recipe_of)
    plan["method_kwargs"] |= given.get("method_kwargs", {})
    plan["data"] |= {"validation": given["validation"]} if given.get("validation") is not None else {}
    plan |= {k: given[k] for k in ("batch_size", "mean_samples") if given.get(k) is not None}
    return {k: plan[k] for k in ("batch_size", "data", "model", "method_kwargs", "schedule", "mean_samples")} | {
        k: v for k, v in plan["method_kwargs"].items() if isinstance(v, (int, float, str))
    }


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(method_kwargs={"lr": 1e-2}), "lr = 0.01"),
        (dict(method_kwargs={"momentum": 0.9, "eps": 1e-6}), "momentum = 0.9, eps = 1e-06"),
        (dict(batch_size=50), "batch_size = 50"),
        (dict(validation=0.2), "validation = 0.2"),
        (dict(recipe_of="lrnet_comparison"), "model = lrnet_mnist, validation = 0"),
        (dict(method_kwargs={"lr": 1e-2}, batch_size=50), "batch_size = 50, lr = 0.01"),
    ],
)
def test_settings_that_nobody_published_are_not_comparable(change, said):
    assert verdict(records(0.9880, 0.9885, 0.9875, parameters=as_benchmark())).verdict == "reproduced"
    v = verdict(records(0.9880, 0.9885, 0.9875, parameters=as_benchmark(**change)))
    assert v.verdict == "not comparable" and sorted(
        v.reason.removeprefix("other settings than the published ones: ").split(", ")
    ) == sorted(said.split(", ")), v.reason
    v = verdict(curve(0.9818, parameters=as_benchmark(**change)), "logs.mnist.bayesbinn.e10.test")
    assert v.verdict == "not comparable" and "other settings" in v.reason
    both = records(0.9880, 0.9885, 0.9875, parameters=as_benchmark(**change)) + records(
        0.9880, 0.9885, 0.9875, parameters=as_benchmark(), row="published"
    )
    assert verdict(both).row == "published"  # the run made the published way is still found


def test_a_setting_that_the_number_names_is_published():
    sweep = records(
        0.9882,
        0.9882,
        0.9882,
        experiment="sweep-temperature",
        parameters=as_benchmark(method_kwargs={"temperature": 1e-8}),
    )
    assert verdict(sweep, "paper.t7.tau1e-8.test").verdict == "reproduced"
    sweep = records(
        0.9882,
        0.9882,
        0.9882,
        experiment="sweep-temperature",
        parameters=as_benchmark(method_kwargs={"temperature": 1e-8, "momentum": 0.9}),
    )
    assert verdict(sweep, "paper.t7.tau1e-8.test").reason.endswith(": momentum = 0.9")
    pmf = dict(method="pmf", epochs=200, schedule_epochs=200)
    assert (
        verdict(
            records(
                0.988,
                0.988,
                0.988,
                parameters=as_benchmark(method="pmf", method_kwargs={"jacobian": "released"}),
                **pmf,
            ),
            "paper.t10.mnist.pmf.test",
        ).verdict
        == "reproduced"
    )
    assert (
        "other settings"
        in verdict(
            records(
                0.988,
                0.988,
                0.988,
                parameters=as_benchmark(method="pmf", method_kwargs={"jacobian": "released", "beta_every": 10}),
                **pmf,
            ),
            "paper.t10.mnist.pmf.test",
        ).reason
    )


def test_the_draws_of_a_mean_prediction_count_only_for_it():
    few = as_benchmark(mean_samples=3)
    assert verdict(records(0.9880, 0.9885, 0.9875, parameters=few)).verdict == "reproduced"
    rs = records(0.9885, 0.9885, 0.9885, name="test_accuracy@mean", parameters=few)
    assert verdict(rs, "paper.t2.mnist.bayesbinn_mean.test").reason.endswith("mean_samples = 3")


def toy(**kw):
    return (
        dict(
            temperature=1.0,
            steps=5000,
            lr=1e-4,
            lr_end=1e-5,
            init_lambda=10.0,
            momentum=0.99,
            samples=1,
            mean="lagged",
            mean_samples=10,
        )
        | kw
    )


def bop(**kw):
    return (
        dict(
            recipe_of="bop_cifar10_report",
            batch_size=50,
            batch_norm=True,
            validation=0.1,
            still_epochs=10,
            adaptivity_rate=1e-3,
            threshold=1e-7,
            decay=0.1,
            decay_every=100,
            initial_momentum="first_gradient",
            convention="report",
        )
        | kw
    )


def latent(**kw):
    return dict(lr=1e-3, batch_size=64, data={"validation": 0.0, "inputs": "signed", "augment": False}) | kw


def arm(**kw):
    return dict(setting="glorot_sgd_1", lr=1.0, clip_weights=1.0, bn_lr=1.0, batch_size=64) | kw


@pytest.mark.parametrize(
    "id, parameters, changes, kw",
    [
        (
            "report.t4.tau1",
            toy,
            [
                ("lr", 1e-3),
                ("lr_end", 1e-6),
                ("init_lambda", 1.0),
                ("momentum", 0.0),
                ("samples", 5),
            ],
            dict(experiment="snelson-temperature", name="train_mse", epochs=5000),
        ),
        (
            "bop_report.cifar10.g1e-3_t1e-7",
            bop,
            [("batch_size", 100), ("validation", 0.2), ("still_epochs", 1)],
            dict(experiment="bop-cifar10", epochs=320, schedule_epochs=500),
        ),
        (
            "bop_report.t1.mnist.binary",
            latent,
            [("lr", 1e-2), ("batch_size", 8)],
            dict(experiment="latent-weights", arm="binary", epochs=6),
        ),
        (
            "bop_report.f1.mnist.glorot_sgd_1",
            arm,
            [("batch_size", 16)],
            dict(experiment="arbitrary-learning-rate", arm="glorot_sgd_1", name="train_accuracy", epochs=100),
        ),
    ],
)
def test_the_other_templates_are_held_to_their_recipes(id, parameters, changes, kw):
    p = BY_ID[id]

    def make(**change):
        return records(
            0.5,
            0.5,
            0.5,
            dataset=p.dataset,
            method=p.method,
            parameters=parameters(**change),
            **(dict(schedule_epochs=kw["epochs"]) | kw),
        )

    assert verdict(make(), id).verdict in ("reproduced", "differs", "within our spread"), verdict(make(), id).reason
    for name, value in changes:
        v = verdict(make(**{name: value}), id)
        assert v.verdict == "not comparable" and v.reason.startswith(
            f"other settings than the published ones: {name} = "
        ), (name, v.reason)


def test_no_validation_split_was_published_once():
    def make(v):
        return records(
            0.89,
            0.89,
            0.89,
            dataset="cifar10",
            method="bop",
            experiment="bop-cifar10",
            epochs=320,
            schedule_epochs=320,
            parameters=bop(validation=v, still_epochs=None),
        )

    assert verdict(make(0.0), "bop_report.cifar10.noval").verdict == "reproduced"
    assert verdict(make(0.1), "bop_report.cifar10.noval").reason.endswith("validation = 0.1")


@pytest.mark.parametrize("suite", ["short", "paper"])
def test_no_row_of_the_suites_has_a_setting_that_nobody_published(suite):
    seen = 0
    for line in load_suite(suite).rows:
        if line.template.stem != "benchmark" or line.params.get("model_kwargs"):
            continue
        own = {k: p.default for k, p in template_parameters(line.template).items()} | line.params
        (record,) = records(
            0.9,
            dataset=own["dataset"],
            method=own["method"],
            experiment=own["experiment"],
            parameters=as_benchmark(**own),
        )
        for p in (BY_ID[i] for i in line.published):
            if not joins(p, record) or p.predict == "mean":
                continue
            seen += 1
            assert other_settings(p, record) == {}, (line.name, p.id)
    assert seen > 50


def test_longer_than_published_and_rarely_validated_are_not_comparable():
    assert (
        "trained to epoch 600; the published run ended at epoch 500"
        in verdict(records(0.9886, 0.9886, 0.9886, epochs=600)).reason
    )
    history = {"epoch": [[1, 2]] * 3, "val_accuracy": [[None, 0.9]] * 3}
    assert "not every epoch was validated" in verdict(records(0.9886, 0.9886, 0.9886, history=history)).reason
    assert (
        verdict(
            records(0.9886, 0.9886, 0.9886, history=history), "paper.t10.mnist.bayesbinn.test", selection="last"
        ).verdict
        == "reproduced"
    )  # the last epoch, not the best


# --- curves


def curve(*tests, epochs=10, at=10, **kw):
    return records(
        *tests,
        epochs=epochs,
        complete=False,
        history={"epoch": [[1, at]] * len(tests), "test_accuracy": [[0.5, t] for t in tests]},
        **kw,
    )


def test_on_and_off_the_curve():
    id = AT_10
    v = verdict(curve(0.9850), id)
    assert v.verdict == "on the curve" and v.tolerance == pytest.approx(3 * row(id).std) and v.ours_n == 1
    assert verdict(curve(0.9852), id).verdict == "off the curve"
    assert verdict(curve(0.9784, 0.9784, 0.9784), id).verdict == "off the curve"


def test_curve_without_published_spread():
    "Every point of the logs has one; the report's LR-Net number, a moment of a longer cosine, has none"

    def say(*values):
        return verdict(curve(*values), AT_10, **BARE)

    assert say(0.9818).verdict == "single run" and "no published spread" in say(0.9818).reason
    v = say(0.980, 0.981, 0.982)
    assert v.verdict == "on the curve" and v.tolerance == pytest.approx(0.3)
    assert say(0.970, 0.971, 0.972).verdict == "off the curve"
    v = say(0.9820, 0.9820, 0.9820)  # three seeds alike by chance: no spread of ours, the floor instead
    assert v.verdict == "on the curve" and v.tolerance == 0.3
    assert say(0.9850, 0.9850, 0.9850).verdict == "off the curve"
    v = say(0.976, 0.978, 0.980)  # 0.38 off and a deviation of 0.2: inside three of ours, beyond the floor
    assert v.verdict == "within our spread" and v.tolerance == pytest.approx(0.6)


def test_curve_wants_the_same_schedule_and_epoch():
    id = "logs.mnist.bayesbinn.e10.test"
    assert "our schedule is 10" in verdict(curve(0.9818, schedule_epochs=10), id).reason
    assert "stopped at epoch 5, before epoch 10" in verdict(curve(0.9818, epochs=5, at=5), id).reason
    v = verdict(curve(0.9818, epochs=12, at=12), id)
    assert v.verdict == "not comparable" and "no test_accuracy at epoch 10" in v.reason
    full = records(0.9886, 0.9886, 0.9886, history={"epoch": [[10, 500]] * 3, "test_accuracy": [[0.9818, 0.9886]] * 3})
    assert verdict(full, id).verdict == "on the curve"  # a moment of a full run


def test_the_last_point_of_a_curve_is_a_full_run():
    assert verdict(records(0.9888, 0.9888, 0.9888), "logs.mnist.bayesbinn.e500.test").verdict == "reproduced"
    assert verdict(curve(0.98), "logs.mnist.bayesbinn.e500.test").verdict == "not comparable"


def test_lrnet_suspect_is_a_curve_point_of_the_long_cosine():
    kw = dict(experiment="lrnet_comparison", dataset="cifar10", epochs=290)
    stopped = dict(complete=False, history={"epoch": [[290]] * 3, "test_accuracy": [[0.8449]] * 3})
    theirs = {"momentum": 0.99, "train_size": 50000, "recipe_of": "lrnet_comparison_report"}
    rs = records(0.8449, 0.8449, 0.8449, parameters=theirs, **kw, **stopped)
    assert verdict(rs, "report.t3.cifar10.bayesbinn").verdict == "on the curve"
    assert "our schedule is 500" in verdict(rs, "paper.t11.cifar10.bayesbinn").reason
    rs = records(0.8449, 0.8449, 0.8449, **kw, **stopped)
    assert "made with momentum: 0.99" in verdict(rs, "report.t3.cifar10.bayesbinn").reason
    rs = records(0.9397, 0.9397, 0.9397, schedule_epochs=290, **kw)
    assert verdict(rs, "paper.t11.cifar10.bayesbinn").verdict == "reproduced"


# --- joining


def test_values_as_numbers_or_texts():
    assert same_value("1e-10", 1e-10) and same_value(1, 1.0) and same_value("binary", "binary")
    assert (
        not same_value(1e-10, 1e-11)
        and not same_value("a", 1.0)
        and not same_value(None, 0.0)
        and not same_value(0.0, 1e-12)
        and same_value(0, 0.0)
    )


@pytest.mark.parametrize(
    "given",
    [
        dict(parameters={"temperature": "1e-8", "lr": 1e-4}),
        dict(settings={"temperature": 1e-8, "lr": 1e-4}),
        dict(
            parameters={"temperature": 1e-8, "lr": None}, settings={"method_kwargs": {"temperature": 1.0, "lr": 1e-4}}
        ),
    ],
)
def test_settings_are_found_wherever_they_stand(given):
    rs = records(0.9882, 0.9882, 0.9882, experiment="sweep", **given)
    assert setting(rs[0], "temperature") in (1e-8, "1e-8") and setting(rs[0], "learning_rate") == 1e-4
    assert verdict(rs, "paper.t7.tau1e-8.test").verdict == "reproduced"
    assert verdict(rs, "paper.t7.tau1e-9.test").verdict == "not run"


def test_the_benchmark_answers_the_sweeps_own_point_but_not_the_reverse():
    kw = dict(settings={"temperature": 1e-10, "lr": 1e-4})
    assert verdict(records(0.9886, 0.9886, 0.9886, **kw), "paper.t7.tau1e-10.test").verdict == "reproduced"
    assert verdict(records(0.9886, 0.9886, 0.9886, experiment="sweep", **kw)).verdict == "not run"


def test_arms():
    kw = dict(experiment="latent_weights", method="ste", epochs=6, schedule_epochs=None)
    rs = records(0.9807, 0.9807, 0.9807, arm="latent+bn", **kw) + records(0.1, 0.1, 0.1, arm="latent", **kw)
    assert verdict(rs, "bop_report.t1.mnist.latent+bn").ours == pytest.approx(98.07)
    assert verdict(rs, "bop_report.t1.mnist.latent").ours == pytest.approx(10.0)
    assert verdict(rs, "bop_report.t1.mnist.binary").verdict == "not run"


def test_choice_among_groups_never_looks_at_the_result():
    good, bad = records(0.9886, 0.9886, 0.9886, row="a", arm="variant"), records(0.90, 0.90, 0.90, row="b")
    assert verdict(good + bad).verdict == verdict(bad + good).verdict == "differs"  # the method's own arm is taken
    more = records(*[0.9886] * 5, row="c")
    assert verdict(bad + more).ours_n == 5  # then more seeds
    short = curve(0.98, suite="short")
    assert verdict(short + bad).verdict == "differs"  # a judgement before a 'not comparable'


def test_runs_of_different_settings_are_not_averaged():
    rs = records(0.9886, 0.9886, parameters={"width": 1}) + [
        r for r in records(0.1, 0.1, 0.1, parameters={"width": 2}) if r.seed == 2
    ]
    assert verdict(rs).ours_n == 2


# --- the published numbers


def test_every_published_number_gets_a_verdict():
    card = scorecard(records(0.9886, 0.9886, 0.9886) + curve(0.98, suite="short"))
    assert [v.id for v in card] == [p.id for p in PUBLISHED]
    assert all(v.verdict in VERDICTS for v in card)
    assert len(set(BY_ID)) == len(PUBLISHED) > 200
    counts = verdict_counts(card)
    assert list(counts) == list(VERDICTS) and sum(counts.values()) == len(PUBLISHED)
    groups = verdict_counts(card, "experiment")
    assert sum(sum(c.values()) for c in groups.values()) == len(PUBLISHED)
    assert counts_table(card)[-1]["all" if "all" in counts_table(card)[-1] else "experiment"] == "all"


# --- tables


def test_tables():
    card = scorecard(records(0.9880, 0.9885, 0.9875), [BY_ID[TABLE10], BY_ID["report.t4.tau1"]])
    markdown = comparison_table(card, runs="runs")
    lines = markdown.splitlines()
    assert len(lines) == 4 and {line.count("|") for line in lines} == {len(COLUMNS) + 1}
    assert "| 98.86 ± 0.05 (5) | [98.80 ± 0.05 (3)](runs/paper/r/r.ipynb) | -0.06 | reproduced |" in lines[2]
    assert "| 0.208 (1) |  |  | not run |" in lines[3]
    html = comparison_table(card, runs="runs", format="html")
    assert html.count("<tr>") == 3 and 'href="runs/paper/r/r.ipynb"' in html
    assert comparison_table(card, columns=("what", "verdict")).splitlines()[0] == "| what | verdict |"
    with pytest.raises(ValueError, match="unknown column"):
        comparison_table(card, columns=("whatever",))
    with pytest.raises(ValueError, match="choose"):
        comparison_table(card, format="pdf")
    assert show_value(None) == "" and show_value(0.1234, percent=False) == "0.123"


def test_html_is_escaped():
    card = scorecard([], [row(note="<b>a|b</b>")])
    assert "<b>" not in comparison_table(card, format="html") and "a&#124;b" in comparison_table(card)


def test_text_report():
    card = scorecard(records(0.9886, 0.9886, 0.9886), [BY_ID[TABLE10], BY_ID["report.t4.tau1"]])
    text = text_report(card)
    assert (
        text.startswith("2 published numbers of tables and texts: 1 reproduced, 1 not run")
        and "1 more are not run" in text
    )
    text = text_report(card, every=True, plan={"report.t4.tau1": ("short", "snelson-t1")})
    assert "bayesbinn batch short --only snelson-t1" in text


def test_collect(tmp_path):
    write_record(tmp_path / "r", records(0.9)[0])
    assert len(collect([tmp_path])) == 1
    (tmp_path / "r" / "seed1.json").write_text("{")
    problems = []
    assert len(collect([tmp_path], problems)) == 1 and len(problems) == 1
    with pytest.raises(SuiteError, match="neither a suite nor a folder 'nowhere'"):
        collect(["nowhere"])


def test_the_suites_plan_numbers_and_points_of_curves():
    plan = planned()
    assert plan["logs.mnist.ste.e12.val"] == ("short", "benchmark-mnist-ste-report")
    assert plan["logs.cifar100.adam.e475.train"] == ("paper", "benchmark-cifar100-adam-report")
    assert plan.keys() <= BY_ID.keys()


@pytest.mark.parametrize("suite", ["short", "paper"])
def test_every_row_has_what_its_numbers_require(suite):
    "No verdict compares a run with a number that was made by other settings: neither by plan nor by accident"
    seen = 0
    for row in load_suite(suite).rows:
        if row.template.stem != "benchmark":
            continue
        given = load_template(row.template).defaults | row.params
        plan = recipe(given["dataset"], given["method"], given["recipe_of"])
        settings = plan["method_kwargs"] | given["method_kwargs"]
        own = {"dataset": given["dataset"], "method": given["method"], "recipe_of": given["recipe_of"]}
        own |= {k: given[k] for k in ("method_kwargs", "validation", "batch_size", "mean_samples")}
        (record,) = records(0.9, parameters=as_benchmark(**own))
        when = given["schedule_when"] or (plan["schedule"] or {}).get("when")
        for id in row.published:
            number = BY_ID[id]
            for name, value in number.requires.items():
                as_asked = (
                    follows_recipe(number, record) if name == "recipe_of" else same_value(settings.get(name), value)
                )
                assert name == "train_size" or as_asked, (row.name, id, name)
            by_the_report = number.requires.get("recipe_of", "").endswith("_report")
            if when in ("epoch_start", "epoch_end"):
                assert when == ("epoch_end" if by_the_report else "epoch_start"), (row.name, id)
            seen += 1
    assert seen > 50


def test_the_papers_bop_does_not_answer_for_the_reports():
    def own(which):
        return records(
            0.9,
            0.9,
            0.9,
            experiment="bop-cifar10",
            dataset="cifar10",
            method="bop",
            row=which,
            parameters=dict(adaptivity_rate=1e-4, threshold=1e-8, recipe_of=which),
        )

    for id, right, other in (
        ("bop_paper.cifar10.bop", "bop_cifar10", "bop_cifar10_report"),
        ("bop_report.cifar10.g1e-4_t1e-8", "bop_cifar10_report", "bop_cifar10"),
    ):
        assert verdict(own(right) + own(other), id).row == right
        assert (
            verdict(own(other), id).verdict == "not comparable"
            and f"those of the recipe {right}" in verdict(own(other), id).reason
        )


def test_lrnet_is_scored_by_its_drawn_networks():
    kw = dict(experiment="lrnet-comparison", method="lrnet", epochs=190, schedule_epochs=190)
    assert verdict(
        records(0.99, 0.99, 0.99, name="test_accuracy@sample", **kw), "paper.t11.mnist.lrnet"
    ).ours == pytest.approx(99.0)
    assert verdict(records(0.99, 0.99, 0.99, **kw), "paper.t11.mnist.lrnet").verdict == "not comparable"


def test_the_reason_is_that_of_the_longest_run():
    short, long = (records(*[0.9] * n, epochs=e, complete=False, row=f"r{e}") for n, e in ((3, 10), (1, 100)))
    assert "stopped at epoch 100 of 500" in verdict(short + long).reason


def test_what_was_reproduced_is_named():
    card = [verdict(records(0.9880, 0.9885, 0.9875)), verdict(records(0.5, 0.5, 0.5))]
    assert reproduced_what(card) == " Reproduced: 1 of *benchmark* (test accuracy)."
    weaker = verdict(records(0.90, 0.92, 0.94), value=95.0, n=1, **BARE)
    assert reproduced_what([*card, weaker]).endswith(". Within our spread: 1 of *benchmark* (test accuracy).")
    assert reproduced_what([]) == ""


# --- every word and both sides of every edge


def moment(*values, epochs=10, **kw):
    "A run stopped at `epochs`, with these test accuracies after epoch 10"
    history = {"epoch": [[1, 10]] * len(values), "test_accuracy": [[0.5, v] for v in values]}
    return records(*values, epochs=epochs, complete=False, history=history, **kw)


def best_of(validations, **kw):
    return records(0.9886, 0.9886, 0.9886, history={"epoch": [1, 2], "val_accuracy": validations}, **kw)


FINE = (0.9884, 0.9886, 0.9888)  # mean 98.86, sample deviation 0.02


def of_lengths(epochs, **kw):
    "Seeds of one run that ended after these epochs"
    return [dataclasses.replace(r, epochs=e) for r, e in zip(records(*FINE, **kw), epochs, strict=True)]


SNELSON = dict(experiment="snelson_temperature", dataset="snelson", name="train_mse", epochs=5000, schedule_epochs=5000)
STUDY = dict(experiment="latent-weights", method="ste", arm="binary", epochs=6, name="test_accuracy")
SCENES = {
    "the same number": (records(*FINE), TABLE10, {}, "reproduced", ""),
    "at the floor": (records(0.9856, 0.9856, 0.9856), TABLE10, {}, "reproduced", ""),
    "below the floor": (records(0.9855, 0.9855, 0.9855), TABLE10, {}, "differs", ""),
    "above the floor": (records(0.9917, 0.9917, 0.9917), TABLE10, {}, "differs", ""),
    "both spreads": (records(0.90, 0.92, 0.94), TABLE10, dict(value=94.8, std=1.6), "reproduced", ""),
    "beyond both": (records(0.90, 0.92, 0.94), TABLE10, dict(value=94.9, std=1.6), "differs", ""),
    "the report's recipe": (
        records(0.9887, 0.9887, 0.9887, parameters=as_benchmark(recipe_of="benchmark_report")),
        "report.t2.mnist.bayesbinn.test",
        {},
        "reproduced",
        "",
    ),
    "the report's momentum, not its rate": (
        records(0.9887, 0.9887, 0.9887, parameters=as_benchmark(method_kwargs={"momentum": 0.99})),
        "report.t2.mnist.bayesbinn.test",
        {},
        "not comparable",
        "the published number was made with other settings, those of the recipe benchmark_report",
    ),
    "a recipe by its name": (
        records(0.9887, 0.9887, 0.9887, parameters=as_benchmark(recipe_of="benchmark_report") | {"recipe_of": "mine"}),
        "report.t2.mnist.bayesbinn.test",
        {},
        "not comparable",
        "the published number was made with other settings, those of the recipe benchmark_report",
    ),
    "two seeds": (records(0.9886, 0.9886), TABLE10, {}, "single run", "2 seeds"),
    "one seed": (records(0.9886), TABLE10, {}, "single run", "1 seed"),
    "a fraction": (
        records(
            0.41,
            0.41,
            0.41,
            experiment="segmentation",
            dataset="isbi2012",
            name="val_score",
            parameters=dict(scoring="misaligned"),
        ),
        "report.t5.bayesbinn",
        dict(value=0.4129),
        "reproduced",
        "ours is used",
    ),
    "a fraction, too far": (
        records(
            0.41,
            0.41,
            0.41,
            experiment="segmentation",
            dataset="isbi2012",
            name="val_score",
            parameters=dict(scoring="misaligned"),
        ),
        "report.t5.bayesbinn",
        dict(value=0.4131),
        "differs",
        "ours is used",
    ),
    "an error has no floor": (
        records(0.20, 0.21, 0.22, parameters=dict(temperature=1.0), **SNELSON),
        "report.t4.tau1",
        {},
        "within our spread",
        "ours is used",
    ),
    "an error, too far": (
        records(0.24, 0.25, 0.26, parameters=dict(temperature=1.0), **SNELSON),
        "report.t4.tau1",
        {},
        "differs",
        "ours is used",
    ),
    "no spread, floor": (
        records(0.94, 0.95, 0.96),
        TABLE10,
        dict(value=95.29, n=None, **BARE),
        "reproduced",
        "ours is used",
    ),
    "no spread, beyond the floor": (
        records(0.94, 0.95, 0.96),
        TABLE10,
        dict(value=95.31, n=None, **BARE),
        "within our spread",
        "ours is used",
    ),
    "one run, our spread": (
        records(0.94, 0.95, 0.96),
        TABLE10,
        dict(value=97.30, n=None, **BARE),
        "within our spread",
        "ours is used",
    ),
    "one run, too far": (
        records(0.94, 0.95, 0.96),
        TABLE10,
        dict(value=97.32, n=None, **BARE),
        "differs",
        "ours is used",
    ),
    "on the curve": (moment(0.9850), AT_10, dict(value=98.18, std=0.11), "on the curve", ""),
    "on the curve, just": (moment(0.9851), AT_10, dict(value=98.18, std=0.11), "on the curve", ""),
    "off the curve": (moment(0.9852), AT_10, dict(value=98.18, std=0.11), "off the curve", ""),
    "off the curve, below": (moment(0.9784, 0.9784, 0.9784), AT_10, dict(value=98.18, std=0.11), "off the curve", ""),
    "no floor on a curve": (moment(0.9828), AT_10, dict(value=98.18, std=0.03), "off the curve", ""),
    "no yardstick": (moment(0.9818, 0.9818), AT_10, BARE, "single run", "no published spread"),
    "our yardstick": (
        moment(0.976, 0.978, 0.980),
        AT_10,
        dict(value=98.38, **BARE),
        "within our spread",
        "ours is used",
    ),
    "our yardstick, off": (
        moment(0.976, 0.978, 0.980),
        AT_10,
        dict(value=98.42, **BARE),
        "off the curve",
        "ours is used",
    ),
    "our yardstick, floor": (moment(0.98, 0.98, 0.98), AT_10, dict(value=98.3, **BARE), "on the curve", "ours is used"),
    "a moment of a whole run": (
        records(*FINE, history={"epoch": [10, 500], "test_accuracy": [0.9818, 0.9886]}),
        AT_10,
        {},
        "on the curve",
        "",
    ),
    "stand-in": (records(*FINE, stand_in="digits"), TABLE10, {}, "not comparable", "stand-in data: digits"),
    "stand-in by name": (
        records(*FINE, dataset="mnist-standin", stand_in="digits"),
        TABLE10,
        {},
        "not comparable",
        "stand-in",
    ),
    "hours": (
        records(*FINE, wall_seconds=7200.0, device="H200"),
        "report.hours.mnist",
        {},
        "not comparable",
        "500 epochs on H200",
    ),
    "current mean": (
        records(*FINE, parameters=dict(mean="current")),
        TABLE10,
        {},
        "not comparable",
        "made with mean: lagged",
    ),
    "no mean told": (records(*FINE, lagged=False), TABLE10, {}, "not comparable", "made with mean: lagged"),
    "a deviation": (records(*FINE, deviations=["a", "b"]), TABLE10, {}, "not comparable", "a; b"),
    "a shorter schedule": (
        records(*FINE, schedule_epochs=10),
        TABLE10,
        {},
        "not comparable",
        "our schedule is 10 epochs long",
    ),
    "no schedule": (records(*FINE, schedule_epochs=None), TABLE10, {}, "not comparable", "our schedule is not given"),
    "none wanted": (
        records(0.96, 0.966, 0.972, schedule_epochs=None, **STUDY),
        "bop_report.t1.mnist.binary",
        {},
        "reproduced",
        "",
    ),
    "any will do": (
        records(0.96, 0.966, 0.972, schedule_epochs=6, **STUDY),
        "bop_report.t1.mnist.binary",
        {},
        "reproduced",
        "",
    ),
    "stopped, of no schedule": (
        records(0.96, 0.966, 0.972, schedule_epochs=6, complete=False, **(STUDY | {"epochs": 3})),
        "bop_report.t1.mnist.binary",
        {},
        "not comparable",
        "stopped at epoch 3 of 6",
    ),
    "one stopped by its own rule before": (
        of_lengths((9, 320, 320), history={"epoch": [10], "test_accuracy": [0.9818]}),
        AT_10,
        {},
        "not comparable",
        "stopped at epoch 9, before epoch 10",
    ),
    "one of three too long": (of_lengths((500, 500, 501)), TABLE10, {}, "not comparable", "trained to epoch 501"),
    "one of three unseen": (
        [*best_of([0.8, 0.9])[:2], *best_of([None, 0.9])[2:]],
        TABLE10,
        {},
        "not comparable",
        "not every epoch was validated",
    ),
    "a setting that no recipe has": (
        records(*FINE, parameters=dict(method_kwargs=dict(eps=1e-6))),
        TABLE10,
        {},
        "not comparable",
        "eps = 1e-06",
    ),
    "true is no number": (
        records(*FINE, parameters=dict(method_kwargs=dict(momentum=False))),
        TABLE10,
        {},
        "not comparable",
        "momentum = False",
    ),
    "stopped early": (moment(*FINE), TABLE10, {}, "not comparable", "stopped at epoch 10 of 500"),
    "one of three stopped": (
        [*records(*FINE[:2]), *moment(*FINE)[2:]],
        TABLE10,
        {},
        "single run",
        "2 seeds",
    ),
    "by its own rule": (records(*FINE, epochs=320), TABLE10, {}, "reproduced", ""),
    "not yet there": (moment(0.98, epochs=9), AT_10, {}, "not comparable", "stopped at epoch 9, before epoch 10"),
    "just there": (moment(0.9818, epochs=10), AT_10, {}, "on the curve", ""),
    "past it": (moment(0.9818, epochs=11), AT_10, {}, "on the curve", ""),
    "too long": (records(*FINE, epochs=501), TABLE10, {}, "not comparable", "trained to epoch 501"),
    "too long for a curve is no matter": (
        records(*FINE, epochs=501, history={"epoch": [10], "test_accuracy": [0.9818]}),
        AT_10,
        {},
        "on the curve",
        "",
    ),
    "an epoch unseen": (best_of([None, 0.9]), TABLE10, {}, "not comparable", "not every epoch was validated"),
    "all seen": (best_of([0.8, 0.9]), TABLE10, {}, "reproduced", ""),
    "unseen, but the last counts": (best_of([None, 0.9]), TABLE10, dict(selection="last"), "reproduced", ""),
    "unseen on a curve": (
        records(*FINE, history={"epoch": [1, 10], "val_accuracy": [None, 0.9], "test_accuracy": [0.9, 0.9818]}),
        AT_10,
        dict(selection="best_validation"),
        "on the curve",
        "",
    ),
    "another rate": (
        records(*FINE, parameters=dict(method_kwargs=dict(lr=0.01))),
        TABLE10,
        {},
        "not comparable",
        "lr = 0.01",
    ),
    "the published rate": (
        records(*FINE, parameters=dict(method_kwargs=dict(lr="1e-4"))),
        TABLE10,
        {},
        "reproduced",
        "",
    ),
    "another split": (
        records(*FINE, parameters=dict(data=dict(validation=0.2))),
        TABLE10,
        {},
        "not comparable",
        "validation = 0.2",
    ),
    "draws that were not used": (records(*FINE, parameters=dict(mean_samples=3)), TABLE10, {}, "reproduced", ""),
    "draws that were": (
        records(*FINE, name="test_accuracy@mean", parameters=dict(mean_samples=3)),
        "paper.t2.mnist.bayesbinn_mean.test",
        {},
        "not comparable",
        "mean_samples = 3",
    ),
    "a setting of the number's own": (
        records(*FINE, experiment="sweep-temperature", parameters=dict(method_kwargs=dict(temperature=1e-8, lr=1e-4))),
        "paper.t7.tau1e-8.test",
        {},
        "reproduced",
        "",
    ),
    "a setting beside it": (
        records(
            *FINE,
            experiment="sweep-temperature",
            parameters=dict(method_kwargs=dict(temperature=1e-8, lr=1e-4, momentum=0.9)),
        ),
        "paper.t7.tau1e-8.test",
        {},
        "not comparable",
        "momentum = 0.9",
    ),
    "not measured": (
        records(*FINE),
        "paper.t2.mnist.bayesbinn_mean.test",
        {},
        "not comparable",
        "no test_accuracy@mean at the best",
    ),
    "not measured at the end": (
        records(*FINE),
        "paper.t2.mnist.bayesbinn_mean.test",
        dict(selection="last"),
        "not comparable",
        "no test_accuracy@mean",
    ),
    "not measured then": (
        records(*FINE, history={"epoch": [9, 11], "test_accuracy": [0.9, 0.9]}),
        AT_10,
        {},
        "not comparable",
        "no test_accuracy at epoch 10",
    ),
    "earlier code, agrees": (
        records(*FINE, extra={EARLIER: "replayed"}),
        TABLE10,
        {},
        "earlier commit",
        "by today's rules reproduced; replayed",
    ),
    "earlier code, differs": (records(0.9, 0.9, 0.9, extra={EARLIER: "replayed"}), TABLE10, {}, "differs", "replayed"),
    "earlier code, on the curve": (
        moment(0.9818, extra={EARLIER: "replayed"}),
        AT_10,
        {},
        "earlier commit",
        "by today's rules on the curve",
    ),
    "earlier code, off the curve": (moment(0.5, extra={EARLIER: "replayed"}), AT_10, {}, "off the curve", "replayed"),
    "no record": ([], TABLE10, {}, "not run", ""),
    "other data": (records(*FINE, dataset="cifar10"), TABLE10, {}, "not run", ""),
    "another method": (records(*FINE, method="ste"), TABLE10, {}, "not run", ""),
    "another experiment": (records(*FINE, experiment="float32-study"), TABLE10, {}, "not run", ""),
    "another point of the sweep": (
        records(*FINE, parameters=dict(temperature=1e-9)),
        "paper.t7.tau1e-8.test",
        {},
        "not run",
        "",
    ),
    "the benchmark in the sweep": (
        records(*FINE, parameters=dict(temperature=1e-10, lr=1e-4)),
        "paper.t7.tau1e-10.test",
        {},
        "reproduced",
        "",
    ),
    "the stronger statement": (records(0.9, 0.9, row="a") + records(*FINE, row="b"), TABLE10, {}, "reproduced", ""),
    "a judgement before none": (moment(*FINE, row="a") + records(0.9886, row="b"), TABLE10, {}, "single run", "1 seed"),
    "today's code first": (
        records(*[0.9] * 5, row="a", extra={EARLIER: "x"}) + records(*FINE, row="b"),
        TABLE10,
        {},
        "reproduced",
        "",
    ),
    "its own arm first": (
        records(*[0.9] * 5, row="a", arm="variant") + records(*FINE, row="b"),
        TABLE10,
        {},
        "reproduced",
        "",
    ),
    "more seeds first": (
        records(0.9, 0.9, 0.9, row="a") + records(*FINE, 0.9886, row="b"),
        TABLE10,
        {},
        "reproduced",
        "",
    ),
    "the paper suite first": (
        records(0.9, 0.9, 0.9, row="a", suite="short") + records(*FINE, row="b"),
        TABLE10,
        {},
        "reproduced",
        "",
    ),
    "float32 first": (
        records(0.9, 0.9, 0.9, row="a", dtype="bfloat16") + records(*FINE, row="b"),
        TABLE10,
        {},
        "reproduced",
        "",
    ),
    "the longest where none compares": (
        moment(0.9, row="a") + moment(0.9, epochs=100, row="b"),
        TABLE10,
        {},
        "not comparable",
        "epoch 100",
    ),
    "required settings first": (
        records(*[0.9] * 5, row="a", parameters=dict(mean="current")) + moment(0.98, row="b"),
        TABLE10,
        {},
        "not comparable",
        "stopped",
    ),
}


def outcome(scorecard, scene):
    "What a scorecard made by these rules says of a scene"
    rs, id, change, *_ = scene
    (v,) = scorecard(rs, [row(id, **change)])
    numbers = [None if x is None else round(x, 6) for x in (v.ours, v.ours_std, v.delta, v.tolerance)]
    return v.verdict, v.reason, v.row, v.ours_n, *numbers


@pytest.mark.parametrize("name", SCENES)
def test_scenes(name):
    *_, said, reason = SCENES[name]
    got = outcome(scorecard, SCENES[name])
    assert got[0] == said and reason in got[1], got
    if not reason:
        assert got[1] == ""


def test_the_scenes_know_every_word_and_every_rule():
    assert {scene[3] for scene in SCENES.values()} == set(VERDICTS)
    spoken = set()
    for rs, id, change, *_ in SCENES.values():
        p = row(id, **change)
        spoken |= {rule for rule in RULES for run in report.runs(rs) if rule(p, run)}
    assert spoken == set(RULES)


# --- a rule turned round must fail


class Mutant(ast.NodeTransformer):
    "Changes the n-th place where something can be turned round; counts the places"

    INVERSE = {
        ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
        ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    }  # fmt: skip
    EDGE = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
    NAMES = {"max": "min", "min": "max", "all": "any", "any": "all"}

    def __init__(self, n):
        self.n, self.places, self.done = n, 0, ""

    def _here(self, node, text):
        self.places += 1
        if self.places - 1 != self.n:
            return False
        self.done = f"line {node.lineno}: {text}"
        return True

    def visit_Compare(self, node):
        self.generic_visit(node)
        old = type(node.ops[0])
        for kind, table in (("inverted", self.INVERSE), ("edge", self.EDGE)):
            if old in table and self._here(node, f"{kind} {ast.unparse(node)}"):
                node.ops[0] = table[old]()
        return node

    def visit_BoolOp(self, node):
        self.generic_visit(node)
        if self._here(node, f"and ↔ or in {ast.unparse(node)}"):
            node.op = self.INVERSE[type(node.op)]()
        return node

    def visit_UnaryOp(self, node):
        self.generic_visit(node)
        if isinstance(node.op, ast.Not) and self._here(node, f"without not: {ast.unparse(node)}"):
            return node.operand
        return node

    def visit_BinOp(self, node):
        self.generic_visit(node)
        swap = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
        if type(node.op) in swap and self._here(node, f"operation in {ast.unparse(node)}"):
            node.op = swap[type(node.op)]()
        return node

    def visit_Constant(self, node):
        number = isinstance(node.value, (int, float)) and not isinstance(node.value, bool) and node.value > 0
        if number and self._here(node, f"another number than {node.value}"):
            return ast.copy_location(ast.Constant(node.value + 1), node)
        return node

    def visit_Name(self, node):
        if node.id in self.NAMES and self._here(node, f"{self.NAMES[node.id]} instead of {node.id}"):
            return ast.copy_location(ast.Name(self.NAMES[node.id], node.ctx), node)
        return node


# what decides a verdict
RULING = {
    *(rule.__name__ for rule in RULES),
    *("tolerance", "too_few_runs", "word", "judge", "ENOUGH"),
    *("joins", "setting", "same_value", "other_settings", "follows_recipe", "_preference", "scorecard"),
}
WITHOUT_EFFECT = {  # turned round, these change nothing that can be seen
    "edge abs(delta) > allowed + ROUNDING": "the edge itself lies where no difference of two printed numbers can lie",
    "edge abs(delta) > published.measure.floor + ROUNDING": "the same",
}


def rules_turned_round():
    "(what was changed, a scorecard function with this change), one after the other"
    source = Path(report.__file__).read_text(encoding="utf-8")
    parts = [n for n in ast.parse(source).body if isinstance(n, (ast.FunctionDef, ast.Assign))]
    names = [{p.name} if isinstance(p, ast.FunctionDef) else {ast.unparse(t) for t in p.targets} for p in parts]
    whole = [compile(ast.Module([part], []), "rules", "exec") for part in parts]
    for i in (i for i, some in enumerate(names) if RULING & some):
        for n in itertools.count():
            mutant = Mutant(n)
            changed = ast.fix_missing_locations(mutant.visit(copy.deepcopy(parts[i])))
            if not mutant.done:
                break
            namespace = dict(vars(report))
            for k, code in enumerate(whole):
                exec(compile(ast.Module([changed], []), "mutant", "exec") if k == i else code, namespace)
            namespace["_recipe_settings"] = report._recipe_settings  # the recipes are read once
            yield mutant.done, namespace["scorecard"]


def test_a_rule_turned_round_fails():
    right = {name: outcome(scorecard, scene) for name, scene in SCENES.items()}
    survivors, count = [], 0
    for change, rules in rules_turned_round():
        count += 1
        if change.split(": ", 1)[1] in WITHOUT_EFFECT:
            continue
        for name, scene in SCENES.items():
            try:
                if outcome(rules, scene) != right[name]:
                    break
            except Exception:
                break
        else:
            survivors.append(change)
    assert count > 60 and not survivors, "\n".join(survivors)


# --- nothing is decided by prose


def test_rewording_every_note_and_source_changes_no_verdict():
    said = [scene[0] for scene in SCENES.values()]
    rs = [r for some in said for r in some]
    for i, r in enumerate(rs):
        r.seed = i  # all of them at once, as runs of their own
    texts = itertools.cycle(
        ["Lorem ipsum.", "no validation split, 7 epochs", "paper v4, 500-epoch cosine", "dolor sit"]
    )
    other = [dataclasses.replace(p, note=next(texts), source=next(texts)) for p in PUBLISHED]
    before, after = scorecard(rs), scorecard(rs, other)
    assert len({v.verdict for v in before}) > 4
    for a, b in zip(before, after, strict=True):
        assert dataclasses.replace(a, published=b.published) == b


# --- bad input: named, skipped, counted, and an exit code


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(deviations=[[[[1]]]]), "deviations must be sentences; one is [[[1]]]"),
        (dict(parameters={"data": 2**63}), "parameters['data'] must hold names and values, not 9223372036854775808"),
        (dict(settings={"method_kwargs": ["lr"]}), "settings['method_kwargs'] must hold names and values"),
        (dict(metrics={"last": {"a" * 1000: 10**400}}), "metrics are finite numbers"),
        (dict(history={"epoch": [10**400]}), "use None where nothing was measured"),
    ],
)
def test_a_record_that_cannot_be_judged_is_refused_in_a_sentence(tmp_path, change, said):
    with pytest.raises(RecordError) as e:
        write_record(tmp_path, dataclasses.replace(records(0.9)[0], **change))
    assert said in str(e.value) and len(str(e.value)) < 300 and "\n" not in str(e.value)


def test_a_record_nested_beyond_reading_is_one_sentence(tmp_path):
    (tmp_path / "seed0.json").write_text('{"a":' * 100_000)
    with pytest.raises(RecordError, match="seed0.json is not whole JSON"):
        read_record(tmp_path / "seed0.json")


def test_report_names_what_it_cannot_read_goes_on_and_fails_at_the_end(tmp_path, monkeypatch, capsys):
    from bayesbinn_nb.repro.cli import main

    for r in records(*FINE):
        write_record(tmp_path / "runs" / "r", r)
    (tmp_path / "runs" / "r" / "seed9.json").write_text("{}")
    good = (experiments_dir() / "published.yaml").read_text(encoding="utf-8")
    (tmp_path / "published.yaml").write_text(good + "- {id: mine, value: much}\n- [[]]\n", encoding="utf-8")
    (tmp_path / "curves.csv").write_text("nothing", encoding="utf-8")
    monkeypatch.setattr(published_module, "experiments_dir", lambda: tmp_path)
    with pytest.raises(SystemExit) as e:
        raise SystemExit(main(["report", "--suite", str(tmp_path / "runs")]))
    out, err = capsys.readouterr()
    assert e.value.code == 1
    assert "181 published numbers of tables and texts: 1 reproduced" in out
    assert "r/seed9.json" in err and "mine: field 'value' must be" in err and "curves.csv: the first line" in err
    assert "4 records or published numbers could not be read" in err


def test_settings_of_the_wrong_kind_do_not_stop_the_scorecard():
    "A record made in memory is not validated"
    rs = records(*FINE, parameters={"data": 3, "method_kwargs": "lr"}, settings={"method_kwargs": None})
    assert verdict(rs).verdict == "reproduced"


# --- counting


def test_points_of_curves_are_counted_apart():
    card = scorecard(records(*FINE, history={"epoch": [10, 500], "test_accuracy": [0.9818, 0.9886]}))
    tables, curves = counted_apart(card).values()
    assert len(tables) + len(curves) == len(card) and all(v.published.on_a_curve for v in curves)
    assert verdict_counts(curves)["on the curve"] == 1 and verdict_counts(tables)["on the curve"] == 0
    text = counts_sentence(card)
    assert (
        text.startswith("181 published numbers of tables and texts: ") and "; 945 points of published training" in text
    )
    assert counts_sentence(tables).count(";") == 0 and counts_sentence([]) == ""


def test_all_reached_epochs_of_a_curve_are_judged():
    points = [p for p in load_curves() if (p.dataset, p.method, p.split) == ("mnist", "bayesbinn", "test")]
    history = {"epoch": list(range(1, 101)), "test_accuracy": [0.98] * 100}
    card = scorecard(records(0.98, epochs=100, complete=False, history=history), points)
    reached = {v.published.epoch for v in card if v.verdict in ("on the curve", "off the curve")}
    assert reached == {p.epoch for p in points if p.epoch <= 100} and len(reached) == 18
    assert all("before epoch" in v.reason for v in card if v.published.epoch > 100 and not v.published.at_the_end)


def test_the_precision_of_a_run_is_named():
    halves = verdict(records(*FINE, dtype="bfloat16"))
    assert halves.verdict == "reproduced" and "computed in bfloat16" in comparison_table([halves])
    assert "computed in" not in comparison_table([verdict(records(*FINE))])
    both = records(*FINE[:2], dtype="bfloat16") + [dataclasses.replace(r, seed=2) for r in records(FINE[2])]
    mixed = verdict(both)
    assert mixed.ours_n == 2  # never averaged with the other, and that is said
    assert "computed in bfloat16, not averaged with the runs in float32" in comparison_table([mixed])


def test_the_text_report_hides_the_points_that_nobody_reached():
    card = scorecard(moment(0.9818), load_curves())
    text = text_report(card)
    assert text.count("\n") < 12 and "epoch 10 " in text and "epoch 500" not in text
    assert "epoch 500" in text_report(card, every=True)
