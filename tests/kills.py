"""Runs that are killed at random points, again and again, and must end as if nothing had been.

    python tests/kills.py                 # 500 kills: six methods, the runner alone, the runner with two jobs
    python tests/kills.py --kills 40 --seed 3 --only runner

Each life of a run is a forked process, so that no life waits for imports. It is killed (SIGKILL: no clean-up of any
kind
runs) after a random time, or at a random one of its file operations, which lands in the middle of writing. A run is
killed
at least three times, then left alone; what it leaves must be, to the bit, what an undisturbed run leaves, and nothing
more.
`test_kills.py` does twenty of these in every test run.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import psutil
import torch
from nbformat.v4 import new_code_cell, new_notebook
from torch import nn

from bayesbinn_nb.library.arrays import ArrayData
from bayesbinn_nb.library.callbacks import FlipRatio
from bayesbinn_nb.library.checkpoint import load_checkpoint
from bayesbinn_nb.library.trainer import Trainer
from bayesbinn_nb.methods.bayesbinn import BayesBiNN
from bayesbinn_nb.methods.bop import Bop
from bayesbinn_nb.methods.full_precision import FullPrecision
from bayesbinn_nb.methods.lrnet import LRNet
from bayesbinn_nb.methods.pmf import PMF
from bayesbinn_nb.methods.ste import STE
from bayesbinn_nb.repro.records import read_record
from bayesbinn_nb.repro.runner import run_suite

METHODS: dict[str, Callable] = {
    "bayesbinn": lambda: BayesBiNN(lr=1e-3, temperature=1.0, init_lambda=1.0, momentum=0.9, mean="lagged"),
    "bop": lambda: Bop(1e-2, 1e-4, decay=0.5),
    "ste": lambda: STE(lr=1e-2),
    "pmf": lambda: PMF(lr=1e-2, beta_every=3),
    "lrnet": lambda: LRNet(5e-2, lr_every=2),
    "real": lambda: FullPrecision(),
}
HANGS = 600.0  # seconds after which a life hangs: a machine that is busy with other things needs its time
# file operations, of which a random one is a life's last
OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.truncate"}


@dataclass
class Kind:
    "A kind of run: what one life does, what it leaves, how long an undisturbed one takes"

    name: str
    live: Callable[[Path], object]  # one life: goes on from whatever lies in the folder
    left: Callable[[Path], object]  # what is in the folder, comparable with ==
    seconds: float = 0.0  # of an undisturbed run; measured
    whole: object = None  # what an undisturbed run leaves; measured


@dataclass
class Tally:
    kills: int = 0
    runs: int = 0
    wrong: list[str] = field(default_factory=list)


# ---- training


def train(method: str) -> Callable[[Path], object]:
    "A small network with everything that has state: batch norm, dropout, a schedule, validation, a callback"

    def live(folder: Path) -> None:
        g = torch.Generator().manual_seed(0)
        y = torch.randint(0, 3, (120,), generator=g)
        data = ArrayData(torch.randn(120, 4, generator=g) + 3 * torch.eye(3, 4)[y], y)
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.ReLU(), nn.Linear(16, 3))
        scheduler = None
        if method not in ("pmf", "lrnet"):  # these two bring their own schedule
            scheduler = lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20, 1e-16)  # noqa: E731
        trainer = Trainer(net, device="cpu", seed=3).compile(METHODS[method](), scheduler=scheduler)
        trainer.fit(
            data,
            data,
            epochs=20,
            batch_size=30,
            callbacks=[FlipRatio()],
            progress="silent",
            checkpoint_dir=folder / "run",
            checkpoint_seconds=0.02,  # within epochs as well
        )

    return live


def left_by_training(folder: Path) -> object:
    state = {}
    for path in sorted((folder / "run").iterdir()):
        found = load_checkpoint(path)
        history = [{k: v for k, v in row.items() if "seconds" not in k} for row in found["history"]]
        state[path.name] = (history, {name: value.tolist() for name, value in found["model"].items()})
    return json.loads(json.dumps(state))


# ---- the runner

PARAMETERS = 'value: float = 0.5\nseeds: list[int] = [0]\nout: str = "."\nwork_dir: str = "_work"\n'
ROW = """
import time
from pathlib import Path
from bayesbinn_nb.repro.records import pending_seeds, record_run
for seed in pending_seeds(out, seeds):
    reached = Path(work_dir) / f"reached-{seed}.txt"  # stands for the checkpoint of a training
    total = float(reached.read_text() or 0) if reached.exists() else 0.0
    for step in range(int(total), 4):
        time.sleep(0.05)
        total += 1
        part = reached.with_suffix(".part")
        part.write_text(str(total))
        part.replace(reached)
    record_run(out, experiment="demo", arm="a", seed=seed, method="none", parameters=dict(value=value),
               bundle=dict(name="nothing"), history={"test_accuracy": [(value + total) / 10]})
"""


def batch(jobs: int) -> Callable[[Path], object]:
    def live(folder: Path) -> None:
        suite = folder / "mine.yaml"
        if not suite.exists():
            cells = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), new_code_cell(ROW)]
            nbformat.write(new_notebook(cells=cells), folder / "demo.ipynb")
            rows = [{"row": name, "seeds": [0, 1], "params": {"value": v}} for name, v in (("a", 0.1), ("b", 0.2))]
            part = folder / "part"
            part.write_text(json.dumps({"defaults": {"template": "demo"}, "rows": rows}))
            part.replace(suite)
        outcome = run_suite(suite, out=folder / "runs", jobs=jobs, quiet=True)
        assert outcome.ok, outcome.rows

    return live


def left_by_batch(folder: Path) -> object:
    files = sorted(str(path.relative_to(folder)) for path in (folder / "runs").rglob("*") if path.is_file())
    records = [read_record(path) for path in sorted((folder / "runs").rglob("seed*.json"))]
    return files, [(r.row, r.seed, r.metrics, r.history) for r in records]


# ---- lives and deaths


@contextmanager
def forked(live: Callable[[Path], object], folder: Path, operation: int | None = None):
    "A life in a process of its own, in a process group of its own; dies at its n-th file operation where one is given"
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setpgid(0, 0)
            null = os.open(os.devnull, os.O_WRONLY)
            log = os.open(folder / "life.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(null, 1)
            os.dup2(log, 2)
            if operation is not None:
                _die_at(operation)
            live(folder)
            code = 0
        except BaseException as e:  # the parent reads why
            os.write(2, f"{type(e).__name__}: {e}".encode())
        finally:
            os._exit(code)
    try:
        yield pid
    finally:
        (folder / "life.log").unlink(missing_ok=True)


def _die_at(operation: int) -> None:
    count = 0

    def hook(event: str, args: tuple) -> None:
        nonlocal count
        if event in OPERATIONS:
            count += 1
            if count == operation:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _ended(pid: int, seconds: float) -> int | None:
    "Exit status of a process, None where it still lives after so many seconds"
    until = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        if time.monotonic() >= until:
            return None
        time.sleep(0.002)


def life(kind: Kind, folder: Path, rng: random.Random, kill: bool) -> tuple[str, str]:
    "('killed' | 'ended' | 'failed' | 'hung', what it said); a killed runner's children must go as well"
    by_operation = kill and rng.random() < 0.5
    operation = rng.randrange(1, 60) if by_operation else None
    with forked(kind.live, folder, operation) as pid:
        family = []
        limit = rng.random() * kind.seconds * 0.6 if kill and not by_operation else HANGS
        status = _ended(pid, limit)
        if status is None:
            try:
                family = psutil.Process(pid).children(recursive=True)
            except psutil.NoSuchProcess:
                pass
            os.kill(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
            if not kill or by_operation:
                return "hung", f"no end after {limit:.0f} s"
        said = (folder / "life.log").read_text() if (folder / "life.log").exists() else ""
        orphans = psutil.wait_procs(family, timeout=20)[1]
        if orphans:
            return "failed", f"{len(orphans)} processes of a killed runner still live"
    if os.WIFSIGNALED(status):
        return "killed", said
    return ("ended", said) if os.WEXITSTATUS(status) == 0 else ("failed", said)


def one_run(kind: Kind, rng: random.Random, tally: Tally) -> None:
    "A run that is killed three to six times, and what it leaves"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wanted, kills, lives = rng.randint(3, 6), 0, 0
        while True:
            lives += 1
            how, said = life(kind, folder, rng, kill=kills < wanted)
            if how == "killed":
                kills += 1
                tally.kills += 1
            elif how in ("failed", "hung"):
                tally.wrong.append(f"{kind.name}: {how} in life {lives}, after {kills} kills: {said[-400:]}")
                return
            elif kills >= 3 or lives > 30:
                break
            else:  # it ended before it could be killed often enough: from the start
                return
        tally.runs += 1
        left = kind.left(folder)
        if left != kind.whole:
            tally.wrong.append(
                f"{kind.name}: after {kills} kills something else is left: {_difference(kind.whole, left)}"
            )


def _difference(a: object, b: object) -> str:
    a, b = json.dumps(a, default=str), json.dumps(b, default=str)
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return f"… {a[max(0, at - 80) : at + 80]} … and not … {b[max(0, at - 80) : at + 80]} …"


def measured(kind: Kind) -> Kind:
    "What an undisturbed run leaves, and how long it takes"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begun = time.monotonic()
        how, said = life(kind, folder, random.Random(0), kill=False)
        assert how == "ended", f"{kind.name} fails when nobody disturbs it: {said}"
        kind.seconds = time.monotonic() - begun
        kind.whole = kind.left(folder)
    return kind


def kinds() -> list[Kind]:
    training = [Kind(name, train(name), left_by_training) for name in METHODS]
    return [*training, Kind("runner", batch(1), left_by_batch), Kind("runner, two jobs", batch(2), left_by_batch)]


def kill(kills: int, seed: int = 0, only: str = "") -> Tally:
    "That many kills, spread evenly over the kinds of run"
    torch.set_num_threads(1)  # a forked process inherits no pool of threads
    tally, rng = Tally(), random.Random(seed)
    chosen = [measured(kind) for kind in kinds() if only in kind.name]
    for index, kind in enumerate(chosen):
        share = kills * (index + 1) // len(chosen)
        while tally.kills < share and len(tally.wrong) < 10:
            one_run(kind, rng, tally)
        print(f"{kind.name}: {tally.kills} kills so far, {tally.runs} runs, {len(tally.wrong)} wrong", flush=True)
    return tally


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of a kind's name: " + ", ".join(k.name for k in kinds()))
    args = parser.parse_args()
    result = kill(args.kills, args.seed, args.only)
    print("\n".join(result.wrong))
    print(f"{result.kills} kills in {result.runs} runs: {len(result.wrong)} wrong")
    sys.exit(bool(result.wrong))
