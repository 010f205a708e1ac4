"""A cluster whose workers, scheduler and runner are killed at random points: every unit whole, once, bit-equal to the
local run.

    python tests/cluster_kills.py                # 50 kills
    python tests/cluster_kills.py --kills 5

A scheduler and three workers, each a process in a folder of its own, run a suite of four units. After a random time
one of
them, or the runner, is killed (SIGKILL); what died is started again, and the runner too where it ended.
`test_units.py` does
five of these in every test run.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from bayesbinn_nb.repro.runner import run_suite

sys.path.insert(0, str(Path(__file__).parent / "repro"))
from test_units import RUN, numbers, two_rows, until  # noqa: E402


class Cluster:
    "A scheduler and three workers that can be killed"

    def __init__(self, folder: Path) -> None:
        self.folder, self.started, self.processes, self.address = folder, 0, {}, ""

    def _run(self, name: str, kind: str, *args: object) -> None:
        self.started += 1
        place = self.folder / f"{name}-{self.started}"
        place.mkdir()
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--no-dashboard", *map(str, args)]
        with open(place / "log.txt", "wb") as log:
            self.processes[name] = subprocess.Popen(
                command,
                cwd=place,
                stdout=log,
                stderr=log,
                env=os.environ | {"TMPDIR": str(place)},
                start_new_session=True,
            )

    def ensure(self) -> None:
        "Start what is dead"
        if "scheduler" not in self.processes or self.processes["scheduler"].poll() is not None:
            self.stop()
            info = self.folder / f"scheduler-{self.started}.json"
            self._run("scheduler", "scheduler", "--port", 0, "--scheduler-file", info)
            assert until(info.exists), "the scheduler does not start"
            self.address = json.loads(info.read_text())["address"].removeprefix("tcp://")
        for name in ("one", "two", "three"):
            if name not in self.processes or self.processes[name].poll() is not None:
                self._run(name, "worker", f"tcp://{self.address}", "--nthreads", 1, "--no-nanny")

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.processes.clear()


def units_at_work(base: Path) -> list[psutil.Process]:
    "Processes of units on this cluster's workers, which make their temporary folders inside their own"
    mark = re.compile(f"{re.escape(str(base))}.*bayesbinn-unit-")
    return [p for p in psutil.process_iter(["cmdline"]) if mark.search(" ".join(p.info["cmdline"] or []))]


def one_suite(cluster: Cluster, folder: Path, wanted: object, rng: random.Random, left: int) -> int:  # kills
    "Run a suite to its end, with so many kills at most"
    path, kills, most = two_rows(folder, pause=0.5), 0, min(left, rng.randint(2, 5))
    runner = None
    until_end = time.monotonic() + 240
    while time.monotonic() < until_end:
        cluster.ensure()
        if runner is None:
            command = [sys.executable, "-c", RUN, str(path), str(folder / "runs"), f"dask://{cluster.address}", "1"]
            with open(folder / "runner.txt", "ab") as log:
                runner = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        pause = rng.uniform(0.5, 8.0) if kills < most else 240
        if until(lambda: runner.poll() is not None, pause):
            if runner.returncode == 0:
                break
            runner = None
            continue
        victim = rng.choice(["runner", "scheduler", "one", "two", "three"])
        kills += 1
        if victim == "runner":
            os.kill(runner.pid, signal.SIGKILL)
            runner.wait()
            runner = None
            assert until(lambda: not units_at_work(cluster.folder), 20), "a unit goes on without its runner"
        else:
            cluster.kill(victim)
    else:
        raise AssertionError(f"no end: {(folder / 'runner.txt').read_text()[-2000:]}")
    assert numbers(folder / "runs") == wanted, f"other numbers after {kills} kills"
    leftovers = [str(p) for p in (folder / "runs").rglob("_*")]
    assert not leftovers, f"left behind: {leftovers}"
    return kills


def cluster_kills(kills: int, seed: int = 0) -> int:  # suites that were run
    "That many kills, over as many suites as they need"
    rng, done, suites = random.Random(seed), 0, 0
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        (base / "local").mkdir()
        assert run_suite(two_rows(base / "local", pause=0.5), out=base / "local" / "runs", quiet=True).ok
        wanted = numbers(base / "local" / "runs")
        cluster = Cluster(base)
        try:
            while done < kills:
                folder = base / f"suite{suites}"
                folder.mkdir()
                done += one_suite(cluster, folder, wanted, rng, kills - done)
                suites += 1
                print(f"{done} kills so far, {suites} suites whole", flush=True)
        finally:
            cluster.stop()
    return suites


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(
        f"{args.kills} kills: {cluster_kills(args.kills, args.seed)} suites, each unit whole, once, equal to "
        "the local run"
    )
