"""Verdicts: each rule and each edge, on records made by hand."""

import math
import re

import pytest

from bayesbinn_nb.repro.records import Record, write_record
from bayesbinn_nb.repro.report import (
    COLUMNS,
    PMF_EPOCHS,
    SCHEDULES,
    VERDICTS,
    collect,
    comparison_table,
    counts_table,
    joins,
    judge,
    load_published,
    metric_name,
    other_settings,
    planned,
    same_value,
    sample_std,
    schedule_of,
    scorecard,
    setting,
    show_value,
    text_report,
    verdict_counts,
)
from bayesbinn_nb.repro.suites import SuiteError, load_suite, template_parameters

PUBLISHED = load_published()
BY_ID = {p["id"]: p for p in PUBLISHED}
TABLE10 = "paper.t10.mnist.bayesbinn.test"  # 98.86 ± 0.05, ddof 0, n 5


def records(*values, name="test_accuracy", last=None, history=None, **kw):
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
    return [
        Record(
            seed=i,
            metrics={"last": {name: v if last is None else last[i]}, "best_validation": {name: v}},
            history={k: c[i] if isinstance(c[0], list) else c for k, c in (history or {}).items()},
            **base,
        )
        for i, v in enumerate(values)
    ]


def verdict(rs, id=TABLE10, **row):
    return scorecard(rs, [{**BY_ID[id], **row}])[0]


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


def test_population_deviation_is_converted():
    assert sample_std(dict(std=1.0, n=5, ddof=0)) == pytest.approx(math.sqrt(5 / 4))
    assert sample_std(dict(std=1.0, n=5, ddof=1)) == 1.0
    assert sample_std(dict(std=1.0, n=5)) == 1.0
    assert sample_std(dict(std=1.0, n=1, ddof=0)) == 1.0
    assert sample_std(dict(std=0.0, n=5, ddof=0)) == 0.0
    assert sample_std(dict(n=5)) is None


def test_missing_spread_is_replaced_by_ours():
    row = dict(value=95.0, std=None, n=1, ddof=None)
    v = verdict(records(0.90, 0.92, 0.94), **row)
    assert (
        v.tolerance == pytest.approx(2 * math.sqrt(4 / 3 + 4 / 1))
        and v.verdict == "reproduced"
        and "ours is used" in v.reason
    )
    v = verdict(records(0.90, 0.92, 0.94), **(row | dict(n=5)))
    assert v.tolerance == pytest.approx(2 * math.sqrt(4 / 3 + 4 / 5))
    v = verdict(records(0.90, 0.92, 0.94), **(row | dict(n=None)))
    assert v.tolerance == pytest.approx(2 * math.sqrt(4 / 3 + 4 / 1))


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_than_three_seeds(n):
    v = verdict(records(*[0.9886] * n))
    assert v.verdict == "single run" and v.ours_n == n and v.delta == pytest.approx(0, abs=1e-9) and v.tolerance is None


def test_selection_decides_which_number():
    rs = records(0.9886, 0.9886, 0.9886, last=[0.95, 0.95, 0.95])
    assert verdict(rs).ours == pytest.approx(98.86)  # paper: best validation
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
    assert metric_name(BY_ID["paper.t10.mnist.bayesbinn.train"]) == "train_accuracy"
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
    assert verdict(records(0.15, 0.20, 0.25, **kw), "report.t4.tau1").verdict == "reproduced"


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
                ("mean", "current"),
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
            dataset=p["dataset"],
            method=p["method"],
            parameters=parameters(**change),
            **(dict(schedule_epochs=kw["epochs"]) | kw),
        )

    assert verdict(make(), id).verdict in ("reproduced", "differs"), verdict(make(), id).reason
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
    for row in load_suite(suite).rows:
        if row.template.stem != "benchmark" or row.params.get("model_kwargs"):
            continue
        own = {k: p.default for k, p in template_parameters(row.template).items()} | row.params
        (record,) = records(
            0.9,
            dataset=own["dataset"],
            method=own["method"],
            experiment=own["experiment"],
            parameters=as_benchmark(**own),
        )
        for p in (BY_ID[i] for i in row.published):
            if not joins(p, record) or p.get("predict") == "mean":
                continue
            seen += 1
            assert other_settings(p, record) == {}, (row.name, p["id"])
    assert seen > 50


def test_longer_than_published_and_rarely_validated_are_not_comparable():
    assert (
        "trained to epoch 600; the published run ended at epoch 500"
        in verdict(records(0.9886, 0.9886, 0.9886, epochs=600)).reason
    )
    history = {"epoch": [[1, 2]] * 3, "val_accuracy": [[None, 0.9]] * 3}
    assert "not every epoch was validated" in verdict(records(0.9886, 0.9886, 0.9886, history=history)).reason
    assert (
        verdict(records(0.9886, 0.9886, 0.9886, history=history), "report.t2.mnist.bayesbinn.test").verdict
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
    id = "logs.mnist.bayesbinn.e10.test"  # 98.18 ± 0.11, ddof 1
    v = verdict(curve(0.9850), id)
    assert v.verdict == "on the curve" and v.tolerance == pytest.approx(0.33) and v.ours_n == 1
    assert verdict(curve(0.9852), id).verdict == "off the curve"
    assert verdict(curve(0.9784, 0.9784, 0.9784), id).verdict == "off the curve"


def test_curve_without_published_spread():
    id = "logs.mnist.bayesbinn.e10.val"  # 98.13, no spread

    def make(*t):
        return records(
            *t,
            name="val_accuracy",
            epochs=10,
            complete=False,
            history={"epoch": [[10]] * len(t), "val_accuracy": [[x] for x in t]},
        )

    assert (
        verdict(make(0.9813), id).verdict == "single run" and "no published spread" in verdict(make(0.9813), id).reason
    )
    v = verdict(make(0.980, 0.981, 0.982), id)
    assert v.verdict == "on the curve" and v.tolerance == pytest.approx(0.3)
    assert verdict(make(0.970, 0.971, 0.972), id).verdict == "off the curve"
    v = verdict(make(0.9820, 0.9820, 0.9820), id)  # three seeds alike by chance: no spread of ours, the floor instead
    assert v.verdict == "on the curve" and v.tolerance == 0.3
    assert verdict(make(0.9850, 0.9850, 0.9850), id).verdict == "off the curve"


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
    kw = dict(
        experiment="lrnet_comparison",
        dataset="cifar10",
        history={"epoch": [[290]] * 3, "test_accuracy": [[0.8449]] * 3},
        complete=False,
        epochs=290,
    )
    rs = records(0.8449, 0.8449, 0.8449, **kw)
    assert verdict(rs, "report.t3.cifar10.bayesbinn").verdict == "on the curve"
    assert "our schedule is 500" in verdict(rs, "paper.t11.cifar10.bayesbinn").reason
    rs = records(0.9397, 0.9397, 0.9397, **(kw | dict(complete=True, schedule_epochs=290)))
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
    assert [v.id for v in card] == [p["id"] for p in PUBLISHED]
    assert all(v.verdict in VERDICTS for v in card)
    assert len(set(BY_ID)) == len(PUBLISHED) > 200
    counts = verdict_counts(card)
    assert list(counts) == list(VERDICTS) and sum(counts.values()) == len(PUBLISHED)
    groups = verdict_counts(card, "experiment")
    assert sum(sum(c.values()) for c in groups.values()) == len(PUBLISHED)
    assert counts_table(card)[-1]["all" if "all" in counts_table(card)[-1] else "experiment"] == "all"


def test_published_values_are_numbers():
    for p in PUBLISHED:
        assert isinstance(p["value"], float) and (p.get("std") is None or isinstance(p["std"], float))
        assert all(isinstance(v, (int, float)) or k == "arm" for k, v in (p.get("params") or {}).items()), p["id"]
        if p["metric"] == "accuracy":
            assert 1 < p["value"] <= 100
        assert (
            p["split"] in ("train", "val", "test")
            and p.get("selection") in (None, "last", "best_validation")
            and p.get("predict") in (None, "mode", "mean", "sample")
        )


@pytest.mark.parametrize(
    "id, length",
    {
        TABLE10: 500,
        "paper.t10.cifar10.pmf.test": 112,
        "paper.t11.mnist.lrnet": 190,
        "report.t3.mnist.bayesbinn": 190,
        "report.t3.cifar10.bayesbinn": 500,
        "logs.cifar10.ste.e10.test": 500,
        "report.t4.tau1": 5000,
        "report.t5.ste": 500,
        "bop_report.cifar10.noval": 320,
        "bop_report.f2.g1e-2_t0": 100,
        "bop_report.f1.mnist.glorot_sgd_1": 100,
        "bop_paper.cifar10.bop": 500,
        "bop_report.t1.mnist.binary": None,
    }.items(),
)
def test_schedules(id, length):
    assert schedule_of(BY_ID[id]) == length


def test_schedules_agree_with_the_recipes():
    from bayesbinn_nb.library.recipes import recipe

    for dataset in ("mnist", "cifar10", "cifar100"):
        assert recipe(dataset, "bayesbinn", "benchmark")["epochs"] == SCHEDULES["benchmark"]
        assert recipe(dataset, "pmf", "benchmark")["epochs"] == PMF_EPOCHS[dataset]
    assert recipe("snelson", "bayesbinn")["epochs"] == SCHEDULES["snelson-temperature"]
    assert recipe("cifar10", "bop", "bop_cifar10")["epochs"] == SCHEDULES["bop-cifar10"]


def test_bad_lines_are_named(tmp_path):
    path = tmp_path / "p.yaml"
    line = "id: a, experiment: b, dataset: c, method: d, metric: accuracy, split: test, source: s"
    path.write_text(f"- {{{line}}}")
    with pytest.raises(ValueError, match="a: 'value' is missing"):
        load_published(path)
    path.write_text(f"- {{{line}, value: 1, vale: 2}}")
    with pytest.raises(ValueError, match="a: unknown key 'vale'"):
        load_published(path)


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
    row = BY_ID[TABLE10] | dict(note="<b>a|b</b>")
    card = scorecard([], [row])
    assert "<b>" not in comparison_table(card, format="html") and "a\\|b" in comparison_table(card)


def test_text_report():
    card = scorecard(records(0.9886, 0.9886, 0.9886), [BY_ID[TABLE10], BY_ID["report.t4.tau1"]])
    text = text_report(card)
    assert text.startswith("2 published numbers: 1 reproduced, 1 not run") and "1 numbers are not run" in text
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
    assert isinstance(planned(), dict)


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
            and f"recipe_of: {right}" in verdict(own(other), id).reason
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
    from bayesbinn_nb.repro.report import reproduced_what

    assert (
        reproduced_what([verdict(records(0.9880, 0.9885, 0.9875)), verdict(records(0.5, 0.5, 0.5))])
        == " Reproduced: 1 of *benchmark* (test accuracy)."
    )
    assert reproduced_what([]) == ""
