"""The runner: whole rows never twice, a failing row hurts only itself, a killed one goes on, nothing finished is lost."""

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from bayesbinn_nb.library.process import cores
from bayesbinn_nb.repro import jobs, records, runner
from bayesbinn_nb.repro.confirm import confirm_by_running, confirm_row
from bayesbinn_nb.repro.executed import clean_notebook, shrink_notebook
from bayesbinn_nb.repro.jobs import RunnerError, execute_job, kept_networks, row_identity, row_job
from bayesbinn_nb.repro.records import load_records, read_record
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
"""


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
        "from bayesbinn_nb.repro.records import load_records\nprint(suite, [r.row for r in load_records(records_root, problems=[])])",
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
        disk="No space left on device. Free some space",
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
    assert [r.seed for r in load_records(folder / "runs", row="raises")] == [0]  # the seed that was finished is kept
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
    (tmp_path / "lists").mkdir()
    path = suite_in(tmp_path / "lists", [dict(row="a", pages="page")]).rename(tmp_path / "lists" / "short.yaml")
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


def test_what_makes_a_row_run_again(batch, monkeypatch):
    folder, path, *_ = batch
    row = load_suite(path).select("good")[0]
    where = folder / "runs" / "good"
    assert row_state(row, where) == "whole"
    original = (folder / "demo.ipynb").read_text()
    try:
        notebook(folder / "demo.ipynb", CODE.replace("import os, time", "# time is short\nimport os, time\n"))
        assert row_state(row, where) == "whole"  # a comment is not code
        notebook(folder / "demo.ipynb", CODE.replace("value", "value + 0", 1))
        assert row_state(row, where) == "older code"
    finally:
        (folder / "demo.ipynb").write_text(original)
    with monkeypatch.context() as changed:
        changed.setattr(runner, "package_hash", lambda *a: "another")
        assert row_state(row, where) == "older code"
    row.params = dict(value=0.7)
    assert row_state(row, where) == "older code"
    row.params = {}
    row.seeds = [0]
    assert row_state(row, where) == "whole"  # fewer seeds: nothing to do
    row.seeds = [0, 1, 2]
    assert row_state(row, where) == "partial"  # more seeds: the others are kept
    monkeypatch.setattr(runner, "package_hash", lambda *a: "another")
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
    before = other.stat().st_mtime_ns
    victim.write_text(victim.read_text()[:300])
    log = io.StringIO()
    assert run_suite(path, out=tmp_path / "runs", stream=log).ok
    assert "left unread" in log.getvalue() and "seed0.json" in log.getvalue()
    assert read_record(victim).seed == 0 and other.stat().st_mtime_ns == before
    assert "ran [0]" in (tmp_path / "runs" / "r" / "r.ipynb").read_text()


START = "import sys; from bayesbinn_nb.repro.runner import run_suite; o = run_suite(sys.argv[1], out=sys.argv[2]); sys.exit(0 if o.ok else 130 if o.stopped else 1)"


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
    first = (row / "seed0.json").read_bytes()
    assert not (row / "seed1.json").exists() and not (row / "r.ipynb").exists()
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
        with pytest.raises(RunnerError, match=f"pid {os.getpid()} .*Wait until it ends"):
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


def test_threads(tmp_path, monkeypatch):
    job = dict(threads=4, folder=str(tmp_path), context={})
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    assert [runner._environment(job)[n] for n in names] == ["4"] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert [runner._environment(job)[n] for n in names] == ["2"] * 3  # fewer were asked for
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert [runner._environment(job)[n] for n in names] == ["4"] * 3
    monkeypatch.setenv("BAYESBINN_DATA", "data")
    assert runner._environment(job)["BAYESBINN_DATA"] == os.path.abspath("data")  # the notebook runs in another folder


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
        runner._need(suite.rows[0].needs)
    runner._need(["digits"])


def test_marks_results_inside_nbdevs_tree(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / ".notest").touch()
    path = suite_in(tmp_path, [dict(row="a")])
    suite = load_suite(path)
    runner._mark_untested(tmp_path / "results" / "runs" / "mine", suite.rows)
    assert (tmp_path / "results" / "runs" / "mine" / "a" / ".notest").exists()
    runner._mark_untested(tmp_path / "elsewhere", suite.rows)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "a, b, same",
    [
        ("x = 1  # one", "x = 1", True),
        ('def f():\n    "doc"\n    return 1', "def f():\n    return 1", True),
        ('"""module"""\nx = 1', "x = 1", True),
        ('class A:\n    """doc\n\n    more"""\n    y = 2', "class A:\n    y = 2", True),
        ('x = "# text"', 'x = "# other"', False),
        ("x = 1", "x = 2", False),
        ("if a:\n    x = 1", "if a:\n  x = 1\n", False),
        ("%magic # x", "%magic", False),
    ],
)
def test_code_of(a, b, same):
    assert (code_of(a) == code_of(b)) is same


def test_hash_sees_parameters_and_what_the_template_reaches(tmp_path, monkeypatch):
    rows_ = load_suite(suite_in(tmp_path, [dict(row="a"), dict(row="b"), dict(row="c", params=dict(value=0.6))])).rows
    a, b, c = map(run_hash, rows_)
    assert a == b != c
    package, template = tmp_path / "bayesbinn_nb", "from bayesbinn_nb.library.c import x"
    files = {
        "math/a.py": True,
        "methods/b.py": True,
        "library/c.py": True,
        "library/d.py": True,
        "library/e.py": True,
        "library/far.py": False,
        "repro/records.py": True,
        "library/plots.py": False,
        "repro/site.py": False,
    }
    imports = {"library/c.py": "from .d import x\nfrom .plots import x\n", "library/d.py": "from . import e\n"}

    def write(name, text):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(imports.get(name, "") + text)

    for name in files:
        write(name, "x = 1")
    monkeypatch.setattr(runner, "package_dir", lambda: package)
    before, whole = package_hash(template), package_hash()
    for name, changes in files.items():
        write(name, "x = 1  # the same")
        assert package_hash(template) == before and package_hash() == whole
        write(name, "x = 2")
        assert (package_hash(template) != before) is changes, name
        assert package_hash() != whole
        write(name, "x = 1")


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


def test_hash_sees_the_code_of_your_own_method(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def rows_():
        return load_suite(suite_in(tmp_path, [dict(row="a", params=dict(fault="own_method_for_the_hash:Mine"))])).rows

    file = tmp_path / "own_method_for_the_hash.py"
    found = []
    for text in ("x = 1", "x = 1  # a remark", "x = 2"):
        file.write_text(text)
        found.append(run_hash(rows_()[0]))
    assert found[0] == found[1] != found[2]


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
    record_run(out, experiment="demo", arm="ste", seed=seed, method="ste", bundle=data, history=history, parameters={})"""


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
    assert confirm_row(fast, out / "fast") == (None, "not run; nothing to compare with")
    assert run_suite(tmp_path / "mine.yaml", out=out, quiet=True).ok
    assert confirm_row(fast, out / "fast") == (True, "6 epochs and all final numbers")
    assert confirm_row(slow, out / "slow", minutes=0)[0] and "confirmed" not in json.loads(
        (out / "slow" / "row.json").read_text()
    )  # it was whole

    with monkeypatch.context() as changed:  # a change of code that changes no number
        changed.setattr(runner, "package_hash", lambda *a: "another")
        assert row_state(slow, out / "slow") == "older code"
        same, said = confirm_row(slow, out / "slow", minutes=0)
        assert same and said in ("1 epoch of 3", "2 epochs of 3")
        assert row_state(slow, out / "slow") == "whole" and row_state(fast, out / "fast") == "older code"
    assert row_state(slow, out / "slow") == "whole"  # the record's own code is back
    slow.params = dict(nap=0.0)
    assert row_state(slow, out / "slow") == "older code" and confirm_row(slow, out / "slow") == (
        None,
        "its parameters have changed; run it again instead",
    )

    file = next((out / "fast").glob("seed1*.json"))
    record = json.loads(file.read_text())
    record["history"]["val_accuracy"][1] += 1e-9
    record["checksum"] = records._checksum(record)
    file.write_text(json.dumps(record))
    same, said = confirm_row(fast, out / "fast")
    assert same is False and said.startswith("val_accuracy after epoch 2 is 0.")


COMPANY = """from bayesbinn_nb.repro.records import pending_seeds, record_run
for seed in pending_seeds(out, seeds):
    record_run(out, experiment="demo", arm="a", seed=seed, method="none", bundle=dict(name="nothing"), history={"test_accuracy": [.5 + 1e-9*len(seeds)]}, parameters={}, extra=dict(trained_together=seeds))"""


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
    assert row.seeds == [0] and confirm_row(row, where) == (True, "3 epochs and all final numbers")
    row.seeds = [0, 1, 2, 3, 4]  # the suite wants more than there are
    assert row_state(row, where) == "partial" and confirm_row(row, where) == (True, "3 epochs and all final numbers")
    batch(0, 1, 2, 3)
    row.seeds = [0]
    assert confirm_row(row, where) == (
        True,
        "1 epoch and all final numbers; without seed 0, 1, 2, trained in other company",
    )
    notebook(tmp_path / "demo.ipynb", COMPANY.replace(".5 +", ".6 +"))
    assert confirm_row(row, where)[0] is False  # what is compared is compared
    notebook(tmp_path / "demo.ipynb", COMPANY)
    (where / "r.ipynb").unlink()
    batch(1)  # nothing to train, a new list of seeds
    assert confirm_row(row, where) == (
        None,
        "its seeds were trained in other company than that of today; run it again instead",
    )


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
    if seed in waiting: record_run(out, experiment="demo", arm="ste", seed=seed, method="ste", bundle=data, history=history, parameters={}, extra=dict(trained_together=seeds))"""
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
    same, said = confirm_row(load_suite(tmp_path / "mine.yaml").rows[0], tmp_path / "runs" / "r", minutes=0)
    assert same and said.endswith(" of 6; without seed 0, trained in other company"), said


# ---- the trained networks

LEAVES = """from pathlib import Path
from bayesbinn_nb.repro.records import pending_seeds, record_run
for seed in pending_seeds(out, seeds):
    file = Path(work_dir)/f"seed{seed}"/"last.pt"
    resumed = file.exists()
    file.parent.mkdir(exist_ok=True)
    file.write_text("a network")
    record_run(out, experiment="demo", arm="a", seed=seed, method="none", bundle=dict(name="nothing"), history={"test_accuracy": [.9]}, parameters={}, extra=dict(resumed=resumed))"""


def test_networks_are_kept_on_request(tmp_path):
    from bayesbinn_nb.repro.site import _notebooks

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
        "Networks: " in said and f"bayesbinn inspect {runner._shown(where / '_work' / 'seed0' / 'last.pt')}\n" in said
    )
    assert row_state(row, where) == "whole" and len(load_records(out)) == 1
    assert "1 already whole" in batch(0, keep=True) and "Networks: " in batch(0, keep=True)
    assert [p.name for p in _notebooks(out, "**/*.ipynb")] == ["r.ipynb"]
    assert "_work/" in (Path(__file__).parents[1] / ".gitignore").read_text().splitlines()
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
    from bayesbinn_nb.repro.pages import runs as same_runs
    from bayesbinn_nb.repro.report import _groups

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
    assert sorted(map(len, same_runs(mixed))) == sorted(map(len, _groups(mixed))) == [2, 2]


def test_a_declared_deviation_belongs_to_the_run(tmp_path):
    row, changed = (
        load_suite(suite_in(tmp_path, [dict(row="r", **more)])).rows[0]
        for more in ({}, dict(deviations=["half the width"]))
    )
    assert run_hash(row) != run_hash(changed)


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
    assert confirm_row(row, where)[0] is True
    for old, new, said in (
        ("resumed=resumed", "resumed=1", "extra.resumed is False in the record and 1 now"),
        ("extra=dict(", "extra=dict(other=1) if seed else dict(", "extra.resumed is False in the record and None now"),
        ("[value]", "[value + 1e-9]", "test_accuracy after epoch 1 is 0.5 in the record"),
    ):
        notebook(tmp_path / "demo.ipynb", CODE.replace(old, new))
        same, text = confirm_row(row, where)
        assert same is False and text.startswith(said), text
