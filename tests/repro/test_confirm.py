"""Changed code and old numbers: what brings a row back, what does not, and what is said."""

import json
from dataclasses import replace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from bayesbinn_nb.repro import confirm, jobs
from bayesbinn_nb.repro.cli import main
from bayesbinn_nb.repro.confirm import confirm_row
from bayesbinn_nb.repro.jobs import TRACE_FILE, execute_job, read_json, row_identity, row_job
from bayesbinn_nb.repro.records import load_records, write_record
from bayesbinn_nb.repro.runner import row_state, run_suite
from bayesbinn_nb.repro.suites import load_suite
from bayesbinn_nb.repro.trace import bounds

PARAMETERS = 'epochs: int = 3\nseeds: list[int] = [0]\nout: str = "."\nwork_dir: str = "_work"'
CODE = """import torch
from bayesbinn_nb.library.data import load_data
from bayesbinn_nb.library.models import build_model
from bayesbinn_nb.library.trainer import Callback, Trainer
from bayesbinn_nb.methods.ste import STE
from bayesbinn_nb.repro.records import pending_seeds, record_run


def scaled(loss):
    return loss * 2


def at_the_end(x):
    return x + 0


class AtTheEnd(Callback):
    def on_epoch_end(self, trainer, logs):
        if logs["epoch"] == 3:
            logs["extra"] = at_the_end(1)


def loss(out, y):
    return scaled(torch.nn.functional.cross_entropy(out, y))


data = load_data("digits")
for seed in pending_seeds(out, seeds):
    model = build_model("mnist_mlp", in_features=64, hidden=16)
    trainer = Trainer(model, device="cpu", seed=seed).compile(STE(lr=1e-2), loss=loss)
    history = trainer.fit(
        data.train, data.val, epochs=epochs, progress="silent", checkpoint_dir=f"{work_dir}/seed{seed}", callbacks=[AtTheEnd()]
    )
    record_run(out, experiment="demo", arm="ste", seed=seed, method="ste", bundle=data, history=history, parameters={})
"""  # noqa: E501


def template(folder, code=CODE):
    cells = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), new_code_cell(code)]
    nbformat.write(new_notebook(cells=cells), folder / "demo.ipynb")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    "One row that keeps a trace, run whole"
    folder = tmp_path_factory.mktemp("confirm")
    template(folder)
    rows = [dict(row="r", template="demo", trace=True)]
    (folder / "mine.yaml").write_text(json.dumps(dict(rows=rows)))
    outcome = run_suite(folder / "mine.yaml", out=folder / "runs", quiet=True)
    assert outcome.ok, outcome
    return folder


@pytest.fixture
def row(ran):
    "The row with its first code; whatever a test changes is undone"
    note = (ran / "runs" / "r" / "row.json").read_text()
    template(ran)
    yield load_suite(ran / "mine.yaml").rows[0]
    template(ran)
    (ran / "runs" / "r" / "row.json").write_text(note)


def changed(folder, old, new):
    assert old in CODE
    template(folder, CODE.replace(old, new))
    return load_suite(folder / "mine.yaml").rows[0]


def test_a_whole_row_has_its_trace(ran):
    folder = ran / "runs" / "r"
    trace, (record,) = read_json(folder / TRACE_FILE), load_records(folder)
    assert trace["hash"] == record.hash and trace["marks"] and len(trace["fits"]) == 1
    assert not (folder / "_work").exists()


def test_an_equivalent_change_brings_the_row_back(ran, row):
    where = ran / "runs" / "r"
    now = changed(ran, "return loss * 2", "return 2.0 * loss")
    assert row_state(now, where) == "older code"
    found = confirm_row(now, where)
    assert (found.answer, found.counts) == ("the same", True), found
    assert "steps and 1 end of an epoch" in found.said
    assert row_state(now, where) == "whole"
    assert read_json(where / "row.json")["confirmed"]["hash"] == row_identity(now).hash


def test_a_changed_number_is_named_with_its_step(ran, row):
    where = ran / "runs" / "r"
    now = changed(ran, "return loss * 2", "return loss * 2.0000003")
    found = confirm_row(now, where)
    assert found.answer == "differs" and not found.counts
    assert "step 1" in found.said and "0x" in found.said  # both values, to the last bit
    assert row_state(now, where) == "older code"


def test_a_changed_function_that_did_not_run_is_named(ran, row):
    where = ran / "runs" / "r"
    now = changed(ran, "return x + 0", "return x + 1")
    found = confirm_row(now, where)
    assert found.answer == "not replayed" and "template:at_the_end" in found.said and "--minutes" in found.said
    assert row_state(now, where) == "older code"


def test_the_command_names_row_and_step(ran, row, capsys):
    changed(ran, "return loss * 2", "return loss * 2.0000003")
    code = main(["confirm", str(ran / "mine.yaml"), "--out", str(ran / "runs")])
    said = capsys.readouterr().out
    assert code == 1 and "r " in said and "differs" in said and "step 1" in said


def test_another_machine_is_never_called_the_same(ran, row, monkeypatch):
    where = ran / "runs" / "r"
    text = (where / TRACE_FILE).read_text()
    trace = json.loads(text)
    trace["machine"]["processor"] = "another"
    try:
        (where / TRACE_FILE).write_text(json.dumps(trace))
        found = confirm_row(row, where)
        assert found.answer == "differs" and "nothing was measured about demo" in found.said
        table = {"demo": next(iter(v for k, v in bounds().items() if k != "measured"))}
        monkeypatch.setattr("bayesbinn_nb.repro.trace.bounds", lambda: table)
        found = confirm_row(row, where)
        assert found.answer == "agrees, other machine" and found.counts
    finally:
        (where / TRACE_FILE).write_text(text)


def test_a_precision_that_this_machine_lacks(ran, row, monkeypatch):
    monkeypatch.setattr(confirm, "lacks_precision", lambda precision, device: True)
    found = confirm_row(row, ran / "runs" / "r")
    assert found.answer == "cannot confirm here" and "float32" in found.said


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"fits": 3, "marks": [], "machine": {}}', '{"machine": []}'])
def test_a_damaged_trace_is_a_sentence(ran, row, damage):
    where = ran / "runs" / "r"
    text = (where / TRACE_FILE).read_text()
    try:
        (where / TRACE_FILE).write_text(damage)
        found = confirm_row(row, where)
        assert found.answer == "unknown" and "--minutes" in found.said
    finally:
        (where / TRACE_FILE).write_text(text)


def test_an_interrupted_run_goes_on_with_changed_code_only_if_its_trace_agrees(ran, tmp_path):
    "The trace lies beside the checkpoints; finished seeds are filed under today's identity, and say so"
    for new, resumed in (("return 2.0 * loss", True), ("return loss * 3", False)):
        folder = tmp_path / str(resumed)
        folder.mkdir()
        template(folder)
        (folder / "mine.yaml").write_text(
            json.dumps(dict(rows=[dict(row="r", template="demo", trace=True, seeds=[0, 1])]))
        )
        first = load_suite(folder / "mine.yaml").rows[0]
        job = row_job(replace(first, seeds=[0]), folder / "runs")
        identity = jobs.identify_job(job)
        job = jobs._prepare_work(job, identity)
        job_file = folder / "runs" / "r" / "_work" / "job.json"
        trace = read_json(ran / "runs" / "r" / TRACE_FILE)
        assert trace["hash"] == identity.hash  # the same template, parameters and code
        (job_file.parent / TRACE_FILE).write_text(json.dumps(trace))
        (record,) = load_records(ran / "runs" / "r")
        write_record(job_file.parent / "records", record)
        template(folder, CODE.replace("return loss * 2", new))
        row = load_suite(folder / "mine.yaml").rows[0]
        answer = execute_job(row_job(row, folder / "runs"))
        assert answer["error"] is None, answer
        found = load_records(folder / "runs" / "r")
        assert [r.seed for r in found] == [0, 1] and {r.hash for r in found} == {row_identity(row).hash}
        assert [r.extra.get("earlier_identity") for r in found] == [identity.hash if resumed else None, None]
