"""`precision: auto`: decided once when a row starts, kept ever after, written down, never averaged with the other."""

import io
import json
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from bayesbinn_nb.repro import jobs
from bayesbinn_nb.repro.jobs import read_note, row_identity, settled
from bayesbinn_nb.repro.places import experiments_dir
from bayesbinn_nb.repro.records import load_records, runs
from bayesbinn_nb.repro.runner import row_state, run_suite
from bayesbinn_nb.repro.suites import known_suites, load_suite
from bayesbinn_nb.repro.templates import load_template

PARAMETERS = """from typing import Literal
precision: Literal["auto", "float32", "bfloat16"] = "auto"
seeds: list[int] = [0]
out: str = "."
work_dir: str = "_work"
"""
CODE = """
from pathlib import Path
from bayesbinn_nb.repro.records import pending_seeds, record_run
for seed in pending_seeds(out, seeds):
    record_run(out, experiment="demo", arm="a", seed=seed, method="none", parameters={}, dtype=precision,
               bundle=dict(name="nothing"), history={"test_accuracy": [.5]})
    begun = Path(work_dir) / "begun"
    if seed == 0 and len(seeds) == 2 and not begun.exists():
        begun.write_text("")
        raise RuntimeError("the machine goes down")
"""


def write_template(folder: Path, code: str = CODE) -> None:
    cells = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), new_code_cell(code)]
    nbformat.write(new_notebook(cells=cells), folder / "demo.ipynb")


@pytest.fixture
def machine(monkeypatch):
    "Stands for a machine on which products in bfloat16 take so many times as long"

    def become(ratio: float | None) -> None:
        def probe(job):
            assert ratio is not None, "nobody asked for a probe"
            precision = "bfloat16" if ratio < 0.9 else "float32"
            return dict(precision=precision, because=f"auto: {ratio:g} times as long", ratio=ratio)

        monkeypatch.setattr(jobs, "probe_precision", probe)
        monkeypatch.setattr("bayesbinn_nb.repro.runner.probe_precision", probe)

    return become


@pytest.fixture
def suite(tmp_path):
    write_template(tmp_path)
    (tmp_path / "mine.yaml").write_text("rows: [{row: r, template: demo, seeds: [0]}]")
    return load_suite(tmp_path / "mine.yaml")


def run(suite, out, **changes):
    log = io.StringIO()
    rows = [replace(row, **changes) for row in suite.rows]
    outcome = run_suite(replace(suite, rows=rows), out=out, pages=False, stream=log)
    return outcome, log.getvalue()


def test_decided_when_the_row_starts_and_written_down(suite, machine, tmp_path):
    (row,), folder = suite.rows, tmp_path / "runs" / "r"
    machine(30.0)
    assert run(suite, tmp_path / "runs")[0].ok
    (record,) = load_records(folder)
    assert record.dtype == "float32" and record.settings["precision_because"] == "auto: 30 times as long"
    note = read_note(folder)
    assert note["params"]["precision"] == "float32" and note["precision_because"] == "auto: 30 times as long"
    explicit = replace(row, params={"precision": "float32"})
    assert (
        record.hash == note["hash"] == row_identity(explicit).hash
    )  # the decided value counts, not how it was decided
    assert settled(row, folder) == explicit and settled(explicit, folder) is explicit
    machine(None)  # what is whole asks no more
    assert row_state(row, folder) == row_state(explicit, folder) == "whole"
    assert row_state(replace(row, params={"precision": "bfloat16"}), folder) == "older code"
    assert run(suite, tmp_path / "runs")[0].rows[0]["status"] == "kept"


def test_more_seeds_on_another_machine_keep_it(suite, machine, tmp_path):
    machine(30.0)
    run(suite, tmp_path / "runs")
    machine(0.5)
    assert run(suite, tmp_path / "runs", seeds=[0, 5, 6])[0].ok
    records = load_records(tmp_path / "runs")
    assert [(r.seed, r.dtype) for r in records] == [(0, "float32"), (5, "float32"), (6, "float32")]
    assert {r.settings["precision_because"] for r in records} == {"auto: 30 times as long"}
    assert len(runs(records)) == 1


def test_a_stopped_row_goes_on_with_it_on_another_machine(suite, machine, tmp_path):
    machine(0.5)
    outcome, _ = run(suite, tmp_path / "runs", seeds=[0, 1])
    assert outcome.failed
    machine(30.0)
    outcome, log = run(suite, tmp_path / "runs", seeds=[0, 1])
    assert outcome.ok and "note: bfloat16 is asked for, or was begun with, in r." in log
    assert [(r.seed, r.dtype) for r in load_records(tmp_path / "runs")] == [(0, "bfloat16"), (1, "bfloat16")]


def test_changed_code_begins_anew_and_asks_again(suite, machine, tmp_path):
    machine(30.0)
    run(suite, tmp_path / "runs")
    write_template(tmp_path, CODE.replace("[.5]", "[.75]"))
    machine(0.5)
    assert row_state(suite.rows[0], tmp_path / "runs" / "r") == "older code"
    assert run(suite, tmp_path / "runs")[0].ok
    assert [r.dtype for r in load_records(tmp_path / "runs")] == ["bfloat16"]


def test_two_arithmetics_are_two_runs(suite, machine, tmp_path):
    for out, ratio in (("a", 30.0), ("b", 0.5)):
        machine(ratio)
        run(suite, tmp_path / "runs" / out)
    records = load_records(tmp_path / "runs")
    assert len({r.hash for r in records}) == 2
    assert sorted(group[0].dtype for group in runs(records)) == ["bfloat16", "float32"]


@pytest.mark.parametrize("ratio, warned", [(0.5, False), (30.0, True)])
def test_who_asks_for_bfloat16_is_told_where_it_is_slower(suite, machine, tmp_path, ratio, warned):
    machine(ratio)
    outcome, log = run(suite, tmp_path / "runs", params={"precision": "bfloat16"})
    assert outcome.ok and [r.dtype for r in load_records(tmp_path / "runs")] == ["bfloat16"]
    assert ("note: bfloat16 is asked for" in log) is warned
    assert ("takes 30 times as long in it as in float32; precision: auto takes the faster" in log) is warned


def test_nothing_is_probed_where_nobody_needs_it(suite, machine, tmp_path):
    machine(None)
    assert run(suite, tmp_path / "runs", params={"precision": "float32"})[0].ok
    (record,) = load_records(tmp_path / "runs")
    assert "precision_because" not in record.settings


def test_a_probe_that_fails_is_a_row_that_fails(suite, monkeypatch, tmp_path):
    monkeypatch.setattr(jobs, "process_environment", lambda threads: {"PYTHONPATH": str(tmp_path)})
    (tmp_path / "json.py").write_text("raise ImportError('no json here')")
    jobs._probed.cache_clear()
    outcome, _ = run(suite, tmp_path / "runs")
    assert "the arithmetic of this machine could not be tried: ImportError: no json here" in outcome.failed[0]["error"]


def test_the_probe_of_this_machine(suite, tmp_path):
    jobs._probed.cache_clear()
    job = jobs.row_job(suite.rows[0], tmp_path)
    found = jobs.probe_precision(job)
    assert found == jobs.probe_precision(job) and (found["ratio"] < 0.9) is (found["precision"] == "bfloat16")
    assert json.dumps(found) and found["because"].startswith("auto: ")


def test_templates_and_suites_leave_it_to_the_machine():
    declaring = [
        t for path in experiments_dir().glob("*.ipynb") if "precision" in (t := load_template(path)).parameters
    ]
    assert {t.name for t in declaring} >= {"benchmark", "bop", "segmentation"}
    assert {t.defaults["precision"] for t in declaring} == {"auto"}
    rows = [row for name in known_suites() for row in load_suite(name).rows]
    assert {row.params.get("precision", "auto") for row in rows} <= {"auto", "float32"}  # never what some machine lacks
