"""Every refusal and every rescue that no other test reaches: what a user meets, and the sentence that is said."""

import ast
import errno
import importlib.util
import inspect
import io
import json
import os
import subprocess
import sys
import threading
import types
from concurrent.futures import Future
from pathlib import Path

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

from bayesbinn_nb.repro import (
    claims,
    cli,
    confirm,
    executors,
    jobs,
    notebooks,
    places,
    published,
    report,
    runner,
    suites,
    tables,
    templates,
    terminal,
)
from bayesbinn_nb.repro import trace as traces
from bayesbinn_nb.repro.by_hand import refuse_another_run
from bayesbinn_nb.repro.executors import run_units, workers_of
from bayesbinn_nb.repro.identity import own_modules
from bayesbinn_nb.repro.jobs import RunnerError
from bayesbinn_nb.repro.records import RecordError, make_record
from bayesbinn_nb.repro.runner import folder_lock, row_state, run_suite
from bayesbinn_nb.repro.suites import SuiteError, load_suite
from bayesbinn_nb.repro.units import claimed, gather, parse_shard, units_of

PARAMETERS = 'value: float = 0.5\nseeds: list[int] = [0]\nout: str = "."\nwork_dir: str = "_work"\n'
CODE = """
from bayesbinn_nb.repro.records import pending_seeds, record_run
for seed in pending_seeds(out, seeds):
    record_run(out, experiment="demo", arm="a", seed=seed, method="none", parameters=dict(value=value),
               bundle=dict(name="nothing"), history={"test_accuracy": [value]}, wall_seconds=2.0,
               baseline=dict(name="chance", metric="test_accuracy", value=.1))
"""


def template_in(folder, *cells, parameters=PARAMETERS):
    cells = [new_code_cell(parameters, metadata={"tags": ["parameters"]}), *(new_code_cell(c) for c in cells)]
    nbformat.write(new_notebook(cells=cells), folder / "demo.ipynb")
    return folder / "demo.ipynb"


def suite_in(folder, *rows, code=CODE):
    template_in(folder, code)
    (folder / "mine.yaml").write_text(json.dumps({"defaults": {"template": "demo"}, "rows": rows}))
    return folder / "mine.yaml"


ROW = {"row": "a", "seeds": [0], "params": {"value": 0.05}, "baseline": "chance"}


class Elsewhere:
    "Workers whose answer, or whose failure, is known beforehand"

    slots = 1

    def __init__(self, answer):
        self.answer = answer

    def start(self, unit, job):
        future = Future()
        if isinstance(self.answer, KeyboardInterrupt):
            raise self.answer
        if isinstance(self.answer, Exception):
            future.set_exception(self.answer)
        else:
            future.set_result(self.answer)
        return future

    def lost(self):
        return ""

    def stop(self):
        pass

    def close(self):
        pass


# ---- units and executors


def test_workers_that_fail_are_named_with_their_unit(tmp_path):
    path, log = suite_in(tmp_path, ROW), io.StringIO()
    outcome = run_units(path, executor=Elsewhere(MemoryError("no memory there")), out=tmp_path / "o", stream=log)
    assert not outcome.ok and "MemoryError: no memory there" in log.getvalue()
    unit = units_of(load_suite(path).rows[0])[0]
    with claimed(unit, tmp_path / "o"):
        pass  # nobody holds it any more


def test_an_answer_that_is_not_whole_is_not_filed(tmp_path):
    path, log = suite_in(tmp_path, ROW), io.StringIO()
    worker = Elsewhere({"error": None, "files": {"a.ipynb": b"{}"}, "seconds": 0.1})
    assert not run_units(path, executor=worker, out=tmp_path / "o", stream=log).ok
    assert "a, seed 0: what came back for a, seed 0 was not kept: a.ipynb was damaged on its way" in log.getvalue()
    assert row_state(load_suite(path).rows[0], tmp_path / "o" / "a") != "whole"


def test_a_unit_that_could_not_be_started_is_let_go(tmp_path):
    path = suite_in(tmp_path, ROW)
    outcome = run_units(path, executor=Elsewhere(KeyboardInterrupt()), out=tmp_path / "o", quiet=True)
    assert outcome.stopped
    with claimed(units_of(load_suite(path).rows[0])[0], tmp_path / "o"):
        pass


def test_units_that_do_not_beat_the_baseline_make_no_row(tmp_path):
    path, log = suite_in(tmp_path, ROW), io.StringIO()
    row = load_suite(path).rows[0]
    with folder_lock(tmp_path / "o" / "a"):  # another runner is putting it together
        run_units(path, out=tmp_path / "o", stream=log, pages=False)
    assert "does not beat" not in log.getvalue() and row_state(row, tmp_path / "o" / "a") != "whole"
    with claimed(units_of(row)[0], tmp_path / "o"):
        assert gather(row, tmp_path / "o") is False, "a unit that somebody holds"
    outcome = run_units(path, out=tmp_path / "o", stream=log, pages=False)
    assert not outcome.ok and "test_accuracy 0.05 does not beat the baseline 'chance' (0.1)" in log.getvalue()


def test_wrong_words_of_units(tmp_path, monkeypatch):
    with pytest.raises(SuiteError, match="there are local, dask"):
        workers_of("the moon")
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(RunnerError, match="Slurm is reached through dask-jobqueue: pip install"):
        workers_of("slurm")
    with pytest.raises(SuiteError, match="--only-seed 7: no row that was chosen has this seed"):
        run_units(suite_in(tmp_path, ROW), only_seed=7, out=tmp_path / "o", quiet=True)
    for text in ("9/8", "0/8", "1", "a/b"):
        with pytest.raises(SuiteError, match="say which part of how many"):
            parse_shard(text)


# ---- jobs


def test_a_cell_that_is_no_python_has_no_identity(tmp_path):
    with pytest.raises(SuiteError, match="template demo"):
        jobs.identify_template(template_in(tmp_path, "def f(:\n    pass"), {})


def test_a_runner_that_is_interrupted_ends_its_job():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    really_wait, process.wait = process.wait, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        jobs._wait({"folder": "there"}, process)
    assert really_wait(60) != 0 and jobs._RUNNING.pop("there") is process  # who started it takes it out


def test_a_job_that_has_just_ended_cannot_be_stopped_and_need_not(monkeypatch):
    looks = iter([None, None, 0, 0, 0, 0])
    gone = types.SimpleNamespace(pid=2**22 + 1, poll=lambda: next(looks))  # no group has such a number
    monkeypatch.setattr(jobs, "_RUNNING", {"there": gone})
    jobs.stop_jobs()
    assert next(looks) == 0


def test_on_a_full_disk_a_failed_notebook_stays_where_it_is(tmp_path, monkeypatch):
    (tmp_path / "_work").mkdir()
    (tmp_path / "_work" / "a.ipynb").write_text("{}")

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(jobs, "write_whole", full)
    assert jobs._keep_partial({"folder": str(tmp_path), "name": "a"}) == str(tmp_path / "_work" / "a.ipynb")


def test_a_row_that_cannot_be_rehearsed_runs_all_the_same(tmp_path):
    (tmp_path / "_work").mkdir()
    notebook = str(template_in(tmp_path, "import os\nos._exit(3)"))
    job = {"folder": str(tmp_path), "trace": True, "hash": "h", "notebook": notebook, "given": {}, "seeds": [0]}
    (note,) = jobs._leave_trace(job | {"threads": 1, "marks": {}})
    assert "no trace of its first steps was kept" in note
    assert "the rehearsal of demo gave no trace: its process ended with code 3" in note


def test_a_baseline_about_something_that_was_not_measured():
    record = make_record(
        experiment="demo",
        arm="a",
        seed=0,
        method="none",
        parameters={},
        bundle={"name": "nothing"},
        history={"train_accuracy": [0.5]},
        wall_seconds=1.0,
        baseline={"name": "chance", "metric": "test_accuracy", "value": 0.1},
    )
    with pytest.raises(
        RunnerError, match="the baseline 'chance' is about test_accuracy, which the records do not hold"
    ):
        jobs._beat_one("a", "test_accuracy", [record])


# ---- the runner


def test_a_batch_needs_papermill(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "papermill" else found(name, *a))
    with pytest.raises(RunnerError, match="running notebooks needs papermill: pip install"):
        run_suite(suite_in(tmp_path, ROW), out=tmp_path / "o", quiet=True)


def test_a_job_that_has_said_nothing_and_one_whose_process_is_lost(tmp_path):
    assert runner._last_epoch({"folder": str(tmp_path)}) == ""
    future = Future()
    future.set_exception(RuntimeError("the pool\nis broken"))
    answer = runner._answer(future, {"name": "a"})
    assert answer["name"] == "a" and "the pool is broken" in answer["error"] and answer["notes"] == []


# ---- notebooks


def test_notebooks_cannot_be_checked_without_nbdev(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(notebooks.NotebookError, match=r"nbdev_test is not installed; pip install -e '\.\[dev\]'"):
        notebooks.run_notebook(tmp_path / "a.ipynb")


def test_a_page_whose_kernel_dies(tmp_path):
    nbformat.write(new_notebook(cells=[new_code_cell("import os\nos._exit(1)")]), tmp_path / "dies.ipynb")
    with pytest.raises(notebooks.NotebookError, match="its kernel ended, or did not start"):
        notebooks.executed(tmp_path / "dies.ipynb")


# ---- places and files


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="bayesbinn_nb cannot be found; install it"):
        places.package_dir()


def test_a_path_is_shown_though_the_current_folder_was_deleted(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert places.short_path("/somewhere/else.yaml") == "/somewhere/else.yaml"


def test_published_curves_that_cannot_be_read(tmp_path):
    for name, content, said in (
        ("wrong.csv", b"a,b\n1,2\n", "wrong.csv: the first line must be"),
        ("latin.csv", b"\xff\xfe\xe9", "latin.csv cannot be read"),
        ("absent.csv", None, "absent.csv cannot be read"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(published.PublishedError, match=said):
            published.load_curves(tmp_path / name)
        problems = []
        assert published.load_curves(tmp_path / name, problems) == [] and said in problems[0]


def test_values_that_are_no_numbers_are_compared_as_they_are():
    assert report.same_value("mean", "mean") and not report.same_value("mean", 1) and not report.same_value(None, 1)
    assert report.same_value("1e-4", 0.0001) and not report.same_value(10**400, 1)


def test_a_suite_as_large_as_no_suite(tmp_path):
    (tmp_path / "large.yaml").write_bytes(b"# " + b"x" * suites.LARGEST_YAML)
    with pytest.raises(SuiteError, match="large.yaml is not a suite file: it has 1000002 bytes, more than 1000000"):
        load_suite(tmp_path / "large.yaml")
    with pytest.raises(suites.YamlError, match="large.yaml has 1000002 bytes, more than 1000000"):
        suites.load_yaml(tmp_path / "large.yaml")


def test_the_yardstick_is_made_of_stand_ins_where_the_pictures_are_not(monkeypatch):
    def of_another_machine(name):
        if name == "isbi2012":
            raise FileNotFoundError("the real pictures are not on this machine")
        return types.SimpleNamespace(val=types.SimpleNamespace(y=(torch.rand(1, 64, 64) < 0.8).long()))

    monkeypatch.setattr("bayesbinn_nb.library.data.load_data", of_another_machine)
    rows = tables.yardstick_table()
    assert any("stand-in pictures: the real ones are not on this machine" in str(row) for row in rows)


def test_own_code_that_is_not_there_has_no_file():
    assert own_modules({"loss": "no_such_package.losses:mine"}) == {}


# ---- templates


def test_paths_that_no_system_has():
    with pytest.raises(SuiteError, match="there is no notebook"):
        templates.read_text("a\0b.ipynb", "notebook")


def test_a_dictionary_is_asked_for_and_a_list_is_given(tmp_path):
    path = template_in(tmp_path, CODE, parameters=PARAMETERS + "rates: dict[str, float] = {}\n")
    loaded = templates.load_template(path)
    assert loaded.check({"rates": {"a": 1}})["rates"] == {"a": 1.0}
    with pytest.raises(SuiteError, match="rates"):
        loaded.check({"rates": [1]})


def test_a_cell_of_magics_does_not_hide_the_parameters(tmp_path):
    code = "%load_ext autoreload\n# a Literal is only named here"
    assert "value" in templates.load_template(template_in(tmp_path, code, CODE)).parameters


def test_a_type_that_is_nested_deeper_than_the_stack():
    kind = "Optional[" * 80 + "int" + "]" * 80
    (parameter,) = templates._declared(f"deep: {kind} = 1\n", {}, "demo").values()
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 120)  # as where the caller is deep in a recursion himself
    try:
        with pytest.raises(SuiteError, match="demo: the type of 'deep' is nested too deep to be read"):
            templates._check_default(parameter, "demo")
    finally:
        sys.setrecursionlimit(before)


# ---- the terminal


class Closed(io.StringIO):
    "What a shell's >&- leaves"

    def write(self, text):
        raise OSError(errno.EBADF, "Bad file descriptor")


def test_what_cannot_be_said_is_not_said(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Closed())
    terminal.complain("a word")  # neither said nor raised
    closed = io.StringIO()
    closed.close()
    display = terminal.Display(closed)
    assert not display.live
    display.line("a word")
    assert display.stream is None
    assert not terminal.Display(types.SimpleNamespace(write=print)).live, "not a file"


# ---- rehearsals


@pytest.fixture
def own_main(monkeypatch, tmp_path):
    "A rehearsal takes the place of the main program, and the current folder"
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.chdir(tmp_path)


def test_what_only_a_notebook_understands_is_left_out(own_main, tmp_path):
    path = template_in(tmp_path, "%matplotlib inline\nfound = 1", "assert found == 1\n!true", CODE)
    traces._run_cells(path, {"seeds": [0]}, [0])
    assert [p.name for p in tmp_path.glob("seed*.json")] == ["seed0.json"]


def test_a_template_that_fails_or_keeps_nothing(own_main, tmp_path):
    with pytest.raises(
        traces.TraceError, match=r"code cell 2 of demo \('1 / 0', line 1\) failed in the rehearsal: Zero"
    ):
        traces._run_cells(template_in(tmp_path, "1 / 0"), {}, [0])
    with pytest.raises(traces.TraceError, match="demo ran to its end and wrote no record for the seeds"):
        traces._run_cells(template_in(tmp_path, "pass"), {}, [0])


def test_the_process_that_rehearses_answers_with_a_sentence(own_main, tmp_path):
    job = traces._job(template_in(tmp_path, "1 / 0"), {}, [0], tmp_path / "answer.json")
    (tmp_path / "job.json").write_text(json.dumps(job | {"steps": 1, "seconds": 5.0, "examples": 10}))
    traces._child(str(tmp_path / "job.json"))
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert answer["trace"] is None and "failed in the rehearsal: ZeroDivisionError" in answer["error"]


def test_what_is_not_installed_is_not_loaded_beforehand(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    traces._import_first()  # the template says so, if it needs it


def test_bounds_need_two_levels_that_differ_in_amounts_only(monkeypatch):
    with pytest.raises(traces.TraceError, match="one instruction level only"):
        traces.measure_bound("two_moons", [{}], levels={"only": {}})
    record = {"seed": 0, "arm": "a", "data": "x", "history": {}, "extra": {}}
    old, new = (
        {"steps": [1], "seeds": [0], "fits": [], "records": [record | {"metrics": {"last": {name: 0.5}}}]}
        for name in ("test_accuracy", "test_loss")
    )
    monkeypatch.setattr(traces, "_at_each_level", lambda *_: [old, new])
    with pytest.raises(
        traces.TraceError, match="two_moons: the levels differ in more than an amount: .*in one of the traces only"
    ):
        traces.measure_bound("two_moons", [{}], levels={"one": {}, "other": {}})


# ---- what no other test reaches


def test_a_row_that_is_no_row(tmp_path):
    with pytest.raises(ValueError, match="the claim judge has no docstring; it must say its rule in one sentence"):

        @claims.claim(page="index", text="…", says="…")
        def judge(records):
            return None

    (tmp_path / "seed0.json").write_text("{")
    with pytest.raises(RecordError, match="would be written over, and it is no record that can be read"):
        refuse_another_run(tmp_path / "seed0.json", {})


def test_words_of_a_batch_that_do_not_go_together(tmp_path, capsys):
    assert cli.main(["batch", str(suite_in(tmp_path, ROW)), "--by-seed", "--keep-older"]) == 2
    assert "--keep-older is for batches of whole rows" in capsys.readouterr().err


def test_clusters_that_are_not_there(monkeypatch):
    with monkeypatch.context() as here:
        here.setitem(sys.modules, "distributed", None)
        with pytest.raises(RunnerError, match="units on a cluster need Dask: pip install"):
            executors.OnDask()

    def silent(command, **settings):
        raise subprocess.TimeoutExpired(command, settings["timeout"])

    monkeypatch.setattr(executors.subprocess, "run", silent)
    with pytest.raises(RunnerError, match="Slurm has not answered for a minute: ask `sinfo`"):
        executors._slurm_takes("#!/bin/sh")


@pytest.mark.filterwarnings("ignore:.*unclosed cluster", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_slurm_of_which_dask_knows_nothing():
    dask = pytest.importorskip("dask")
    pytest.importorskip("dask_jobqueue")
    with dask.config.set({"jobqueue.slurm.cores": None, "jobqueue.slurm.memory": None}):
        with pytest.raises(RunnerError, match="Say so in Dask's configuration, under jobqueue.slurm"):
            workers_of("slurm")


def test_templates_and_folders_that_the_runner_cannot_use(tmp_path):
    path = template_in(tmp_path, parameters="value: float = 0.5\n")
    with pytest.raises(SuiteError, match="template demo must declare 'seeds' in its parameter cell"):
        jobs._check_driven(templates.load_template(path))
    (tmp_path / "_work").mkdir()
    (tmp_path / "_work" / "job.json").write_text(json.dumps({"source": "other 12345678"}))
    with pytest.raises(SuiteError, match="holds results of another notebook called other. Choose another folder"):
        jobs._check_folder("a", tmp_path, "demo 12345678")
    with pytest.raises(SuiteError, match="'out' is given by the runner; choose the folder with --out"):
        runner.run_template(template_in(tmp_path, CODE), {"out": "here"}, out=tmp_path / "o")
    batch = types.SimpleNamespace(
        rows=[types.SimpleNamespace(pages=["../index"])], suite=types.SimpleNamespace(pages=[])
    )
    with pytest.raises(SuiteError, match="it must be the name of a notebook, without folders"):
        runner._page_names(batch)


def test_an_installation_without_templates(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "package_dir", lambda: tmp_path / "package")
    with pytest.raises(FileNotFoundError, match="the run templates are missing from this installation; reinstall"):
        places.experiments_dir()
    assert report.planned(["no such suite"]) == {}


def test_a_suite_of_too_many_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(suites, "MOST_ROWS", 3)
    twice = [{"row": f"{name}{{value}}", "each": {"value": [0.1, 0.2]}} for name in "ab"]
    with pytest.raises(SuiteError, match="a suite has at most 3 rows; make several suites of it"):
        load_suite(suite_in(tmp_path, *twice))


def test_parameter_cells_that_say_nothing(tmp_path, monkeypatch):
    assert templates.in_brief(10**5000) == "a int of enormous size"
    assert templates._named_literals(["%load_ext Literal"]) == {}
    assert templates._default(ast.parse("{[]: 1}", mode="eval").body) == ("{[]: 1}", False)
    with pytest.raises(SuiteError, match="demo"):
        templates.load_template(template_in(tmp_path, parameters='value: "a b" = 1\n'))

    def locked(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", locked)
    with pytest.raises(SuiteError, match="demo.ipynb cannot be read: Permission denied"):
        templates.read_text(tmp_path / "demo.ipynb", "notebook")


def test_a_record_that_was_damaged_on_its_way(tmp_path, monkeypatch):
    unit = units_of(load_suite(suite_in(tmp_path, ROW)).rows[0])[0]
    monkeypatch.setattr(executors, "read_note", lambda folder, problems: {"hash": "a"})
    monkeypatch.setattr(executors, "row_identity", lambda row, gpu: types.SimpleNamespace(hash="a"))
    assert "seed0.json" in executors._fault(unit, {"seed0.json": b"{"})


def test_a_rehearsal_without_end():
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(command, start_new_session=True) as process:
        with pytest.raises(traces.TraceError, match="the rehearsal of demo did not end within 0 seconds"):
            traces._wait(process, 0.01, "demo")


def test_a_rehearsal_that_is_refused_answers_with_a_sentence(tmp_path, monkeypatch):
    def refused(job):
        raise traces.TraceError("nothing was trained.")

    monkeypatch.setattr(traces, "_rehearsed", refused)
    (tmp_path / "job.json").write_text(json.dumps({"result": str(tmp_path / "result.json")}))
    traces._child(str(tmp_path / "job.json"))
    assert json.loads((tmp_path / "result.json").read_text()) == {"trace": None, "error": "nothing was trained."}


# ---- confirming, and the command line


def test_a_trace_that_cannot_be_replayed_confirms_nothing(tmp_path, monkeypatch):
    def refused(*of_row):
        raise traces.TraceError("nothing was trained.")

    monkeypatch.setattr(confirm, "_replay", refused)
    (tmp_path / "_work").mkdir()
    for folder in (tmp_path, tmp_path / "_work"):
        (folder / "trace.json").write_text(json.dumps({"marks": {"a": 1}, "fits": [1]}))
    job = {"folder": str(tmp_path), "notebook": "demo.ipynb", "given": {}, "seeds": [0]}
    assert confirm.replays_alike(job, None) is False
    row = types.SimpleNamespace(template=Path("demo.ipynb"), params={}, seeds=[0])
    assert confirm._confirm_by_trace(row, tmp_path) == confirm.Confirmation("unknown", "nothing was trained.")


def test_a_confirmation_that_is_interrupted_stops_its_run(tmp_path, monkeypatch):
    stopped = threading.Event()

    def interrupted(*of_job):
        raise KeyboardInterrupt

    monkeypatch.setattr(confirm, "replace", lambda row, **changed: row)
    monkeypatch.setattr(confirm, "row_job", lambda row, folder: {"folder": folder, "threads": 1})
    monkeypatch.setattr(confirm, "execute_job", lambda job: stopped.wait(60))
    monkeypatch.setattr(confirm, "stop_jobs", lambda folder: stopped.set())
    monkeypatch.setattr(confirm, "_stop_after", interrupted)
    with pytest.raises(KeyboardInterrupt):
        confirm._run_for(None, str(tmp_path), 1.0, None)
    assert stopped.is_set()


def test_records_that_are_damaged_are_not_brought_along(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "seed0.json").write_text("{")
    jobs._stage_records({"folder": str(tmp_path / "new"), "seeds": [0], "hash": "a"}, tmp_path / "old", None)
    assert not [*tmp_path.rglob("new/**/seed0.json")]


def test_a_value_that_is_no_yaml_is_a_text(tmp_path):
    with pytest.raises(SuiteError, match="value"):
        cli._value(template_in(tmp_path), "value", "[")


def test_what_the_command_does_when_nobody_reads_on(monkeypatch, capsys):
    def verb(failure):
        def run(args):
            raise failure

        monkeypatch.setitem(cli.VERBS, "report", types.SimpleNamespace(run=run))
        return types.SimpleNamespace(command="report", debug=isinstance(failure, KeyboardInterrupt))

    assert cli._called(verb(BrokenPipeError())) == 0
    with pytest.raises(KeyboardInterrupt):
        cli._called(verb(KeyboardInterrupt()))
    left = []
    monkeypatch.setattr(cli, "abandon", left.append)
    for failure, code in ((BrokenPipeError(), 0), (OSError(errno.ENOSPC, "No space left on device"), 1)):

        def flush(failure=failure):
            raise failure

        with monkeypatch.context() as here:
            here.setattr(sys, "stdout", types.SimpleNamespace(flush=flush))
            assert cli._flushed(0, "report") == code
    assert len(left) == 2 and "bayesbinn report: No space left on device" in capsys.readouterr().err
