"""Records: whole or not at all, percent never slips in, damaged files are reported and left unread."""

import dataclasses
import errno
import importlib.util
import json
import os
import platform
import types

import numpy as np
import pytest
import torch

from bayesbinn_nb.repro import records
from bayesbinn_nb.repro.records import (
    CONTEXT,
    SCHEMA,
    Record,
    RecordError,
    RecordWarning,
    history_columns,
    load_records,
    make_record,
    pending_seeds,
    read_record,
    record_run,
    records_frame,
    write_record,
)


def record(**kw):
    base = dict(
        experiment="benchmark",
        arm="ste",
        seed=0,
        dataset="mnist",
        method="ste",
        epochs=2,
        schedule_epochs=500,
        metrics={"last": {"test_accuracy": 0.9}, "best_validation": {"epoch": 1, "test_accuracy": 0.91}},
        history={"epoch": [1, 2], "test_accuracy": [0.91, 0.9], "val_accuracy": [0.95, None]},
        parameters={"epochs": 2},
    )
    return Record(**(base | kw))


def test_round_trip(tmp_path):
    r = record(
        extra={"histogram": [1, 2, 3]},
        stand_in="digits instead of MNIST",
        baseline={"name": "majority class", "metric": "test_accuracy", "value": 0.1},
    )
    path = write_record(tmp_path, r)
    assert path.name == "seed0.json"
    assert read_record(path) == r
    assert [p.name for p in tmp_path.iterdir()] == ["seed0.json"]  # no temporary file stays


def test_columns_stand_in_one_line(tmp_path):
    r = record(
        history={"epoch": [1, 2, 3], "val_loss": [1e-10, None, -2.5]},
        extra={"words": ["[", "1", "]"], "matrix": [[1, 2], [3.5, None]], "empty": []},
    )
    path = write_record(tmp_path, r)
    assert read_record(path) == r
    text = path.read_text()
    assert '"val_loss": [1e-10, null, -2.5]' in text and "[3.5, null]" in text


def test_numpy_and_torch_become_plain(tmp_path):
    r = record(
        metrics={"last": {"test_accuracy": np.float32(0.5), "test_loss": torch.tensor(1.5)}},
        parameters={"layers": (1, 2)},
    )
    again = read_record(write_record(tmp_path, r))
    assert again.metrics["last"] == {"test_accuracy": 0.5, "test_loss": 1.5}
    assert again.parameters == {"layers": [1, 2]}


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(metrics={"last": {"test_accuracy": 98.8}}), "divide percent by 100"),
        (dict(metrics={"last": {"test_accuracy@mean": 98.8}}), "divide percent by 100"),
        (dict(metrics={"last": {"test_loss": float("nan")}}), "finite"),
        (dict(metrics={"last": {"test_loss": "low"}}), "finite"),
        (dict(metrics={"best_validation": {}}), "must hold 'last'"),
        (dict(metrics={"last": {}, "first": {}}), "selections"),
        (dict(metrics={"last": {"test_Accuracy": 0.5}}), "split_metric"),
        (dict(history={"epoch": [1], "test_accuracy": [0.9, 0.8]}), "differ in length"),
        (dict(history={"test_accuracy": [0.9, 0.8]}), "'epoch'"),
        (dict(history={"epoch": [1], "test_accuracy": [float("inf")]}), "None where nothing"),
        (dict(seed=-1), "0 or more"),
        (dict(seed="0"), "must be int"),
        (dict(seed=True), "must be int"),
        (dict(experiment=""), "empty"),
        (dict(parameters={"root": "/somewhere/else"}), "absolute path"),
        (dict(notebook="/a/b.ipynb"), "absolute path"),
        (dict(baseline={"name": "majority class"}), "baseline"),
        (dict(extra={"x": object()}), "object"),
        (dict(wall_seconds=-1.0), "a time in seconds"),
        (dict(metrics={"last": {"test_loss": 10**400}}), "finite"),
        (dict(deviations=["half the epochs", 7]), "must be sentences; one is 7"),
        (dict(parameters={"schedule": "cosine"}), "must hold names and values"),
        (dict(machines=["a laptop"]), "one dict for each process"),
        (dict(versions={"torch": 2}), "must be a text, not 2"),
        (dict(epochs=-1), "it counts epochs"),
        (dict(schedule_epochs=10**12), "it counts epochs"),
        (dict(metrics={"last": {}, "best_validation": [0.9]}), "must be a dict of numbers"),
        (dict(history={"epoch": 3}), "a list with one entry per epoch"),
    ],
)
def test_invalid_is_refused_before_writing(tmp_path, change, message):
    with pytest.raises(RecordError, match=message):
        write_record(tmp_path, record(**change))
    assert not list(tmp_path.iterdir())


def test_invalid_does_not_replace_valid(tmp_path):
    path = write_record(tmp_path, record())
    before = path.read_bytes()
    with pytest.raises(RecordError):
        write_record(tmp_path, record(metrics={"last": {"test_accuracy": 2.0}}))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t[: len(t) // 2],  # half written
        lambda t: "",  # empty
        lambda t: t.replace("0.91", "0.97"),  # edited
        lambda t: t.replace(f'"schema": {SCHEMA}', '"schema": 99'),
        lambda t: json.dumps({k: v for k, v in json.loads(t).items() if k != "checksum"}),
        lambda t: json.dumps({k: v for k, v in json.loads(t).items() if k != "method"}),
        lambda t: json.dumps(json.loads(t) | {"surprise": 1}),
        lambda t: "[1, 2]",
    ],
)
def test_damaged_file_is_reported_never_read(tmp_path, damage):
    write_record(tmp_path / "row", record(seed=1))
    path = write_record(tmp_path / "row", record(seed=0))
    path.write_text(damage(path.read_text()))
    with pytest.raises(RecordError):
        read_record(path)
    with pytest.warns(RecordWarning, match="row/seed0.json"):
        assert [r.seed for r in load_records(tmp_path)] == [1]
    problems = []
    assert len(load_records(tmp_path, problems=problems)) == 1
    assert len(problems) == 1 and "seed0.json" in problems[0]


def test_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    path = write_record(tmp_path, record())
    before = path.read_bytes()

    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(records.os, "fsync", full)
    with pytest.raises(OSError, match="the disk is full; the file of that name is as it was. Free some space") as e:
        write_record(tmp_path, record(metrics={"last": {"test_accuracy": 0.1}}))
    assert e.value.errno == errno.ENOSPC
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["seed0.json"]


def test_killed_before_the_rename_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_record(tmp_path, record())
    before = path.read_bytes()

    class Killed(BaseException):
        pass

    def die(*a):
        raise Killed

    monkeypatch.setattr(records.os, "replace", die)
    with pytest.raises(Killed):
        write_record(tmp_path, record(wall_seconds=5.0))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert len(load_records(tmp_path)) == 1  # the temporary file that stayed is not taken for a record


def test_filters(tmp_path):
    for seed in (0, 1):
        for method in ("ste", "bop"):
            write_record(
                tmp_path / method,
                record(
                    seed=seed,
                    method=method,
                    arm=method,
                    row=f"benchmark-mnist-{method}",
                    parameters={"temperature": 10.0**-seed},
                ),
            )
    (tmp_path / "_work").mkdir()
    write_record(tmp_path / "_work", record(seed=7))
    assert len(load_records(tmp_path)) == 4  # folders beginning with _ are not results
    assert [r.seed for r in load_records(tmp_path, method="bop")] == [0, 1]
    assert len(load_records(tmp_path, row="benchmark-*", seed=(1, 2))) == 2
    assert len(load_records(tmp_path, temperature=lambda t: t < 1)) == 2
    assert load_records(tmp_path / "nowhere") == []
    table = records_frame(load_records(tmp_path, method="ste"))
    assert table.column("last.test_accuracy") == [0.9, 0.9]
    assert table.select("seed", "method").to_markdown() == "| seed | method |\n|---|---|\n| 0 | ste |\n| 1 | ste |"


def test_metric_by_selection_and_epoch():
    r = record()
    assert r.metric("test_accuracy") == 0.9
    assert r.metric("test_accuracy", "best_validation") == 0.91
    assert r.metric("test_accuracy", epoch=1) == 0.91
    assert r.metric("test_accuracy", epoch=3) is None
    assert r.metric("val_accuracy", epoch=2) is None
    assert r.metric("test_accuracy@mean") is None


def test_history_in_every_form():
    wanted = {"epoch": [1, 2], "train_accuracy": [0.5, 0.6], "val_loss": [None, 1.0]}
    columns = {"accuracy": [0.5, torch.tensor(0.6).double()], "val_loss": [float("nan"), 1.0], "nothing": [None, None]}

    class History:
        history = columns

    rows = [{"accuracy": 0.5, "val_loss": None}, {"accuracy": 0.6, "val_loss": 1.0}]
    for form in (columns, History(), rows):
        got = history_columns(form)
        assert got["epoch"] == wanted["epoch"] and got["val_loss"] == wanted["val_loss"] and "nothing" not in got
        assert got["train_accuracy"] == pytest.approx(wanted["train_accuracy"])
    assert history_columns(None) == {}


BUNDLE = dict(name="digits", fingerprint="abc", stand_in="8x8 digits instead of MNIST")


def test_from_the_trainer_itself():
    from bayesbinn_nb.library.data import load_data
    from bayesbinn_nb.library.models import build_model
    from bayesbinn_nb.library.trainer import Trainer
    from bayesbinn_nb.methods.ste import STE

    bundle = load_data("two_moons")
    trainer = Trainer(build_model("toy_mlp"), device="cpu").compile(
        STE(), loss="binary_cross_entropy", metrics=("binary_accuracy",)
    )
    history = trainer.fit(bundle.train, val=bundle.train, epochs=2, batch_size=None, progress="silent")
    r = make_record(
        experiment="two_moons",
        arm="ste",
        seed=0,
        bundle=bundle,
        method=trainer.method,
        parameters={},
        history=history,
        trainer=trainer,
        schedule_epochs=3000,
        monitor="val_binary_accuracy",
    )
    records.validate(records._plain(dataclasses.asdict(r)))
    assert (r.epochs, r.complete, r.method, r.dtype, r.dataset) == (2, False, "ste", "float32", "two_moons")
    assert r.history["train_binary_accuracy"] == [row["binary_accuracy"] for row in history]
    assert r.metrics["best_validation"]["epoch"] in (1, 2) and r.wall_seconds > 0
    assert r.baseline["metric"] == "train_binary_accuracy" and r.baseline["value"] == 0.5


def test_best_validation_is_the_earliest_best():
    h = {"val_accuracy": [0.5, 0.9, 0.9], "test_accuracy": [0.1, 0.2, 0.3]}
    r = make_record(
        experiment="benchmark",
        arm="ste",
        seed=0,
        bundle=BUNDLE,
        method="ste",
        parameters={},
        history=h,
        last={"test_accuracy@mean": 0.4},
    )
    assert r.metrics["best_validation"] == {"epoch": 2, "val_accuracy": 0.9, "test_accuracy": 0.2}
    assert r.metrics["last"]["test_accuracy"] == 0.3 and r.metrics["last"]["test_accuracy@mean"] == 0.4
    r = make_record(
        experiment="x",
        arm="ste",
        seed=0,
        bundle=BUNDLE,
        method="ste",
        parameters={},
        history={"val_loss": [3.0, 1.0, 2.0]},
        monitor="val_loss",
    )
    assert r.metrics["best_validation"]["epoch"] == 2
    assert (r.dataset, r.data_fingerprint, r.stand_in) == ("digits", "abc", "8x8 digits instead of MNIST")
    assert r.versions["torch"] and r.commit and r.device.startswith("cpu")


def test_by_hand_no_record_of_another_run_is_written_over(tmp_path):
    def run(rate, /, folder=tmp_path, reached=1, **known):
        kw = dict(experiment="x", bundle=BUNDLE, method="ste", parameters={"lr": rate})
        for seed in pending_seeds(folder, [0, 1], ("a", "b"), **known):
            for arm in ("a", "b"):
                history = {"val_accuracy": [rate] * reached}
                record_run(folder, several_arms=True, arm=arm, seed=seed, history=history, **kw)

    run(0.1)
    run(0.1, reached=2)  # the same run again, and farther
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert len(before) == 4
    for rate, known, said in (
        (0.2, {"parameters": {"lr": 0.2}}, r"seed0-a.json is .* lr was 0.1 there and is 0.2 here.*that record away\.$"),
        (0.2, {}, r"lr was 0.1 there and is 0.2 here.* goes on from them"),  # told nothing, it is noticed at the end
        (0.1, {"experiment": "y"}, "experiment was 'x' there and is 'y' here"),
        (0.1, {"epochs": 1}, "it has 2 epochs, and this one only 1"),
        (0.1, {"rate": 0.1}, "'rate' is no field of a record"),
    ):
        with pytest.raises(RecordError, match=said):
            run(rate, **known)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    run(0.2, folder=tmp_path / "other")  # the way out


def test_context_and_pending_seeds(tmp_path, monkeypatch):
    monkeypatch.setenv(
        CONTEXT, json.dumps(dict(suite="quick", row="r", hash="h1", notebook="r.ipynb", deviations=["half the data"]))
    )
    kw = dict(
        experiment="x",
        bundle=BUNDLE,
        method="ste",
        parameters={"seeds": [0, 1], "out": "/tmp", "lr": 0.1},
        history={"val_accuracy": [0.5]},
    )
    record_run(tmp_path, arm="a", seed=0, **kw)
    r = load_records(tmp_path)[0]
    assert (r.suite, r.row, r.hash, r.notebook, r.deviations, r.parameters) == (
        "quick",
        "r",
        "h1",
        "r.ipynb",
        ["half the data"],
        {"lr": 0.1},
    )
    assert pending_seeds(tmp_path, [0, 1]) == [1]
    monkeypatch.setenv(CONTEXT, json.dumps({"hash": "h2"}))
    assert pending_seeds(tmp_path, [0, 1]) == [0, 1]  # another run's record does not count
    record_run(tmp_path, several_arms=True, arm="a", seed=0, **kw)
    assert pending_seeds(tmp_path, [0], arms=("a", "b")) == [0]
    record_run(tmp_path, several_arms=True, arm="b", seed=0, **kw)
    assert pending_seeds(tmp_path, [0], arms=("a", "b")) == []
    monkeypatch.delenv(CONTEXT)
    assert pending_seeds(tmp_path / "other", [0, 1]) == [0, 1]  # by hand everything runs …
    with pytest.raises(RecordError, match="suite was 'quick' there and is '' here"):
        pending_seeds(tmp_path, [0, 1])  # … but not over the record of a row


def test_where_the_code_comes_from(monkeypatch, tmp_path):
    "A commit in a checkout; the release without one, without git, and without an installation"
    monkeypatch.delenv("BAYESBINN_COMMIT", raising=False)
    inside = importlib.util.find_spec("bayesbinn_nb")
    elsewhere = types.SimpleNamespace(origin=str(tmp_path / "site" / "bayesbinn_nb" / "__init__.py"))
    monkeypatch.setattr(records.importlib.util, "find_spec", lambda name: elsewhere)
    release = records._code_commit.__wrapped__()
    assert release.startswith("release ") and release == f"release {records._version('bayesbinn_nb')}"
    monkeypatch.setattr(records.importlib.util, "find_spec", lambda name: inside)
    monkeypatch.setenv("PATH", str(tmp_path))  # no git
    assert records._code_commit.__wrapped__() == release
    assert records._version("no such distribution") == ""


def test_a_processor_without_its_file(monkeypatch):
    def missing(self, *args, **kwargs):
        raise FileNotFoundError(str(self))

    monkeypatch.setattr(records.Path, "read_text", missing)
    assert records.processor.__wrapped__() in (platform.processor(), platform.machine())
