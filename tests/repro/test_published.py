"""Published numbers: every field of every row, every fault a sentence, the curves as they were computed."""

import csv
import dataclasses
import math
import time

import pytest

from bayesbinn_nb.repro.published import (
    CHECKS,
    CURVE_COLUMNS,
    DOCUMENTS,
    METRICS,
    Published,
    PublishedError,
    curves_of,
    load_curves,
    load_published,
    published_row,
)
from bayesbinn_nb.repro.suites import experiments_dir, load_yaml

ALL = load_published()
BY_ID = {p.id: p for p in ALL}
TABLES = [p for p in ALL if not p.on_a_curve]
CURVES = [p for p in ALL if p.on_a_curve]

ROW = dict(
    id="paper.t10.mnist.ste.test",
    document="paper",
    experiment="benchmark",
    dataset="mnist",
    method="ste",
    metric="accuracy",
    split="test",
    value=98.85,
    std=0.09,
    ddof=0,
    n=5,
    selection="best_validation",
    schedule=500,
    validation=0.1,
    requires={},
    source="paper v4 table 10",
)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def as_yaml(*rows):
    "Rows in YAML's flow style; what is text already stands as it is"
    import json

    return "\n".join(f"- {row if isinstance(row, str) else json.dumps(row)}" for row in rows)


# --- the shipped rows


def test_every_row_says_what_a_comparison_needs():
    "The fields that used to be guessed from notes, sources and the experiment stand in every row of the file"
    rows = load_yaml(experiments_dir() / "published.yaml")
    assert len(rows) == len(TABLES) > 150
    for row in rows:
        assert {"document", "std", "n", "schedule", "validation", "requires"} <= row.keys(), row["id"]
        assert (row["std"] is None) == ("ddof" not in row), row["id"]
        assert row["id"].split(".")[0] == row["document"]


def test_only_the_latent_weight_study_has_no_schedule():
    assert {p.experiment for p in ALL if p.schedule is None} == {"latent-weights"}


@pytest.mark.parametrize(
    "id, length",
    {
        "paper.t10.mnist.bayesbinn.test": 500,
        "paper.t10.mnist.pmf.test": 200,
        "paper.t10.cifar10.pmf.test": 112,
        "report.t2.cifar10.pmf.val": 500,
        "paper.t11.mnist.lrnet": 190,
        "paper.t11.cifar10.lrnet": 450,
        "paper.t11.cifar10.bayesbinn": 290,
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
    assert BY_ID[id].schedule == length


@pytest.mark.parametrize(
    "id, held_out",
    {
        "paper.t10.mnist.ste.test": 0.1,
        "paper.t10.mnist.pmf.val": pytest.approx(1 / 6, rel=1e-6),
        "paper.t11.cifar10.bayesbinn": 0,
        "bop_report.cifar10.g1e-3_t1e-7": 0.1,
        "bop_report.cifar10.noval": 0,
        "bop_paper.cifar10.bop": 0,
        "report.t5.bayesbinn": "slices 24 to 29",
    }.items(),
)
def test_validation_splits(id, held_out):
    assert BY_ID[id].validation == held_out


def test_schedules_and_splits_agree_with_the_recipes():
    from bayesbinn_nb.library.recipes import recipe

    for p in TABLES:
        if p.experiment == "benchmark" and p.document == "paper":
            r = recipe(p.dataset, p.method, "benchmark")
            assert p.schedule == r["epochs"], p.id
            assert p.validation == pytest.approx(r["data"]["validation"], rel=1e-6), p.id
    assert BY_ID["report.t4.tau1"].schedule == recipe("snelson", "bayesbinn")["epochs"]
    assert BY_ID["bop_paper.cifar10.bop"].schedule == recipe("cifar10", "bop", "bop_cifar10")["epochs"]


def test_every_published_number_of_bayesbinn_was_made_with_the_lagged_mean():
    ours = [p for p in ALL if p.method == "bayesbinn"]
    assert len(ours) > 300 and {p.document for p in ours} == {"paper", "paper_early", "report", "logs"}
    assert all(p.requires.get("mean") == "lagged" for p in ours)
    assert not any("mean" in p.requires for p in ALL if p.method != "bayesbinn")


def test_the_reports_own_settings_are_required():
    assert all(p.requires["jacobian"] == "released" for p in ALL if p.method == "pmf")
    for p in ALL:
        of_the_report = p.id.startswith("report.t2.") or (p.document == "logs" and p.method != "bayesbinn")
        if of_the_report and p.method == "bayesbinn":
            assert p.requires["momentum"] == 0.99, p.id
            assert p.requires.get("train_size") == (None if p.dataset == "mnist" else 45000), p.id
        if p.method in ("ste", "adam") and p.experiment in ("benchmark", "curve"):
            assert ("clip_gradients" in p.requires) == of_the_report, p.id
    assert BY_ID["report.t2.cifar100.bayesbinn.test"].requires["temperature"] == 1e-10


def test_ids_of_the_shipped_numbers_are_unique():
    assert len(BY_ID) == len(ALL)


# --- properties


def test_a_population_deviation_is_converted():
    p = published_row(ROW | dict(std=1.0))
    assert p.sample_std == pytest.approx(math.sqrt(5 / 4))
    assert published_row(ROW | dict(std=1.0, n=2)).sample_std == pytest.approx(math.sqrt(2))
    assert published_row(ROW | dict(std=1.0, ddof=1)).sample_std == 1.0
    assert published_row(ROW | dict(std=0.0)).sample_std == 0.0
    assert published_row(ROW | dict(std=None, ddof=None, n=None)).sample_std is None


def test_the_reports_deviations_are_those_of_its_logs():
    "Where all five logs of the report are whole, its table prints their population deviation"
    last = BY_ID["logs.cifar100.ste.e500.test"]
    printed = BY_ID["report.t2.cifar100.ste.test"]
    assert last.n == printed.n == 5 and printed.ddof == 0
    assert round(last.std * math.sqrt(4 / 5), 2) == pytest.approx(printed.std, abs=0.011)
    assert abs(last.std - printed.std) > 0.02  # it is not the sample deviation
    val = BY_ID["logs.cifar100.ste.e500.val"]
    assert BY_ID["report.t2.cifar100.ste.val"].std == round(val.std * math.sqrt(4 / 5), 2)  # its .06 is the variance
    assert round(val.std**2 * 4 / 5, 2) == 0.06


@pytest.mark.parametrize(
    "id, title",
    {
        "paper.t10.mnist.ste.test": "mnist ste test",
        "paper.t2.mnist.bayesbinn_mean.test": "mnist bayesbinn test mean",
        "paper.t7.tau1e-8.val": "mnist bayesbinn (learning rate 0.0001, temperature 1e-08) val",
        "paper.t11.mnist.lrnet": "mnist lrnet test average draw epoch 190",
        "report.t4.tau1": "snelson bayesbinn (temperature 1) train mse",
        "bop_report.t1.mnist.latent+bn": "mnist ste (latent+bn) test",
        "logs.mnist.ste.e12.val": "mnist ste val epoch 12",
    }.items(),
)
def test_titles(id, title):
    assert BY_ID[id].title == title


def test_names_in_records():
    assert BY_ID["paper.t10.mnist.ste.train"].in_records == "train_accuracy"
    assert BY_ID["paper.t2.mnist.bayesbinn_mean.test"].in_records == "test_accuracy@mean"
    assert BY_ID["paper.t11.mnist.lrnet"].in_records == "test_accuracy@sample"
    assert BY_ID["report.t5.ste"].in_records == "val_score"
    assert BY_ID["report.t4.tau1"].in_records == "train_mse"


def test_the_end_of_a_run_and_a_moment_of_it():
    assert BY_ID["paper.t10.mnist.ste.test"].at_the_end
    assert BY_ID["paper.t11.cifar10.bayesbinn"].at_the_end  # epoch 290 of 290
    assert not BY_ID["report.t3.cifar10.bayesbinn"].at_the_end  # epoch 290 of 500
    assert BY_ID["bop_report.t1.mnist.binary"].at_the_end  # no schedule
    assert BY_ID["logs.mnist.ste.e500.test"].at_the_end and not BY_ID["logs.mnist.ste.e490.test"].at_the_end


def test_a_row_cannot_be_changed_and_can_be_a_key():
    p = BY_ID["paper.t10.mnist.ste.test"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        p.value = 1.0
    assert {p: 1}[dataclasses.replace(p)] == 1


def test_documents_and_metrics_are_those_in_use():
    assert {p.document for p in ALL} == set(DOCUMENTS)
    assert {p.metric for p in ALL} == set(METRICS)
    assert {f.name for f in dataclasses.fields(Published)} == set(CHECKS)


# --- curves


def test_the_curves_are_whole():
    kinds = {(p.dataset, p.method, p.split) for p in CURVES}
    assert len(kinds) == 27 and len(CURVES) == 27 * 35
    for kind in kinds:
        curve = curves_of(*kind, published=CURVES)
        assert len(curve.epochs) == 35 and curve.epochs[0] == 1 and curve.epochs[-1] == 500
        assert curve.epochs == sorted(set(curve.epochs))
        assert all(sd > 0 for sd in curve.sd) and all(3 <= n <= 5 for n in curve.n)
        assert all(0 < m <= 100 for m in curve.mean)


def test_a_point_holds_what_the_table_of_logs_holds():
    with open(experiments_dir() / "curves.csv", encoding="utf-8") as f:
        lines = list(csv.DictReader(f))
    assert len(lines) == len(CURVES)
    for line, p in zip(lines, CURVES, strict=True):
        assert (p.dataset, p.method, p.split) == (line["dataset"], line["method"], line["split"])
        assert (p.epoch, p.value, p.std, p.n) == (
            int(line["epoch"]),
            float(line["mean"]),
            float(line["sd"]),
            int(line["runs"]),
        )
        assert p.ddof == 1 and p.source == line["source"] and p.sample_std == p.std


@pytest.mark.parametrize(
    "id, value",
    {  # rounded once from the logs; rounded twice they read 51.5, 84.0, 57.9
        "logs.cifar10.bayesbinn.e1.val": 51.55,
        "logs.cifar10.bayesbinn.e100.val": 84.05,
        "logs.cifar100.bayesbinn.e50.val": 57.95,
    }.items(),
)
def test_curve_values_are_rounded_once(id, value):
    assert BY_ID[id].value == pytest.approx(value, abs=0.006)


def test_curves_of_takes_given_points_and_knows_what_is_missing():
    points = [p for p in CURVES if p.epoch <= 10]
    curve = curves_of("mnist", "adam", "train", published=points[::-1])
    assert curve.epochs == [1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert curve.mean[0] == BY_ID["logs.mnist.adam.e1.train"].value
    assert curves_of("mnist", "bop", published=CURVES) is None
    assert curves_of("mnist", "adam", published=[]) is None


# --- bad input: one sentence that names the file, the row and the field


@pytest.mark.parametrize(
    "change, said",
    [
        ({"vale": 1}, "unknown field 'vale'"),
        ({"experim,nt": "benchmark"}, "unknown field 'experim,nt'"),
        ({"value": "98"}, "field 'value' must be a finite number ≥ 0, not '98'"),
        ({"value": True}, "field 'value' must be a finite number"),
        ({"value": float("nan")}, "field 'value' must be a finite number ≥ 0, not nan"),
        ({"value": float("inf")}, "field 'value' must be a finite number"),
        ({"value": 10**400}, "field 'value' must be a finite number"),
        ({"value": -1}, "field 'value' must be a finite number ≥ 0, not -1"),
        ({"value": 100.5}, "'value' is 100.5; it is a percentage and at most 100"),
        ({"std": {"a": {"a": 1}}}, "field 'std' must be a finite number ≥ 0, or null"),
        ({"std": -0.1}, "field 'std' must be"),
        ({"metric": 1.5}, "field 'metric' must be one of accuracy, 1-iou-cell, mse, wall_hours, not 1.5"),
        ({"metric": "acc?racy"}, "field 'metric' must be one of"),
        ({"metric": ["accuracy"]}, "field 'metric' must be one of"),
        ({"split": "tset"}, "field 'split' must be one of train, val, test"),
        ({"n": 0}, "field 'n' must be a whole number ≥ 1"),
        ({"n": 2.5}, "field 'n' must be a whole number ≥ 1"),
        ({"ddof": 2}, "field 'ddof' must be one of null, 0, 1"),
        ({"ddof": False}, "field 'ddof' must be one of"),
        ({"ddof": None}, "'ddof' is missing"),
        ({"n": 1}, "'ddof' is 0 and 'n' is 1; a population deviation needs at least 2 runs"),
        ({"n": None}, "'ddof' is 0 and 'n' is None"),
        ({"params": [1]}, "field 'params' must be names with numbers or texts"),
        ({"params": {"temperature": [1]}}, "field 'params' must be"),
        ({"requires": "mean"}, "field 'requires' must be"),
        ({"epoch": 0}, "field 'epoch' must be a whole number ≥ 1"),
        ({"epoch": 501}, "'epoch' is 501, after the end of a schedule of 500 epochs"),
        ({"schedule": "500"}, "field 'schedule' must be a whole number ≥ 1"),
        ({"validation": 1.0}, "field 'validation' must be a share in [0, 1), or a name"),
        ({"validation": None}, "field 'validation' must be"),
        ({"selection": "best"}, "field 'selection' must be one of null, last, best_validation"),
        ({"predict": "median"}, "field 'predict' must be one of null, mode, mean, sample"),
        ({"document": "papr"}, "field 'document' must be one of paper"),
        ({"source": ""}, "field 'source' must be a text"),
        ({"note": None}, "field 'note' must be a text"),
        ({"dataset": 1}, "field 'dataset' must be a text"),
    ],
)
def test_a_wrong_field_is_one_sentence(change, said):
    with pytest.raises(PublishedError) as e:
        published_row(ROW | change, "p.yaml, row 1")
    text = str(e.value)
    assert text.startswith("p.yaml, row 1, paper.t10.mnist.ste.test: ") and said in text
    assert text.endswith(".") and "\n" not in text and len(text) < 320


@pytest.mark.parametrize("name", [f for f in ROW if f not in ("ddof", "selection")])
def test_a_missing_field_is_one_sentence(name):
    with pytest.raises(PublishedError, match=f"field '{name}' is missing"):
        published_row({k: v for k, v in ROW.items() if k != name})


def test_a_row_without_a_usable_id_is_named_by_its_place():
    with pytest.raises(PublishedError, match="^p.yaml, row 7: field 'id' must be letters"):
        published_row(ROW | {"id": ["a"]}, "p.yaml, row 7")


def test_bad_rows_are_skipped_and_the_others_kept(tmp_path):
    path = write(
        tmp_path / "p.yaml",
        as_yaml(ROW, ROW | {"id": "b", "value": ".nan"}, "[[]]", ROW | {"id": "c"}, ROW, "null", "{a: }"),
    )
    problems = []
    assert [p.id for p in load_published(path, problems)] == [ROW["id"], "c"]
    assert len(problems) == 5
    assert problems[0].startswith("p.yaml, row 2, b: field 'value'")
    assert problems[1] == "p.yaml, row 3: a row is fields and values, not [[]]."
    assert problems[2] == f"p.yaml, row 5, {ROW['id']}: an earlier row has the same 'id'."
    assert problems[3] == "p.yaml, row 6: a row is fields and values, not None."
    with pytest.raises(PublishedError, match="row 2, b: field 'value'"):
        load_published(path)


@pytest.mark.parametrize(
    "content, said",
    [
        ("{", "is not valid YAML"),
        ("- {id: a, value: 1", "is not valid YAML"),
        ('- {id: a, n": 5}\n- {id: [}', "is not valid YAML in line 2"),
        ("- {id: a, id: b}", "the key 'id' appears twice"),
        ("id: a", "a list of rows is wanted"),
        ("", "a list of rows is wanted, not None"),
        ("just words", "a list of rows is wanted"),
        ("- \x18", "is not valid YAML"),
        ("- {value: *nothing}", "is not valid YAML"),
        ("- !!python/object:os.system {}", "is not valid YAML"),
        ("[" * 5000, "is not valid YAML in line 1"),
        ("- " + '{"a": ' * 400 + "1" + "}" * 400, "nested more than"),
        ("- {value: 1e999999, std: " + "9" * 5000 + "}", ""),
    ],
)
def test_a_file_that_is_no_list_of_rows_is_one_sentence(tmp_path, content, said):
    path, problems, began = write(tmp_path / "p.yaml", content), [], time.monotonic()
    assert load_published(path, problems) == []
    assert len(problems) == 1 and "\n" not in problems[0]
    assert problems[0].startswith("p.yaml") and said in problems[0], problems[0]
    assert len(problems[0]) < 400 and time.monotonic() - began < 5  # a guard against exponential work, not a timing


def test_bytes_that_are_no_text_and_a_missing_file(tmp_path):
    (tmp_path / "p.yaml").write_bytes(b"- \xff\xfe{")
    for name, said in (("p.yaml", "p.yaml is not UTF-8 text"), ("q.yaml", "q.yaml cannot be read: No such file")):
        problems = []
        assert load_published(tmp_path / name, problems) == [] and said in problems[0]
        with pytest.raises(PublishedError, match=said):
            load_published(tmp_path / name)


HEAD = ",".join(CURVE_COLUMNS)
LINE = "mnist,ste,test,{epoch},96.5,0.1,4,500,0.1,clip_gradients=1.0;init=uniform,report's training logs"


def test_a_curve_is_read_line_by_line(tmp_path):
    path = write(tmp_path / "c.csv", "\n".join([HEAD, LINE.format(epoch=1), LINE.format(epoch=500)]))
    first, last = load_curves(path)
    assert first.id == "logs.mnist.ste.e1.test" and first.requires == {"clip_gradients": 1.0, "init": "uniform"}
    assert (first.selection, last.selection) == (None, "last") and last.at_the_end


@pytest.mark.parametrize(
    "bad, said",
    [
        (LINE.format(epoch="x"), "field 'epoch' must be a whole number"),
        (LINE.format(epoch="").replace("96.5", "nan"), "c.csv, row 2"),
        (LINE.format(epoch=2).replace("96.5", "nan"), "c.csv, row 2, logs.mnist.ste.e2.test: field 'value'"),
        (LINE.format(epoch=2).replace(",4,", ",0,"), "field 'n'"),
        (LINE.format(epoch=2).replace("test", "tset"), "field 'split'"),
        ("mnist,ste,test,2,96.5", "field"),
        (LINE.format(epoch=1), "an earlier row has the same 'id'"),
        ('"', "c.csv, row 2"),
    ],
)
def test_a_bad_line_of_a_curve_is_named_and_skipped(tmp_path, bad, said):
    path = write(tmp_path / "c.csv", "\n".join([HEAD, LINE.format(epoch=1), bad]))
    problems = []
    assert [p.epoch for p in load_curves(path, problems)] == [1]
    assert len(problems) == 1 and said in problems[0], problems
    with pytest.raises(PublishedError):
        load_curves(path)


@pytest.mark.parametrize("content", ["", "a,b\n1,2", "epoch\n1"])
def test_a_table_with_other_columns_is_refused(tmp_path, content):
    problems = []
    assert load_curves(write(tmp_path / "c.csv", content), problems) == []
    assert problems[0].startswith("c.csv: the first line must be dataset,method")


def test_a_row_with_an_endless_name_gets_a_short_sentence(tmp_path):
    path = write(
        tmp_path / "c.csv", "\n".join([HEAD, LINE.format(epoch=1).replace("mnist", "m" * 5000).replace("96.5", "nan")])
    )
    with pytest.raises(PublishedError) as e:
        load_curves(path)
    assert len(str(e.value)) < 600 and "c.csv, row 1, logs.mmm" in str(e.value)
