"""Units: a suite by seeds, shared by runners, on workers that share nothing; whole, once, and equal to the run of
the row"""

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

from bayesbinn_nb.library.packing import unpack_model
from bayesbinn_nb.repro import executors
from bayesbinn_nb.repro.executors import OnDask, put_in_place, run_units, workers_of
from bayesbinn_nb.repro.jobs import RunnerError, kept_networks, row_identity
from bayesbinn_nb.repro.operations import Machine, hours, row_work
from bayesbinn_nb.repro.records import load_records
from bayesbinn_nb.repro.runner import Outcome, folder_lock, row_state, run_suite
from bayesbinn_nb.repro.suites import SuiteError, load_suite
from bayesbinn_nb.repro.terminal import Display
from bayesbinn_nb.repro.units import (
    Taken,
    claimed,
    estimates,
    gather,
    is_whole,
    makespan,
    parse_shard,
    plan_text,
    shard,
    units_of,
    with_operations,
)

PARAMETERS = 'value: float = 0.5\npause: float = 0.0\nseeds: list[int] = [0]\nout: str = "."\nwork_dir: str = "_work"\n'
CODE = """
import os, time
from pathlib import Path
from bayesbinn_nb.repro.records import pending_seeds, record_run
for seed in pending_seeds(out, seeds):
    Path(work_dir, f"begun{seed}").write_text(str(os.getpid()))
    time.sleep(pause)
    record_run(out, experiment="demo", arm="a", seed=seed, method="none", parameters=dict(value=value),
               bundle=dict(name="nothing"), history={"test_accuracy": [value + seed / 100]}, wall_seconds=2.0,
               baseline=dict(name="chance", metric="test_accuracy", value=.1),
               extra=dict(gpus=os.environ.get("CUDA_VISIBLE_DEVICES")))
"""


def suite_in(folder, rows, code=CODE):
    cells = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), new_code_cell(code)]
    nbformat.write(new_notebook(cells=cells), folder / "demo.ipynb")
    (folder / "mine.yaml").write_text(json.dumps({"defaults": {"template": "demo"}, "rows": rows}))
    return folder / "mine.yaml"


def two_rows(folder, **params):
    return suite_in(
        folder,
        [
            {"row": "a", "seeds": [0, 1], "params": {"value": 0.25, **params}, "baseline": "chance"},
            {"row": "b", "seeds": [0, 1], "params": {"value": 0.5, **params}},
        ],
    )


def files_of(root):
    return sorted(str(p.relative_to(root)) for p in Path(root).rglob("*") if p.is_file() and p.name != ".lock")


def numbers(root):
    return [(r.row, r.seed, r.metrics, r.history, r.hash, r.parameters) for r in load_records(root)]


def test_units_add_up_to_the_rows_that_run_whole(tmp_path):
    path = two_rows(tmp_path)
    assert run_suite(path, out=tmp_path / "rows", quiet=True).ok
    log = io.StringIO()
    outcome = run_units(path, out=tmp_path / "units", jobs=2, stream=log)
    assert outcome.ok and outcome.count("whole") == 2
    assert numbers(tmp_path / "units") == numbers(tmp_path / "rows")
    more = ["a/a-seed1.ipynb", "b/b-seed1.ipynb"]  # a notebook for each further seed
    assert files_of(tmp_path / "units") == sorted([*files_of(tmp_path / "rows"), *more])
    assert [r.notebook for r in load_records(tmp_path / "units", row="a")] == ["a.ipynb", "a-seed1.ipynb"]
    assert "a, seed 1" in log.getvalue() and "2 rows whole" in log.getvalue()
    again = run_suite(path, out=tmp_path / "units", quiet=True)  # one kind of runner knows what the other did
    assert again.count("kept") == 2
    assert run_units(path, out=tmp_path / "rows", quiet=True).count("kept") == 2


def test_shards_and_a_single_seed(tmp_path):
    path = two_rows(tmp_path)
    outcome = run_units(path, out=tmp_path / "runs", part=(1, 2), quiet=True)
    assert not outcome.failed and outcome.count("stopped") == 2  # half of the seeds are there, no row is whole
    units = [unit for row in load_suite(path).rows for unit in units_of(row)]
    assert [is_whole(unit, tmp_path / "runs") for unit in units] == [True, False, True, False]
    assert run_units(path, out=tmp_path / "runs", only_seed=1, quiet=True).count("whole") == 2
    with pytest.raises(SuiteError, match="no row that was chosen has this seed"):
        run_units(path, out=tmp_path / "runs", only_seed=7, quiet=True)
    assert [len(shard(units, k, 3)) for k in (1, 2, 3)] == [2, 1, 1]
    assert parse_shard("2/8") == (2, 8)


def test_a_row_that_fails_hurts_only_itself(tmp_path):
    path = two_rows(tmp_path)
    text = json.loads(path.read_text())
    text["rows"][0]["params"]["value"] = 0.01  # does not beat chance
    text["rows"].append({"row": "c", "seeds": [0], "params": {"value": 3.0}})  # no proportion: refused by the record
    path.write_text(json.dumps(text))
    outcome = run_units(path, out=tmp_path / "runs", quiet=True)
    said = {row["name"]: row["error"] for row in outcome.rows}
    assert "does not beat the baseline" in said["a"] and said["b"] is None and "it is a proportion" in said["c"]
    assert [row_state(row, tmp_path / "runs" / row.name) == "whole" for row in load_suite(path).rows] == [
        False,
        True,
        False,
    ]


RUN = textwrap.dedent(
    """
    import sys
    from bayesbinn_nb.repro.executors import run_units
    path, out, executor, jobs = sys.argv[1:]
    outcome = run_units(path, out=out, executor=executor, jobs=int(jobs))
    sys.exit(0 if outcome.ok else 3)
    """
)


def start(path, out, executor="local", jobs=1):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(path), str(out), executor, str(jobs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_two_runners_share_a_folder(tmp_path):
    path = two_rows(tmp_path, pause=1.0)
    both = [start(path, tmp_path / "runs") for _ in range(2)]
    said = [process.communicate(timeout=180)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    ran = [sum(" whole " in line and ", seed " in line for line in text.splitlines()) for text in said]
    assert sum(ran) == 4 and min(ran) >= 1, said  # each unit once, and both had work
    assert len(numbers(tmp_path / "runs")) == 4


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_runner_that_ends_leaves_its_units_to_the_next(tmp_path, how):
    path = two_rows(tmp_path, pause=1.5)
    first = start(path, tmp_path / "runs", jobs=2)
    assert until(lambda: list((tmp_path / "runs").rglob("begun*")))
    family = psutil.Process(first.pid).children(recursive=True)
    first.send_signal(how)
    first.communicate(timeout=30)
    assert not psutil.wait_procs(family, timeout=15)[1]  # nobody goes on writing
    assert run_units(path, out=tmp_path / "runs", quiet=True).ok
    assert len(numbers(tmp_path / "runs")) == 4 and not list((tmp_path / "runs").rglob("_*"))


def test_a_unit_has_one_writer(tmp_path):
    unit = units_of(load_suite(two_rows(tmp_path)).rows[0])[0]
    with claimed(unit, tmp_path), pytest.raises(Taken, match="a, seed 0: another runner .pid"):
        with claimed(unit, tmp_path):
            pass


def test_whole_rows_and_units_do_not_meet_in_one_folder(tmp_path):
    path = two_rows(tmp_path, pause=1.5)
    by_units = start(path, tmp_path / "runs")
    assert until(lambda: list((tmp_path / "runs").rglob("begun*")))
    with pytest.raises(RunnerError, match="another runner"):
        run_suite(path, out=tmp_path / "runs", quiet=True)
    assert by_units.communicate(timeout=120) and by_units.returncode == 0
    with folder_lock(tmp_path / "runs"), pytest.raises(RunnerError, match="another runner"):
        run_units(path, out=tmp_path / "runs", quiet=True)


def test_the_longest_unit_is_started_first(tmp_path):
    path = two_rows(tmp_path)
    assert run_units(path, only="b", only_seed=0, out=tmp_path / "runs", quiet=True)
    log = io.StringIO()
    long = CODE.replace("wall_seconds=2.0", "wall_seconds=9.0 if value == 0.5 else 1.0")
    path = suite_in(tmp_path, json.loads(path.read_text())["rows"], code=long)
    assert run_units(path, out=tmp_path / "once", quiet=True).ok  # the records know the times now
    text = json.loads(path.read_text())
    for row in text["rows"]:
        row["seeds"] = [0, 1, 2]
    path.write_text(json.dumps(text))
    assert run_units(path, out=tmp_path / "once", stream=log).ok
    units = [line.split(",")[0].strip() for line in log.getvalue().splitlines() if ", seed " in line]
    assert units[0] == "b", log.getvalue()


def test_one_gpu_for_each_unit(tmp_path):
    outcome = run_units(two_rows(tmp_path, pause=0.5), out=tmp_path / "runs", devices=["4", "7"], quiet=True)
    assert outcome.ok
    assert {r.extra["gpus"] for r in load_records(tmp_path / "runs")} <= {"4", "7"}


def test_what_comes_back_is_looked_at(tmp_path):
    unit = units_of(load_suite(two_rows(tmp_path)).rows[0])[0]
    assert run_units(tmp_path / "mine.yaml", only="a", out=tmp_path / "runs", part=(1, 2), quiet=True)
    files = {
        p.name: p.read_bytes() for p in unit.folder(tmp_path / "runs").iterdir() if p.is_file() and p.name != ".lock"
    }
    put_in_place(unit, tmp_path / "copy", files)
    assert sorted(p.name for p in (tmp_path / "copy").iterdir()) == sorted(files)
    right = row_identity(unit.row).hash.encode()
    other = {name: content.replace(right, b"0" * len(right)) for name, content in files.items()}
    for wrong, said in (
        (other, "code of another meaning"),
        (files | {"../x": b""}, "outside its folder"),
        (files | {"/tmp/x": b""}, "outside its folder"),
        (files | {"seed0.json": files["seed0.json"].replace(b"0.25", b"0.75")}, "checksum"),
        ({k: v for k, v in files.items() if k != "seed0.json"}, "other seeds"),
        ({k: v for k, v in files.items() if k != "row.json"}, "missing or damaged"),
    ):
        with pytest.raises(RunnerError, match=said):
            put_in_place(unit, tmp_path / "none", wrong)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    for wrong in (files | {"a.ipynb": files["a.ipynb"][:-5]}, {k: v for k, v in files.items() if k != "a.ipynb"}):
        with pytest.raises(RunnerError, match="a.ipynb was damaged on its way"):
            put_in_place(unit, tmp_path / "none", wrong, digests)
    assert not (tmp_path / "none").exists()


def test_the_plan_knows_times_from_records(tmp_path):
    path = two_rows(tmp_path)
    before = plan_text(load_suite(path), tmp_path / "runs")
    assert (
        "4 units of 2 rows, 4 to run" in before and "4 of which no time is known, nor can be estimated: a, b" in before
    )
    run_units(path, only="a", out=tmp_path / "runs", quiet=True)
    found = estimates(load_suite(path), tmp_path / "runs")
    assert [(e.state, e.seconds) for e in found] == [("whole", 2.0)] * 2 + [("to run", None)] * 2
    assert makespan([4, 3, 2], 2) == 5 and makespan([], 3) == 0


def test_the_plan_of_a_first_user_has_hours(tmp_path):
    "No record anywhere: times are estimated from operations, and said to be estimates"
    suite = load_suite("paper")
    machine = Machine("here", 1e11, 1e11, 1e8, 1e-3)
    text = plan_text(suite, tmp_path / "none", workers=[1, 4], machine=machine)
    lines = text.splitlines()
    assert any("an estimate from their operations" in line and " h " in line for line in lines), text
    assert any(
        line.startswith("  on one GPU, an estimate") and "H100" in line and "not measured" in line for line in lines
    )
    assert any("the longest: " in line and "an estimate from its operations" in line for line in lines)
    assert "5 of which no time is known, nor can be estimated: speed" in text
    found = with_operations(estimates(suite, tmp_path / "none", only="benchmark-mnist-ste"), machine)
    work = row_work(suite.select("benchmark-mnist-ste")[0])
    assert [e.seconds for e in found] == [pytest.approx(3600 * hours(work, machine))] * 5
    # by hand: 54,000 examples, 500 epochs, 10.0 M weights; six operations for each weight but four in the first layer
    first, others = 784 * 2048, 2 * 2048**2 + 2048 * 10
    assert work.products == 500 * (54_000 * (4 * first + 6 * others) + 16_000 * 2 * (first + others))
    assert not (tmp_path / "none").exists()


def test_a_row_is_put_together_once_and_only_when_it_is_complete(tmp_path):
    path = two_rows(tmp_path)
    row = load_suite(path).rows[0]
    run_units(path, only="a", only_seed=0, out=tmp_path / "runs", quiet=True)
    assert gather(row, tmp_path / "runs") is False and not (tmp_path / "runs" / "a" / "row.json").exists()


class Idle:
    "Workers that answer without having done anything, or never"

    slots = 1

    def __init__(self, answers=True):
        self.answers, self.closed = answers, []

    def start(self, unit, job):
        future = Future()
        if self.answers:
            future.set_result({"error": None, "notes": [], "seconds": 0.0})
        self.folder = Path(job["folder"])
        return future

    def lost(self):
        return ""

    def stop(self):
        pass

    def close(self):
        try:
            with folder_lock(self.folder):
                self.closed.append("free")
        except RunnerError:
            self.closed.append("claimed")


def test_a_batch_of_everything_that_leaves_units_has_failed(tmp_path):
    path, out = two_rows(tmp_path), tmp_path / "runs"
    plain = run_units(path, only="a", out=out, executor=Idle(), quiet=True)
    assert not plain.ok and "some of its units are left" in plain.failed[0]["error"]
    part = run_units(path, only="a", only_seed=0, out=out, executor=Idle(), quiet=True)
    assert part.ok and [row["status"] for row in part.rows] == ["stopped"]  # the others are somebody else's


def test_a_unit_stays_claimed_until_its_worker_has_ended(tmp_path, monkeypatch):
    workers = Idle(answers=False)
    monkeypatch.setattr(executors, "workers_of", lambda *a: workers)

    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(executors.time, "sleep", interrupted)
    outcome = run_units(two_rows(tmp_path), only="a", only_seed=0, out=tmp_path / "runs", quiet=True)
    assert outcome.stopped and workers.closed == ["claimed"]
    with folder_lock(workers.folder):  # free in the end
        pass


def test_a_page_that_fails_is_a_fault_of_the_units(tmp_path, monkeypatch):
    said = io.StringIO()
    page = {"name": "table", "status": "failed", "seconds": 0.0, "error": "KeyError: no such record"}
    drawn = Outcome("mine", tmp_path, pages=[page], stopped=True)
    monkeypatch.setattr(executors, "run_suite", lambda *a, **k: drawn)
    batch = SimpleNamespace(suite=None, outcome=Outcome("mine", tmp_path), display=Display(said))
    executors._draw_pages(batch, None, None)
    assert batch.outcome.failed == [page] and batch.outcome.stopped
    assert "page table FAILED: KeyError: no such record" in said.getvalue()


# ---- a cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    "A scheduler and three workers, each a process in a folder of its own"
    pytest.importorskip("distributed")
    processes, folder = [], tmp_path_factory.mktemp("cluster")
    env = dict(os.environ) | {"DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE": "False"}
    info = folder / "scheduler.json"

    def run(name, *args):
        place = folder / name
        place.mkdir()
        command = [sys.executable, "-m", "distributed.cli.dask_" + args[0], *map(str, args[1:])]
        here = env | {"TMPDIR": str(place)}
        with open(place / "log.txt", "wb") as log:
            process = subprocess.Popen(command, cwd=place, stdout=log, stderr=log, env=here, start_new_session=True)
        processes.append(process)

    run("scheduler", "scheduler", "--port", 0, "--no-dashboard", "--scheduler-file", info)
    assert until(info.exists), (folder / "scheduler" / "log.txt").read_text()
    address = json.loads(info.read_text())["address"].removeprefix("tcp://")
    for k in range(3):
        run(
            f"worker{k}",
            "worker",
            f"tcp://{address}",
            "--nthreads",
            1,
            "--no-nanny",
            "--no-dashboard",
            "--name",
            f"w{k}",
        )
    yield address, processes, folder
    for process in processes:
        process.kill()
        process.wait()


def test_a_suite_on_a_cluster_equals_the_one_here(tmp_path, cluster):
    path = two_rows(tmp_path)
    assert run_suite(path, out=tmp_path / "rows", quiet=True).ok
    outcome = run_units(path, out=tmp_path / "units", executor=f"dask://{cluster[0]}", quiet=True)
    assert outcome.ok, outcome.rows
    assert numbers(tmp_path / "units") == numbers(tmp_path / "rows")
    assert not [p for p in (tmp_path / "units").rglob("*") if p.name.startswith("_")]


KEPT = """
import torch
from pathlib import Path
from bayesbinn_nb import pack_model
from bayesbinn_nb.repro.records import pending_seeds, record_run
for seed in pending_seeds(out, seeds):
    torch.manual_seed(seed)
    net = torch.nn.Linear(8, 3)
    net.weight.data = net.weight.data.sign()
    torch.save({"model": net.state_dict()}, Path(work_dir, f"seed{seed}-last.pt"))
    pack_model(net, Path(work_dir, f"seed{seed}.packed.safetensors"))
    record_run(out, experiment="demo", arm="a", seed=seed, method="none", parameters=dict(value=value),
               bundle=dict(name="nothing"), history={"test_accuracy": [value + seed / 100]},
               baseline=dict(name="chance", metric="test_accuracy", value=.1))
"""


@pytest.mark.parametrize("where", ["local", "cluster"])
def test_kept_networks_come_back(tmp_path, request, where):
    "From units here, and as bytes from workers that share no folder with us"
    executor = "local" if where == "local" else f"dask://{request.getfixturevalue('cluster')[0]}"
    path = suite_in(tmp_path, [{"row": "a", "seeds": [0, 1], "params": {"value": 0.25}}], code=KEPT)
    assert run_units(path, out=tmp_path / "runs", executor=executor, keep=True, quiet=True).ok
    kept = kept_networks(tmp_path / "runs" / "a")
    assert kept is not None
    for seed in (0, 1):
        torch.manual_seed(seed)
        expected = torch.nn.Linear(8, 3).weight.sign()
        loaded = torch.load(next(kept.rglob(f"seed{seed}-last.pt")), weights_only=True)["model"]
        net = unpack_model(next(kept.rglob(f"seed{seed}.packed.safetensors")), torch.nn.Linear(8, 3))
        assert torch.equal(loaded["weight"], expected) and torch.equal(net.weight, expected)
    assert run_units(path, out=tmp_path / "runs", keep=True, quiet=True).count("kept") == 1
    assert not list((tmp_path / "runs").rglob("_units"))


def busy(folder):
    "Processes of units on the workers in this folder, where they make their temporary folders too"
    mark = re.compile(f"{re.escape(str(folder))}.*bayesbinn-unit-")
    return [p for p in psutil.process_iter(["cmdline"]) if mark.search(" ".join(p.info["cmdline"] or []))]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_the_end_of_a_runner_ends_the_work_elsewhere(tmp_path, cluster, how):
    path = two_rows(tmp_path, pause=60.0)
    runner = start(path, tmp_path / "runs", f"dask://{cluster[0]}")
    assert until(lambda: busy(cluster[2])), runner.communicate(timeout=5)[0]
    runner.send_signal(how)
    runner.communicate(timeout=30)
    assert until(lambda: not busy(cluster[2]), 15), "work goes on at a worker"
    assert not load_records(tmp_path / "runs")


def test_a_lost_worker_costs_its_unit_a_second_start(tmp_path, cluster):
    address, processes, folder = cluster
    path = two_rows(tmp_path, pause=2.0)
    runner = start(path, tmp_path / "runs", f"dask://{address}")
    assert until(lambda: busy(folder)), runner.communicate(timeout=5)[0]
    processes[1].kill()
    said = runner.communicate(timeout=180)[0]
    assert runner.returncode == 0, said
    assert len(numbers(tmp_path / "runs")) == 4


def test_executors_that_do_not_exist():
    with pytest.raises(SuiteError, match="there are local, dask"):
        workers_of("condor")
    with pytest.raises(SuiteError, match="GPUs of this machine"):
        workers_of("dask", devices=["0"])
    pytest.importorskip("distributed")
    with pytest.raises(RunnerError, match="no scheduler answers at"):
        OnDask("tcp://127.0.0.1:9")


def machine_with(tmp_path, monkeypatch, sbatch):
    "A machine with this sbatch, or none"
    pytest.importorskip("dask_jobqueue")
    dask = pytest.importorskip("dask")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    if sbatch is not None:
        (tmp_path / "bin" / "sbatch").write_text(f"#!/bin/sh\n{sbatch}\n")
        (tmp_path / "bin" / "sbatch").chmod(0o755)
    return dask.config.set({"jobqueue.slurm.cores": 1, "jobqueue.slurm.memory": "1GB"})


@pytest.mark.parametrize(
    "sbatch, said",
    [
        (None, "there is no sbatch here"),
        (
            "echo allocation failure: too much memory >&2; exit 1",
            "does not take the job of a worker: allocation failure",
        ),
    ],
)
def test_a_slurm_that_takes_no_job_is_not_waited_for(tmp_path, monkeypatch, sbatch, said):
    with machine_with(tmp_path, monkeypatch, sbatch), pytest.raises(RunnerError, match=said):
        workers_of("slurm", 2)


def test_kills_on_a_cluster_cost_no_unit():
    pytest.importorskip("distributed")
    script = Path(__file__).parents[1] / "cluster_kills.py"
    done = subprocess.run(
        [sys.executable, script, "--kills", "5", "--seed", "2"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
