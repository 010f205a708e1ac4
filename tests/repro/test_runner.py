"""The runner: whole rows never twice, a failing row hurts only itself, a killed one goes on, nothing finished is
lost."""

import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from bayesbinn_nb.library.process import cores
from bayesbinn_nb.repro import confirm, jobs, notebooks, records, runner
from bayesbinn_nb.repro.confirm import confirm_row
from bayesbinn_nb.repro.executed import clean_notebook, shrink_notebook
from bayesbinn_nb.repro.jobs import RunnerError, execute_job, kept_networks, row_identity, row_job
from bayesbinn_nb.repro.records import load_records, read_record
from bayesbinn_nb.repro.records import runs as same_runs
from bayesbinn_nb.repro.runner import folder_lock, row_state, run_suite, run_template
from bayesbinn_nb.repro.suites import SuiteError, load_suite

PARAMETERS = """value: float = .5
fault: str = ""
seeds: list[int] = [0]
out: str = "."
work_dir: str = "_work"
"""
CODE = """
import os, time
from pathlib import Path
from bayesbinn_nb.repro import records
from bayesbinn_nb.repro.records import pending_seeds, record_run
ran = pending_seeds(out, seeds)
for seed in ran:
    checkpoint = Path(work_dir)/f"seed{seed}.txt"
    resumed = checkpoint.exists()
    print(f"epoch 1/1  seed {seed}")
    if fault == "raise" and seed == 1: raise ValueError("the loss is nan at step 3")
    if fault == "dead": os.kill(os.getpid(), 9)
    if fault == "disk":
        def full(*a): raise OSError(28, "No space left on device")
        records.os.fsync = full
    if fault == "silent": continue
    if fault == "wait" and seed == 1 and not resumed:
        checkpoint.write_text("half way")
        time.sleep(120)
    record_run(out, experiment="demo", arm="a", seed=seed, method="none", parameters=dict(value=value), bundle=dict(name="nothing"), history={"test_accuracy": [value]},
               baseline=dict(name="chance", metric="test_accuracy", value=.1), extra=dict(resumed=resumed, threads=os.environ["OMP_NUM_THREADS"]))
print("here:", os.getcwd(), "ran", ran)
if fault == "large": print("x"*700_000)
"""  # noqa: E501


def notebook(path, code=CODE, parameters=PARAMETERS):
    cells = ([new_code_cell(parameters, metadata={"tags": ["parameters"]})] if parameters else []) + [
        new_code_cell(code)
    ]
    nbformat.write(new_notebook(cells=cells), path)
    return path


def suite_in(folder, rows, **kw):
    notebook(folder / "demo.ipynb")
    (folder / "mine.yaml").write_text(json.dumps(dict(defaults=dict(template="demo"), rows=rows, **kw)))
    return folder / "mine.yaml"


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    "One batch with every kind of row"
    folder = tmp_path_factory.mktemp("batch")
    path = suite_in(
        folder,
        [
            dict(
                row="good", seeds=[0, 1], baseline="chance", deviations=["nothing is trained"], pages=["page", "absent"]
            ),
            dict(row="raises", seeds=[0, 1], params=dict(fault="raise")),
            dict(row="dead", params=dict(fault="dead")),
            dict(row="disk", params=dict(fault="disk")),
            dict(row="silent", params=dict(fault="silent")),
            dict(row="low", params=dict(value=0.1), baseline="chance"),
            dict(row="unnamed", baseline="a coin"),
            dict(row="large", params=dict(fault="large")),
        ],
    )
    notebook(
        folder / "page.ipynb",
        "from bayesbinn_nb.repro.records import load_records\nprint(suite, [r.row for r in "
        "load_records(records_root, problems=[])])",
        'suite: str = ""\nrecords_root: str = "runs"',
    )
    log = io.StringIO()
    outcome = run_suite(path, out=folder / "runs", jobs=2, stream=log)
    return folder, path, outcome, log.getvalue()


def rows(outcome):
    return {r["name"]: r for r in outcome.rows}


def test_good_row_is_whole(batch):
    folder, path, outcome, log = batch
    assert rows(outcome)["good"]["status"] == "whole"
    records = load_records(folder / "runs", row="good")
    assert [r.seed for r in records] == [0, 1]
    r = records[0]
    assert (r.suite, r.notebook, r.deviations) == ("mine", "good.ipynb", ["nothing is trained"])
    assert 1 <= int(r.extra["threads"]) <= max(1, cores() // 2)  # two jobs share the cores
    assert sorted(p.name for p in (folder / "runs" / "good").iterdir()) == [
        "good.ipynb",
        "row.json",
        "seed0.json",
        "seed1.json",
    ]


def test_failures_hurt_only_their_row_and_are_named(batch):
    folder, path, outcome, log = batch
    got = rows(outcome)
    assert {n for n, r in got.items() if r["status"] == "failed"} == {
        "raises",
        "dead",
        "disk",
        "silent",
        "low",
        "unnamed",
    }
    assert not outcome.ok
    for name, message in dict(
        raises="ValueError: the loss is nan at step 3",
        dead="kernel died",
        disk="the disk is full; no part of it was left behind. Free some space",
        silent="without writing a record for seed 0",
        low="does not beat the baseline 'chance'",
        unnamed="no baseline of that name",
    ).items():
        assert message in got[name]["error"], got[name]["error"]
        assert "\n" not in got[name]["error"] and "Traceback" not in log
        assert got[name]["error"] in log
    failed = folder / "runs" / "raises" / "_failed" / "raises.failed.ipynb"
    assert got["raises"]["notebook"] == str(failed) and "the loss is nan" in failed.read_text()
    assert not (
        folder / "runs" / "raises" / "raises.ipynb"
    ).exists()  # a failed notebook never takes the place of a whole one
    assert load_records(folder / "runs", row="raises") == []  # a row's records arrive together, when it is whole
    assert [r.seed for r in load_records(folder / "runs" / "raises" / "_work" / "records")] == [
        0
    ]  # what is finished waits
    assert load_records(folder / "runs" / "disk") == []
    assert "run the same command again" in log


def test_kept_notebook_is_clean(batch):
    folder, *_ = batch
    text = (folder / "runs" / "good" / "good.ipynb").read_text()
    nb = nbformat.reads(text, 4)
    nbformat.validate(nb)
    assert (
        "papermill" not in text
        and str(folder) not in text
        and "epoch 1/1" not in json.dumps([c.get("outputs") for c in nb.cells])
    )
    assert nb.cells[1].metadata.tags == ["injected-parameters"]
    assert nb.cells[-1].outputs[0].text == "here: . ran [0, 1]\n"


def test_size_limit(batch):
    folder, _, outcome, log = batch
    path = folder / "runs" / "large" / "large.ipynb"
    assert rows(outcome)["large"]["status"] == "whole" and path.stat().st_size < 600_000
    assert "700 kB was left out" in path.read_text() and "its largest outputs were left out" in log


def test_pages_run_last_and_read_the_records(batch):
    folder, _, outcome, log = batch
    assert {p["name"]: p["status"] for p in outcome.pages} == {"page": "whole"}
    page = nbformat.read(folder / "runs" / "pages" / "page.ipynb", 4)
    assert page.cells[-1].outputs[0].text.startswith("mine ['good', 'good', 'large'")
    assert "outputs" not in json.dumps(nbformat.read(folder / "page.ipynb", 4).cells[-1].get("outputs", []))


def test_pages_of_committed_suites_are_executed_where_they_stand(tmp_path, monkeypatch):
    results = tmp_path / "results"
    results.mkdir()
    (tmp_path / "lists" / "suites").mkdir(parents=True)
    path = suite_in(tmp_path / "lists" / "suites", [dict(row="a", pages="page")])
    path = path.rename(path.with_name("short.yaml"))
    monkeypatch.setattr(runner, "experiments_dir", lambda: tmp_path / "lists")  # it is the package's own
    page = notebook(
        results / "page.ipynb",
        "from pathlib import Path\nprint(repr(suite), sorted(p.name for p in Path(records_root).rglob('seed*.json')))",
        'suite: str = ""\nrecords_root: str = "runs"',
    )
    monkeypatch.setattr(runner, "results_dir", lambda: results)
    monkeypatch.setattr(runner, "default_out", lambda name: results / "runs" / name)
    outcome = run_suite(path, quiet=True)
    assert outcome.ok and [p["status"] for p in outcome.pages] == ["whole"], outcome
    nb = nbformat.read(page, 4)
    assert [c.metadata.get("tags") for c in nb.cells] == [["parameters"], None]  # no parameters were injected
    assert nb.cells[-1].outputs[0].text == "'' ['seed0.json']\n"
    assert not (results / "pages").exists() and not (results / "runs" / "short" / "_pages").exists()
    assert [p["status"] for p in run_suite(path, quiet=True).pages] == [
        "kept"
    ]  # its own outputs do not count as a change


def test_second_run_repeats_nothing_whole(batch):
    folder, path, *_ = batch
    stamp = {p: p.stat().st_mtime_ns for p in (folder / "runs" / "good").iterdir()}
    log = io.StringIO()
    outcome = run_suite(path, only="good,large", out=folder / "runs", stream=log)
    assert outcome.ok and {r["status"] for r in outcome.rows + outcome.pages} == {"kept"}
    assert "0 of 2 rows to run, 2 already whole" in log.getvalue()
    assert {p: p.stat().st_mtime_ns for p in (folder / "runs" / "good").iterdir()} == stamp


def other_code(row, gpu=False):
    "The identity that a row would have if something that it reaches had changed"
    real = row_identity(row, gpu)
    return replace(real, hash=real.hash[::-1])


def test_what_makes_a_row_run_again(batch, monkeypatch):
    folder, path, *_ = batch
    row = load_suite(path).select("good")[0]
    where = folder / "runs" / "good"
    assert row_state(row, where) == "whole"
    original = (folder / "demo.ipynb").read_text()
    try:
        notebook(folder / "demo.ipynb", CODE.replace("import os, time", "# time is short\nimport os, time\n"))
        assert row_state(row, where) == "whole"  # a comment is not code
        notebook(folder / "demo.ipynb", CODE.replace("[value]", "[value + 0]"))
        assert row_state(row, where) == "older code"
    finally:
        (folder / "demo.ipynb").write_text(original)
    with monkeypatch.context() as changed:
        changed.setattr(runner, "row_identity", other_code)
        assert row_state(row, where) == "older code"
    row.params = dict(value=0.7)
    assert row_state(row, where) == "older code"
    row.params = {}
    row.seeds = [0]
    assert row_state(row, where) == "whole"  # fewer seeds: nothing to do
    row.seeds = [0, 1, 2]
    assert row_state(row, where) == "partial"  # more seeds: the others are kept
    monkeypatch.setattr(runner, "row_identity", other_code)
    said = io.StringIO()
    outcome = run_suite(path, only="good", out=folder / "runs", keep_older=True, pages=False, stream=said)
    assert (
        rows(outcome)["good"]["status"] == "older"
        and "1 of older code kept" in said.getvalue()
        and "whole" not in said.getvalue()
    )


def test_corrupt_record_is_reported_and_only_its_seed_runs_again(tmp_path):
    path = suite_in(tmp_path, [dict(row="r", seeds=[0, 1])])
    assert run_suite(path, out=tmp_path / "runs", quiet=True).ok
    victim, other = tmp_path / "runs" / "r" / "seed0.json", tmp_path / "runs" / "r" / "seed1.json"
    before = other.read_bytes()
    victim.write_text(victim.read_text()[:300])
    log = io.StringIO()
    outcome = run_suite(path, out=tmp_path / "runs", stream=log)
    assert not outcome.ok and not outcome.failed  # a damaged file makes the batch end with a fault, whatever came of it
    assert "left unread" in log.getvalue() and "seed0.json" in log.getvalue()
    assert read_record(victim).seed == 0 and other.read_bytes() == before
    assert "ran [0]" in (tmp_path / "runs" / "r" / "r.ipynb").read_text()
    assert run_suite(path, out=tmp_path / "runs", quiet=True).ok


START = (
    "import sys; from bayesbinn_nb.repro.runner import run_suite; o = run_suite(sys.argv[1], out=sys.argv[2]); "
    "sys.exit(0 if o.ok else 130 if o.stopped else 1)"
)


def start(path, out):
    return subprocess.Popen(
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        args=[sys.executable, "-c", START, str(path), str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until(condition, seconds=40):
    end = time.time() + seconds
    while time.time() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_in_the_middle_goes_on(tmp_path, how):
    path, row = (
        suite_in(tmp_path, [dict(row="r", seeds=[0, 1], params=dict(fault="wait")), dict(row="never")]),
        tmp_path / "runs" / "r",
    )
    process = start(path, tmp_path / "runs")
    assert until((row / "_work" / "seed1.txt").exists), process.communicate(timeout=5)[0]
    family = psutil.Process(process.pid).children(recursive=True)
    with pytest.raises(RunnerError, match=f"pid {process.pid} "):  # a second runner on the same folder
        run_suite(path, out=tmp_path / "runs", quiet=True)
    process.send_signal(how)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == (-9 if how == signal.SIGKILL else 130)
    if how == signal.SIGINT:
        assert "Stopped. Run the same command again" in output and "Traceback" not in output
    assert not psutil.wait_procs(family, timeout=15)[1]  # no orphan goes on writing
    first = (row / "_work" / "records" / "seed0.json").read_bytes()
    assert not list(row.glob("seed*.json")) and not (row / "r.ipynb").exists()
    outcome = run_suite(path, only="r", out=tmp_path / "runs", quiet=True)  # the dead runner's lock is free
    assert outcome.ok
    assert (row / "seed0.json").read_bytes() == first
    assert read_record(row / "seed1.json").extra["resumed"] is True  # the checkpoint in work_dir survived
    assert not (row / "_work").exists()


def test_checkpoints_of_other_settings_are_not_used(tmp_path):
    row = tmp_path / "runs" / "r"
    assert not run_suite(
        suite_in(tmp_path, [dict(row="r", params=dict(fault="dead"))]), out=tmp_path / "runs", quiet=True
    ).ok
    (row / "_work" / "seed0.txt").write_text("half way")  # what the dead run had reached
    assert run_suite(suite_in(tmp_path, [dict(row="r")]), out=tmp_path / "runs", quiet=True).ok
    assert read_record(row / "seed0.json").extra["resumed"] is False


def test_stale_lock_is_taken_over_and_released(tmp_path):
    (tmp_path / ".lock").write_text("pid 999999 on elsewhere")
    with folder_lock(tmp_path):
        with pytest.raises(RunnerError, match=f"pid {os.getpid()} .*Wait until it ends.* --by-seed share one"):
            with folder_lock(tmp_path):
                pass
    with folder_lock(tmp_path):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(RunnerError, match="cannot write to"):
        with folder_lock(tmp_path / "file"):
            pass


class Shipping(ThreadPoolExecutor):
    "Stands for a cluster: what is submitted must survive pickling"

    jobs = 0

    def submit(self, fn, /, *args):
        self.jobs += 1
        fn, args = pickle.loads(pickle.dumps((fn, args)))
        return super().submit(lambda: pickle.loads(pickle.dumps(fn(*args))))


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", ""])
def test_a_page_is_a_plain_name(tmp_path, name):
    suite = load_suite(suite_in(tmp_path, [dict(row="a")]))
    suite.pages = [name]
    with pytest.raises(SuiteError, match="must be the name of a notebook"):
        run_suite(suite, out=tmp_path / "runs", quiet=True)
    assert not (tmp_path / "runs").exists()


def test_threads(tmp_path, monkeypatch):
    job = dict(threads=4, folder=str(tmp_path), context={}, hash="")
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    assert [jobs.job_environment(job)[n] for n in names] == ["4"] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert [jobs.job_environment(job)[n] for n in names] == ["2"] * 3  # fewer were asked for
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert [jobs.job_environment(job)[n] for n in names] == ["4"] * 3
    monkeypatch.setenv("BAYESBINN_DATA", "data")
    assert jobs.job_environment(job)["BAYESBINN_DATA"] == os.path.abspath("data")  # the notebook runs in another folder


def test_any_executor(tmp_path):
    path = suite_in(tmp_path, [dict(row="a")])
    with Shipping(1) as executor:
        assert run_suite(path, out=tmp_path / "runs", executor=executor, quiet=True).ok
        assert executor.jobs == 1
        assert executor.submit(abs, -1).result() == 1  # still open


def test_wrong_parameters_stop_before_anything_runs(tmp_path):
    path = suite_in(tmp_path, [dict(row="a"), dict(row="b", params=dict(valeu=1.0))])
    with pytest.raises(SuiteError, match="b: template demo has no parameter 'valeu'; did you mean 'value'"):
        run_suite(path, out=tmp_path / "runs", quiet=True)
    assert not (tmp_path / "runs").exists()
    notebook(tmp_path / "demo.ipynb", parameters="value: float = 1.")
    with pytest.raises(SuiteError, match="must declare 'seeds'"):
        run_template(tmp_path / "demo.ipynb", dict(value=2.0), out=tmp_path / "runs", quiet=True)
    with pytest.raises(SuiteError, match="given by the runner"):
        run_template(tmp_path / "demo.ipynb", dict(out="x"), out=tmp_path / "runs", quiet=True)
    with pytest.raises(SuiteError, match="jobs is 0"):
        run_suite(suite_in(tmp_path, [dict(row="a")]), jobs=0, out=tmp_path / "runs")


def test_missing_data_is_said_without_starting_the_notebook(tmp_path, monkeypatch):
    monkeypatch.setenv("BAYESBINN_DATA", str(tmp_path / "nothing"))
    suite = load_suite(suite_in(tmp_path, [dict(row="a", needs=["mnist"])]))
    with pytest.raises(RunnerError, match="MNIST is not on this machine.*--fetch mnist"):
        jobs._need(suite.rows[0].needs)
    jobs._need(["digits"])


def test_marks_results_inside_nbdevs_tree(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / ".notest").touch()
    path = suite_in(tmp_path, [dict(row="a")])
    suite = load_suite(path)
    runner.mark_untested(tmp_path / "results" / "runs" / "mine", suite.rows)
    assert (tmp_path / "results" / "runs" / "mine" / "a" / ".notest").exists()
    runner.mark_untested(tmp_path / "elsewhere", suite.rows)
    assert not (tmp_path / "elsewhere").exists()


def test_clean_and_shrink():
    nb = new_notebook(
        metadata={"papermill": {"start_time": "now"}, "language_info": {"name": "python", "version": "3.11.7"}},
        cells=[new_code_cell("x")],
    )
    nb.cells[0].outputs = [
        new_output("stream", name="stdout", text="a"),
        new_output("stream", name="stdout", text="b\n 10%\r 20%\rdone\n"),
        new_output("stream", name="stderr", text="  3%|▎  | 1/30\r  7%|▋ | 2/30\n"),
        new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}, "text/plain": "bar"}),
        new_output("execute_result", data={"text/plain": "<A at 0x7f12345678ab> in /here/x"}, execution_count=1),
        new_output("display_data", data={"image/png": "A" * 5000}),
    ]
    nb = clean_notebook(json.loads(nbformat.writes(nb)), ["/here"])
    texts = [o.get("text") or o["data"].get("text/plain") for o in nb["cells"][0]["outputs"]]
    assert texts == ["ab\ndone\n", "<A> in x", None]
    assert set(nb["metadata"]) == {"kernelspec"}
    nb = shrink_notebook(nb, 3000)
    assert "left out" in nb["cells"][0]["outputs"][2]["text"] and nb["cells"][0]["outputs"][0]["text"] == "ab\ndone\n"
    nbformat.validate(nbformat.from_dict(nb))


# ---- the same numbers

TRAINS = """import time, torch
from bayesbinn_nb.library.data import load_data
from bayesbinn_nb.library.models import build_model
from bayesbinn_nb.library.trainer import Callback, Trainer
from bayesbinn_nb.methods.ste import STE
from bayesbinn_nb.repro.records import pending_seeds, record_run
class Slowly(Callback):
    def on_epoch_end(self, trainer, logs): time.sleep(nap if logs["epoch"] > 1 else 0)
data = load_data("digits")
for seed in pending_seeds(out, seeds):
    trainer = Trainer(build_model("mnist_mlp", in_features=64, hidden=16), device="cpu", seed=seed).compile(STE(lr=1e-2))
    history = trainer.fit(data.train, data.val, epochs=3, progress="silent", checkpoint_dir=f"{work_dir}/seed{seed}", callbacks=[Slowly()])
    record_run(out, experiment="demo", arm="ste", seed=seed, method="ste", bundle=data, history=history, parameters={})"""  # noqa: E501


def said_of(found):
    return found.answer, found.said


def test_a_row_is_confirmed_by_its_numbers(tmp_path, monkeypatch):
    cell = new_code_cell(
        'nap: float = 0.\nseeds: list[int] = [0]\nout: str = "."\nwork_dir: str = "_work"',
        metadata={"tags": ["parameters"]},
    )
    nbformat.write(new_notebook(cells=[cell, new_code_cell(TRAINS)]), tmp_path / "trains.ipynb")
    (tmp_path / "mine.yaml").write_text(
        json.dumps(
            dict(
                defaults=dict(template="trains"),
                rows=[dict(row="fast", seeds=[0, 1]), dict(row="slow", params=dict(nap=1.5))],
            )
        )
    )
    fast, slow = load_suite(tmp_path / "mine.yaml").rows
    out = tmp_path / "runs"
    assert said_of(confirm_row(fast, out / "fast")) == ("unknown", "not run; nothing to compare with")
    assert run_suite(tmp_path / "mine.yaml", out=out, quiet=True).ok
    assert said_of(confirm_row(fast, out / "fast")) == ("unknown", "it has no trace; use --minutes")
    assert said_of(confirm_row(fast, out / "fast", 2)) == ("the same", "6 epochs and all final numbers")
    assert confirm_row(slow, out / "slow", minutes=0).counts
    assert "confirmed" not in json.loads((out / "slow" / "row.json").read_text())  # it was whole

    with monkeypatch.context() as changed:  # a change of code that changes no number
        changed.setattr(runner, "row_identity", other_code)
        changed.setattr(confirm, "row_identity", other_code)
        assert row_state(slow, out / "slow") == "older code"
        found = confirm_row(slow, out / "slow", minutes=0)
        assert found.counts and found.said in ("1 epoch of 3", "2 epochs of 3")
        assert row_state(slow, out / "slow") == "whole" and row_state(fast, out / "fast") == "older code"
    assert row_state(slow, out / "slow") == "whole"  # the record's own code is back
    slow.params = dict(nap=0.0)
    assert row_state(slow, out / "slow") == "older code"
    refused = said_of(confirm_row(slow, out / "slow", 2))
    assert refused == ("unknown", "its parameters have changed; run it again instead")

    file = next((out / "fast").glob("seed1*.json"))
    record = json.loads(file.read_text())
    record["history"]["val_accuracy"][1] += 1e-9
    record["checksum"] = records._checksum(record)
    file.write_text(json.dumps(record))
    found = confirm_row(fast, out / "fast", 2)
    assert found.answer == "differs" and found.said.startswith("val_accuracy after epoch 2 is 0.")


COMPANY = """from bayesbinn_nb.repro.records import pending_seeds, record_run
for seed in pending_seeds(out, seeds):
    record_run(out, experiment="demo", arm="a", seed=seed, method="none", bundle=dict(name="nothing"), history={"test_accuracy": [.5 + 1e-9*len(seeds)]}, parameters={}, extra=dict(trained_together=seeds))"""  # noqa: E501


def test_seeds_that_train_together_are_confirmed_together(tmp_path):
    suite_in(tmp_path, [dict(row="r")])
    notebook(tmp_path / "demo.ipynb", COMPANY)

    def batch(*seeds):
        suite = load_suite(tmp_path / "mine.yaml")
        suite.rows[0].seeds = list(seeds)
        assert run_suite(suite, out=tmp_path / "runs", quiet=True).ok
        return suite.rows[0]

    row, where = load_suite(tmp_path / "mine.yaml").rows[0], tmp_path / "runs" / "r"
    batch(0, 1, 2)  # as `batch --seeds 3` does
    everything = ("the same", "3 epochs and all final numbers")
    assert row.seeds == [0] and said_of(confirm_row(row, where, 2)) == everything
    row.seeds = [0, 1, 2, 3, 4]  # the suite wants more than there are
    assert row_state(row, where) == "partial" and said_of(confirm_row(row, where, 2)) == everything
    batch(0, 1, 2, 3)
    row.seeds = [0]
    alone = "1 epoch and all final numbers; without seed 0, 1, 2, trained in other company"
    assert said_of(confirm_row(row, where, 2)) == ("the same", alone)
    notebook(tmp_path / "demo.ipynb", COMPANY.replace(".5 +", ".6 +"))
    assert confirm_row(row, where, 2).answer == "differs"  # what is compared is compared
    notebook(tmp_path / "demo.ipynb", COMPANY)
    (where / "r.ipynb").unlink()
    batch(1)  # nothing to train, a new list of seeds
    company = "its seeds were trained in other company than that of today; run it again instead"
    assert said_of(confirm_row(row, where, 2)) == ("unknown", company)


TOGETHER = (
    TRAINS.replace(
        "from bayesbinn_nb.library.trainer",
        "from bayesbinn_nb.library.together import fit_together\nfrom bayesbinn_nb.library.trainer",
    ).partition("for seed in")[0]
    + """
waiting = pending_seeds(out, seeds)
trainers = [Trainer(build_model("mnist_mlp", in_features=64, hidden=16), device="cpu", seed=seed).compile(STE(lr=1e-2)) for seed in seeds]
for t in trainers: t.prepare(len(data.train))
histories = fit_together(trainers, data.train, data.val, epochs=3, progress="silent", checkpoint_dir=f"{work_dir}/{'-'.join(map(str, seeds))}", callbacks=[Slowly()])
for seed, history in zip(seeds, histories):
    if seed in waiting: record_run(out, experiment="demo", arm="ste", seed=seed, method="ste", bundle=data, history=history, parameters={}, extra=dict(trained_together=seeds))"""  # noqa: E501
)


def test_a_checkpoint_of_several_seeds_says_whose_histories_it_holds(tmp_path):
    "Stopped early, with one seed from an earlier batch: that seed's history is nobody's else"
    cell = new_code_cell(
        'nap: float = 1.5\nseeds: list[int] = [0]\nout: str = "."\nwork_dir: str = "_work"',
        metadata={"tags": ["parameters"]},
    )
    nbformat.write(new_notebook(cells=[cell, new_code_cell(TOGETHER)]), tmp_path / "trains.ipynb")
    (tmp_path / "mine.yaml").write_text(json.dumps(dict(defaults=dict(template="trains"), rows=[dict(row="r")])))
    for seeds in ([0], [0, 1, 2]):
        suite = load_suite(tmp_path / "mine.yaml")
        suite.rows[0].seeds = seeds
        assert run_suite(suite, out=tmp_path / "runs", quiet=True).ok
    found = confirm_row(load_suite(tmp_path / "mine.yaml").rows[0], tmp_path / "runs" / "r", minutes=0)
    assert found.counts and found.said.endswith(" of 6; without seed 0, trained in other company"), found


# ---- the trained networks

LEAVES = """from pathlib import Path
from bayesbinn_nb.repro.records import pending_seeds, record_run
for seed in pending_seeds(out, seeds):
    file = Path(work_dir)/f"seed{seed}"/"last.pt"
    resumed = file.exists()
    file.parent.mkdir(exist_ok=True)
    file.write_text("a network")
    record_run(out, experiment="demo", arm="a", seed=seed, method="none", bundle=dict(name="nothing"), history={"test_accuracy": [.9]}, parameters={}, extra=dict(resumed=resumed))"""  # noqa: E501


def test_networks_are_kept_on_request(tmp_path):
    from bayesbinn_nb.site.pages import find_notebooks

    def batch(*seeds, **kw):
        suite, log = load_suite(tmp_path / "mine.yaml"), io.StringIO()
        suite.rows[0].seeds = list(seeds)
        assert run_suite(suite, out=out, stream=log, **kw).ok
        return log.getvalue()

    suite_in(tmp_path, [dict(row="r")])
    notebook(tmp_path / "demo.ipynb", LEAVES)
    row, out = load_suite(tmp_path / "mine.yaml").rows[0], tmp_path / "runs"
    where = out / "r"

    def left():
        return sorted(p.relative_to(where).as_posix() for p in where.rglob("*") if p.is_file() and p.parent != where)

    assert "Networks" not in batch(0) and left() == [] and kept_networks(where) is None
    said = batch(0, keep=True)
    assert (
        "1 already whole" in said
        and "r: it was whole already, and its networks were not kept; run it with --keep into another folder" in said
        and left() == []
    )
    for path in where.iterdir():
        path.unlink()

    said = batch(0, keep=True)
    assert left() == ["_work/job.json", "_work/seed0/last.pt"] and kept_networks(where) == where / "_work"
    assert (
        "Networks: " in said
        and f"bayesbinn inspect {runner.short_path(where / '_work' / 'seed0' / 'last.pt')}\n" in said
    )
    assert row_state(row, where) == "whole" and len(load_records(out)) == 1
    assert "1 already whole" in batch(0, keep=True) and "Networks: " in batch(0, keep=True)
    assert [p.name for p in find_notebooks(out, "**/*.ipynb")] == ["r.ipynb"]
    assert "_work/" in (Path(__file__).parents[2] / ".gitignore").read_text().splitlines()
    batch(0, 1)  # more seeds, and no word of keeping: what was kept stays
    assert left() == ["_work/job.json", "_work/seed0/last.pt", "_work/seed1/last.pt"] and kept_networks(where)

    (where / "seed0.json").unlink()  # its network is still there: the record is made from it
    assert row_state(row, where) == "partial"
    batch(0, 1)
    assert read_record(where / "seed0.json").extra["resumed"] is True and row_state(row, where) == "whole"

    notebook(
        tmp_path / "demo.ipynb", LEAVES.replace("[.9]", "[.8]")
    )  # other code: the old networks go with its records
    assert row_state(row, where) == "older code" and kept_networks(where)
    batch(0, 1)
    assert left() == [] and row_state(row, where) == "whole"


def test_kept_networks_wait_until_newer_code_has_run(tmp_path):
    "A run that fails costs no trained network; back to the code of before, everything is as it was"
    path, out, where = suite_in(tmp_path, [dict(row="r")]), tmp_path / "runs", tmp_path / "runs" / "r"
    notebook(tmp_path / "demo.ipynb", LEAVES)
    assert run_suite(path, out=out, quiet=True, keep=True).ok
    for fault in ("1/0", "1//0"):
        notebook(tmp_path / "demo.ipynb", f"{LEAVES}\n{fault}")
        assert not run_suite(path, out=out, quiet=True).ok
        assert (kept_networks(where) / "seed0" / "last.pt").read_text() == "a network"
    notebook(tmp_path / "demo.ipynb", LEAVES)
    assert [r["status"] for r in run_suite(path, out=out, quiet=True).rows] == ["kept"]
    assert kept_networks(where) == where / "_work" and (where / "_work" / "seed0" / "last.pt").exists()
    notebook(tmp_path / "demo.ipynb", LEAVES.replace("[.9]", "[.8]"))
    assert run_suite(path, out=out, quiet=True).ok
    assert kept_networks(where) is None and not [p for p in where.glob("_*") if p.name != "_older"]


ARMS = """from bayesbinn_nb.repro.records import pending_seeds, record_run
for seed in pending_seeds(out, seeds):
    for arm in ("a", "b"):
        record_run(out, experiment="demo", arm=arm, seed=seed, method="none", bundle=dict(name="nothing"), history={"test_accuracy": [.9]}, parameters={}, several_arms=True)"""  # noqa: E501


def test_a_row_whose_arm_is_missing_is_not_whole(tmp_path):
    path, where = suite_in(tmp_path, [dict(row="r", seeds=[0, 1])]), tmp_path / "runs" / "r"
    notebook(tmp_path / "demo.ipynb", ARMS)
    assert run_suite(path, out=tmp_path / "runs", quiet=True).ok
    row = load_suite(path).rows[0]
    lost = where / "seed1-b.json"
    lost.unlink()
    row.seeds = [0]
    assert row_state(row, where) == "whole"
    row.seeds = [0, 1]
    assert row_state(row, where) == "partial"
    assert run_suite(path, out=tmp_path / "runs", quiet=True).ok and lost.exists() and row_state(row, where) == "whole"
    lost.write_text("{")
    problems = []
    assert row_state(row, where, problems) == "partial" and problems[0].startswith("left unread: r/seed1-b.json")
    note = json.loads((where / "row.json").read_text())
    del note["records"]  # an older note names none
    (where / "row.json").write_text(json.dumps(note))
    assert row_state(row, where) == "whole"


def test_a_stopped_run_keeps_what_it_was_told_to_keep(tmp_path):
    path, row = suite_in(tmp_path, [dict(row="r", params=dict(fault="dead"))]), tmp_path / "runs" / "r"
    assert not run_suite(path, out=tmp_path / "runs", quiet=True, keep=True).ok and kept_networks(row) is None
    job = json.loads((row / "_work" / "job.json").read_text())
    (row / "_work" / "seed0.txt").write_text("half way")
    answer = execute_job(
        row_job(load_suite(path).rows[0], tmp_path / "runs") | dict(params=job["params"] | dict(fault=""))
    )  # goes on, and nobody says it again
    assert answer["error"] is None and sorted(p.name for p in (row / "_work").iterdir()) == ["job.json", "seed0.txt"]


def test_a_template_without_checkpoints_has_nothing_to_keep(tmp_path):
    log = io.StringIO()
    assert run_suite(suite_in(tmp_path, [dict(row="r")]), out=tmp_path / "runs", keep=True, stream=log).ok
    assert "r: its template keeps no checkpoints" in log.getvalue() and not (tmp_path / "runs" / "r" / "_work").exists()


# ---- records of older code


def test_records_of_older_code_are_kept_apart(tmp_path):
    "Five seeds of a fault and three of the mended code are not eight runs"
    path = suite_in(tmp_path, [dict(row="r", seeds=[0, 1, 2, 3], params=dict(value=0.5))])
    assert run_suite(path, out=tmp_path / "runs", quiet=True).ok
    before = load_records(tmp_path / "runs" / "r")
    path = suite_in(tmp_path, [dict(row="r", seeds=[0, 1], params=dict(value=0.5))])
    notebook(tmp_path / "demo.ipynb", CODE.replace("[value]", "[value + .4]"))
    assert run_suite(path, out=tmp_path / "runs", quiet=True).ok
    now = load_records(tmp_path / "runs" / "r")
    assert {r.seed for r in now} == {0, 1} and {r.metric("test_accuracy") for r in now} == {0.9}
    assert sorted(p.name for p in (tmp_path / "runs" / "r" / "_older").iterdir()) == ["seed2.json", "seed3.json"]
    mixed = [r for r in before if r.seed > 1] + now  # as a run that was stopped leaves them
    assert sorted(map(len, same_runs(mixed))) == [2, 2]


def test_a_declared_deviation_belongs_to_the_run(tmp_path):
    row, changed = (
        load_suite(suite_in(tmp_path, [dict(row="r", **more)])).rows[0]
        for more in ({}, dict(deviations=["half the width"]))
    )
    assert row_identity(row).hash != row_identity(changed).hash


@pytest.mark.parametrize(
    "row, said",
    [
        (dict(baseline=3), "'baseline' is the name of a baseline"),
        (dict(seeds=[1, 1]), "different numbers"),
        (dict(seeds=[]), "at least one"),
        (dict(params=[1]), "'params' wants name: value"),
    ],
)
def test_wrong_rows_are_refused_before_training(tmp_path, row, said):
    with pytest.raises(SuiteError, match=said):
        load_suite(suite_in(tmp_path, [dict(row="r", **row)]))


def test_unknown_data_and_seeds_are_refused(tmp_path):
    outcome = run_suite(suite_in(tmp_path, [dict(row="r", needs=["mnits"])]), out=tmp_path / "runs", quiet=True)
    assert "there is no such data set" in rows(outcome)["r"]["error"]
    for seeds in ([-1], []):
        with pytest.raises(SuiteError, match="different numbers ≥ 0"):
            run_template(tmp_path / "demo.ipynb", dict(seeds=seeds), out=tmp_path / "one", quiet=True)


def test_confirm_misses_nothing(tmp_path):
    "Final numbers, what stands in `extra`, and records that are no longer made"
    path = suite_in(tmp_path, [dict(row="r", seeds=[0, 1])])
    assert run_suite(path, out=tmp_path / "runs", quiet=True).ok
    row, where = load_suite(path).rows[0], tmp_path / "runs" / "r"
    assert confirm_row(row, where, 2).answer == "the same"
    for old, new, said in (
        ("resumed=resumed", "resumed=1", "extra, resumed is False in the record and 1 now"),
        ("extra=dict(", "extra=dict(other=1) if seed else dict(", "extra, resumed is False in the record and None now"),
        ("[value]", "[value + 1e-9]", "test_accuracy after epoch 1 is 0.5 in the record"),
    ):
        notebook(tmp_path / "demo.ipynb", CODE.replace(old, new))
        found = confirm_row(row, where, 2)
        assert found.answer == "differs" and found.said.startswith(said), found


# ---- a number is filed under the code that made it

CHANGES = """import os, time
from pathlib import Path
from bayesbinn_nb.repro.records import pending_seeds, record_run
import own_code_that_changes
for seed in pending_seeds(out, seeds):
    if seed == late:
        path = Path(own_code_that_changes.__file__)
        path.write_text(path.read_text().replace("1", "2"))
    record_run(out, experiment="demo", arm="a", seed=seed, method="none", bundle=dict(name="nothing"),
               history={"test_accuracy": [.5]}, parameters={})
if late == -1:
    path = Path(own_code_that_changes.__file__)
    path.write_text(path.read_text().replace("1", "2"))"""


@pytest.mark.parametrize("late, filed", [(1, [0]), (-1, [0, 1])])
def test_code_that_changes_while_a_row_runs_is_noticed(tmp_path, monkeypatch, late, filed):
    "Before a record is written, and once more at the end; the row begins anew under the new code"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_code_that_changes.py").write_text("class Mine:\n    rate = 1\n")
    parameters = PARAMETERS.replace('fault: str = ""', 'own: str = "own_code_that_changes:Mine"\nlate: int = -2')
    rows_ = [dict(row="r", seeds=[0, 1], params=dict(late=late))]
    path = suite_in(tmp_path, rows_)
    notebook(tmp_path / "demo.ipynb", CHANGES, parameters)
    row, where = load_suite(path).rows[0], tmp_path / "runs" / "r"
    before = row_identity(row).hash
    outcome = run_suite(path, out=tmp_path / "runs", quiet=True)
    assert "the code changed while" in rows(outcome)["r"]["error"]
    assert row_identity(row).hash != before and row_state(row, where) == "partial"
    assert load_records(where) == [] and not (where / "row.json").exists()
    assert [r.hash for r in load_records(where / "_work" / "records")] == [before] * len(filed)
    path = suite_in(tmp_path, [dict(row="r", seeds=[0, 1])])  # nobody edits now
    notebook(tmp_path / "demo.ipynb", CHANGES, parameters)
    assert run_suite(path, out=tmp_path / "runs", quiet=True).ok
    assert {r.hash for r in load_records(where)} == {row_identity(load_suite(path).rows[0]).hash}


def test_code_edited_during_a_batch_counts_for_the_rows_that_start_later(tmp_path, monkeypatch):
    "The identity is that of the moment at which a row starts, not of the plan"
    path = suite_in(tmp_path, [dict(row="first"), dict(row="second")])
    edited = CODE.replace("[value]", "[value + .1]")
    start_job = jobs._start

    def edit_after_the_first(job, work):
        process = start_job(job, work)
        if job["name"] == "first":
            process.wait()
            notebook(tmp_path / "demo.ipynb", edited)
        return process

    monkeypatch.setattr(jobs, "_start", edit_after_the_first)
    assert run_suite(path, out=tmp_path / "runs", quiet=True).ok
    suite = load_suite(path)
    found = {r.row: r for r in load_records(tmp_path / "runs")}
    assert found["first"].hash != found["second"].hash == row_identity(suite.rows[1]).hash
    assert found["second"].metric("test_accuracy") == 0.6
    assert [row_state(row, tmp_path / "runs" / row.name) for row in suite.rows] == ["older code", "whole"]


def test_a_working_folder_that_cannot_be_read_is_put_aside(tmp_path):
    path, work = suite_in(tmp_path, [dict(row="r")]), tmp_path / "runs" / "r" / "_work"
    for damage in (None, "", "[1]", '{"keep": true}'):
        work.mkdir(parents=True)
        (work / "seed0.txt").write_text("half way")
        if damage is not None:
            (work / "job.json").write_text(damage)
        assert run_suite(path, out=tmp_path / "runs", quiet=True).ok
        assert read_record(tmp_path / "runs" / "r" / "seed0.json").extra["resumed"] is False
        assert not work.exists()
        (tmp_path / "runs" / "r" / "row.json").unlink()
        (tmp_path / "runs" / "r" / "seed0.json").unlink()


@pytest.mark.skipif(os.name == "nt", reason="there are no such sockets")
def test_no_kernel_listens_at_a_port_that_another_may_take(tmp_path):
    say = "from ipykernel import get_connection_info\nprint(get_connection_info(unpack=True)['transport'])"
    template = notebook(tmp_path / "row.ipynb", f"{CODE}\n{say}")
    outcome = run_template(template, {}, out=tmp_path / "out", quiet=True)
    assert outcome.ok, outcome.rows
    (row,) = (tmp_path / "out").rglob("*.ipynb")
    page = notebooks.executed(notebook(tmp_path / "page.ipynb", say, ""))
    for executed in (json.loads(row.read_text()), page):
        (output,) = executed["cells"][-1]["outputs"]
        assert "".join(output["text"]).endswith("ipc\n")


@pytest.mark.skipif(os.name == "nt", reason="there are no such sockets")
def test_a_long_temporary_folder_is_no_place_for_sockets(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    kernel = jobs.file_kernels()()
    assert kernel.transport == "ipc" and len(f"{kernel.ip}-5") <= 103 and not list(long.iterdir())
    make = tempfile.mkdtemp

    def only_there(*args, dir=None, **kw):
        if dir is not None:
            raise PermissionError(dir)
        return make(*args, **kw)

    monkeypatch.setattr(tempfile, "mkdtemp", only_there)  # no /tmp that can be written
    assert jobs.file_kernels()().transport == "tcp"


def test_a_socket_that_cannot_be_made_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "_socket_folder", lambda: (tempfile.mkdtemp(dir=tmp_path, prefix="y" * 110), "ipc"))
    with pytest.raises(notebooks.NotebookError, match="did not start: .*too long"):
        notebooks.executed(notebook(tmp_path / "page.ipynb", "1", ""))


def test_the_sockets_of_a_killed_kernel_are_swept(tmp_path):
    row = tmp_path / "r"
    killed, own = tmp_path / "bayesbinn-1", tmp_path / "mine"
    for place in (killed, own):
        place.mkdir()
        (place / "kernel.json").write_text("{}")
        note = row / jobs._SOCKETS
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(str(place))
        jobs.sweep(row)
    assert not killed.exists() and own.exists()  # what is not a kernel's own folder is let alone


def test_braces_in_a_path_are_no_parameters(tmp_path):
    folder = tmp_path / "{x} {}"
    folder.mkdir()
    outcome = run_template(notebook(folder / "de{value}mo.ipynb"), {}, out=folder / "runs", quiet=True)
    assert outcome.ok, outcome.rows


def test_what_kills_leave_behind_is_swept(tmp_path):
    path, row = suite_in(tmp_path, [dict(row="r")]), tmp_path / "runs" / "r"
    assert run_suite(path, out=tmp_path / "runs", quiet=True).ok
    whole = sorted(p.name for p in row.iterdir())
    (row / "_trash-0001" / "seed0").mkdir(parents=True)
    (row / ".seed0.json.0123abcd.part").write_text("half")
    (row / "x.part").write_text("half")
    (row / "_work").mkdir()
    (row / "_work" / "job.json").write_text("{}")  # the clean-up of a whole row was killed
    assert run_suite(path, out=tmp_path / "runs", quiet=True).ok
    assert sorted(p.name for p in row.iterdir()) == whole


def test_a_cleanup_killed_at_any_point_files_nothing_wrongly(tmp_path, monkeypatch):
    "Putting a working folder aside: whatever step is the last one, no checkpoint of other settings is taken up"
    row = tmp_path / "runs" / "r"
    for killed_at in ("replace", "rmtree", None):
        assert not run_suite(
            suite_in(tmp_path, [dict(row="r", params=dict(fault="dead"))]), out=tmp_path / "runs", quiet=True
        ).ok
        (row / "_work" / "seed0.txt").write_text("half way")
        with monkeypatch.context() as killed:
            if killed_at:
                module = jobs.os if killed_at == "replace" else jobs.shutil

                def die(*a, **k):
                    raise KeyboardInterrupt

                killed.setattr(module, killed_at, die)
                with pytest.raises(KeyboardInterrupt):
                    jobs.discard(row / "_work")
        assert run_suite(suite_in(tmp_path, [dict(row="r")]), out=tmp_path / "runs", quiet=True).ok
        assert read_record(row / "seed0.json").extra["resumed"] is False
        assert not list(row.glob("_trash*"))
        for path in row.iterdir():
            path.unlink()


def test_two_notebooks_of_one_name_never_share_a_folder(tmp_path):
    found = []
    for name, value in (("a", 0.5), ("b", 0.7)):
        (tmp_path / name).mkdir()
        template = notebook(tmp_path / name / "demo.ipynb", CODE.replace("[value]", f"[{value}]"))
        assert run_template(template, out=tmp_path / "runs", quiet=True).ok
        found.append(template)
    assert sorted(r.metric("test_accuracy") for r in load_records(tmp_path / "runs")) == [0.5, 0.7]
    for name, template in zip("ab", found):
        path = tmp_path / name / "mine.yaml"
        path.write_text(json.dumps(dict(rows=[dict(row="r", template="demo")])))
    assert run_suite(tmp_path / "a" / "mine.yaml", out=tmp_path / "shared", quiet=True).ok
    with pytest.raises(SuiteError, match="results of another notebook called demo"):
        run_suite(tmp_path / "b" / "mine.yaml", out=tmp_path / "shared", quiet=True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda note: "",
        lambda note: "[1]",
        lambda note: json.dumps(note | {"seeds": [[]]}),
        lambda note: json.dumps(note | {"confirmed": [[[1]]]}),
        lambda note: json.dumps({k: v for k, v in note.items() if k != "hash"}),
        lambda note: json.dumps(note | {"params": 3}),
        lambda note: "[" * 100_000,
    ],
)
def test_a_damaged_note_is_named_and_the_row_runs_again(batch, tmp_path, damage):
    folder, path, *_ = batch
    out = tmp_path / "runs"
    shutil.copytree(folder / "runs" / "good", out / "good")
    note = json.loads((out / "good" / "row.json").read_text())
    (out / "good" / "row.json").write_text(damage(note))
    problems = []
    assert row_state(load_suite(path).select("good")[0], out / "good", problems) == "partial"
    assert len(problems) == 1 and "good/row.json" in problems[0] and "run the row again" in problems[0]


def test_records_name_every_machine_that_worked_on_them(tmp_path, monkeypatch):
    "A row that was begun elsewhere and finished here"
    monkeypatch.setenv(records.CONTEXT, json.dumps({"work": str(tmp_path), "hash": "00"}))
    elsewhere = records.machine() | {"processor": "another"}
    (tmp_path / "machines.json").write_text(json.dumps([elsewhere]))
    assert records.pending_seeds(tmp_path, [0]) == [0]  # every template begins with this
    assert records.pending_seeds(tmp_path, [0]) == [0]  # again in the same process: noted once
    noted = dict(experiment="e", arm="a", seed=0, bundle={"name": "nothing"}, method="none", parameters={})
    assert records.make_record(**noted).machines == [elsewhere, records.machine()]


def test_the_kernel_that_a_template_was_written_with_does_not_matter(tmp_path):
    "A notebook remembers the kernel of whoever saved it last; here the rows run in the Python that runs the suite"
    path = suite_in(tmp_path, [dict(row="r")])
    template = nbformat.read(tmp_path / "demo.ipynb", as_version=4)
    template.metadata["kernelspec"] = {"name": "my-other-env", "display_name": "Julia 1.9", "language": "julia"}
    nbformat.write(template, tmp_path / "demo.ipynb")
    outcome = run_suite(path, out=tmp_path / "runs", quiet=True)
    assert outcome.ok, outcome.failed
