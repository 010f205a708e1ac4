"""Files of every kind that were changed at random: what reads them says so in a sentence, at once, and touches nothing.

    python tests/damage.py                # 5,000 changed files, spread over the kinds
    python tests/damage.py --count 300 --only record

A file is *sealed* where it carries a checksum of its content: then no changed content may be accepted. The others are
written by people: a changed one is either refused or means what it now says. `test_damage.py` does some of each kind in
every test run.
"""

import argparse
import csv
import io
import json
import os
import random
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml
from mutations import mutated_bytes, mutated_structure
from torch import nn

from bayesbinn_nb.library.arrays import ArrayData
from bayesbinn_nb.library.checkpoint import load_checkpoint, load_model, save_model
from bayesbinn_nb.library.models import build_model
from bayesbinn_nb.library.packing import inspect_file, load_packed, pack_model, unpack_model
from bayesbinn_nb.library.trainer import Trainer
from bayesbinn_nb.methods.bayesbinn import BayesBiNN
from bayesbinn_nb.repro.jobs import read_json, read_note
from bayesbinn_nb.repro.places import experiments_dir
from bayesbinn_nb.repro.published import PublishedError, load_curves, load_published
from bayesbinn_nb.repro.records import RecordError, make_record, read_record, write_record
from bayesbinn_nb.repro.suites import SuiteError, known_suites, load_suite
from bayesbinn_nb.repro.templates import load_template
from bayesbinn_nb.repro.trace import TraceError, agrees, first_difference

SECONDS = 2  # of the processor, for one file


@dataclass
class Kind:
    "A kind of file"

    name: str
    file: str  # how such a file is called
    wholes: list[bytes]  # valid ones
    read: Callable[[Path], object]  # what it holds, comparable with ==; raises where it is refused
    errors: tuple[type[Exception], ...]  # that `read` may raise
    structure: str = ""  # "json", "yaml": may also be changed as data
    sealed: bool = False


@dataclass
class Tally:
    changed: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)


# ---- valid files


def small_model() -> nn.Module:
    "With weights of ±1, as training leaves them"
    torch.manual_seed(0)
    model = build_model("mnist_mlp", in_features=8, hidden=16)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.where(weight > 0, 1.0, -1.0))
    return model


def written(write: Callable[[Path], object], name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return next(path for path in Path(folder).rglob(name) if path.is_file()).read_bytes()


def a_training(folder: Path) -> None:
    data = ArrayData(torch.randn(60, 8), torch.randint(0, 10, (60,)))
    trainer = Trainer(small_model(), device="cpu").compile(BayesBiNN())
    trainer.fit(data, epochs=1, batch_size=20, progress="silent", checkpoint_dir=folder)


def a_record(folder: Path) -> None:
    record = make_record(
        experiment="demo",
        arm="a",
        seed=0,
        method="bayesbinn",
        parameters={"lr": 1e-4, "hidden": [16, 16], "name": "x"},
        bundle={"name": "digits"},
        history={"test_accuracy": [0.5, 0.75], "loss": [1.5, 0.5]},
        baseline={"name": "chance", "metric": "accuracy", "split": "test", "value": 0.1},
    )
    write_record(folder, record)


def a_note() -> bytes:
    note = {"row": "a", "hash": "0" * 16, "seeds": [0, 1], "params": {"lr": 1e-4}, "confirmed": {}, "stamped": "x"}
    return json.dumps(note).encode()


def a_trace() -> dict:
    runs = experiments_dir().parent / "results" / "runs"
    return json.loads(min(runs.rglob("trace.json"), key=lambda path: path.stat().st_size).read_text())


# ---- readers


def state_of(model: nn.Module) -> dict:
    return {name: value.tolist() for name, value in model.state_dict().items()}


def read_note_strictly(path: Path) -> dict:
    problems: list = []
    note = read_note(path.parent, problems)
    if problems:
        raise ValueError(problems[0])
    return note


def compared(path: Path) -> str:
    "What `confirm` says of a trace beside that of the same row today; one that it cannot read is none to it"
    old = read_json(path)
    try:
        first_difference(old, a_trace())
        return agrees(old, a_trace(), "latent_weights")[1]
    except (TraceError, KeyError, TypeError, ValueError):  # those that `confirm` takes for an unreadable trace
        return "none"


def kinds() -> list[Kind]:
    experiments = experiments_dir()
    suites = [(experiments / "suites" / f"{name}.yaml").read_bytes() for name in known_suites()]
    templates = [(experiments / f"{name}.ipynb").read_bytes() for name in ("benchmark", "segmentation")]
    curves = (experiments / "curves.csv").read_bytes()
    model = written(lambda folder: save_model(small_model(), folder / "m"), "m")
    packed = written(lambda folder: pack_model(small_model(), folder / "m"), "m")
    lines = list(csv.reader(io.StringIO(curves.decode())))[:40]
    few = "\n".join(",".join(line) for line in lines).encode()

    def sentences(path: Path) -> object:
        "Rows that are good, and what is said of the others"
        problems: list = []
        rows = load_published(path, problems)
        for problem in problems:
            assert len(problem.splitlines()) == 1 and path.name in problem, problem[:300]
        return len(rows)

    torch_files = (ValueError, OSError)
    return [
        Kind("suite", "mine.yaml", suites, lambda p: len(load_suite(p).rows), (SuiteError,), "yaml"),
        Kind("template", "demo.ipynb", templates, lambda p: load_template(p).code, (SuiteError,), "json"),
        Kind("published", "published.yaml", [(experiments / "published.yaml").read_bytes()], sentences, (), "yaml"),
        Kind("curves", "curves.csv", [few], lambda p: len(load_curves(p)), (PublishedError,)),
        Kind(
            "record",
            "seed0.json",
            [written(a_record, "*.json")],
            lambda p: read_record(p),
            (RecordError,),
            "json",
            True,
        ),
        Kind("note", "row.json", [a_note()], read_note_strictly, (ValueError,), "json"),
        Kind("trace", "trace.json", [json.dumps(a_trace()).encode()], compared, (), "json"),
        Kind("checkpoint", "last.pt", [written(a_training, "last.pt")], load_checkpoint, torch_files),
        Kind("model", "model", [model], lambda p: state_of(load_model(p)), torch_files, "", True),
        Kind("packed", "packed", [packed], lambda p: state_of(unpack_model(p)), torch_files, "", True),
        Kind("packed layers", "packed", [packed], lambda p: state_of(load_packed(p)), torch_files, "", True),
        Kind("inspected", "packed", [packed, model], lambda p: inspect_file(p)["format"], torch_files),
    ]


# ---- changed files


class TooLong(BaseException):
    "Of the processor's time; no reader can swallow it"


def _too_long(*_: object) -> None:
    raise TooLong


def changed(kind: Kind, rng: random.Random) -> tuple[bytes, bytes]:
    "A whole file, and what became of it"
    whole = rng.choice(kind.wholes)
    if kind.structure and rng.random() < 0.5:
        content = json.loads(whole) if kind.structure == "json" else yaml.safe_load(whole)
        content = mutated_structure(content, rng)
        text = json.dumps(content) if kind.structure == "json" else yaml.safe_dump(content, sort_keys=False)
        return whole, text.encode("utf-8", "surrogatepass")
    return whole, mutated_bytes(whole, rng)


def one_file(kind: Kind, rng: random.Random, folder: Path, tally: Tally) -> None:
    whole, data = changed(kind, rng)
    path = folder / kind.file
    path.write_bytes(data)
    tally.changed += 1
    fault = ""
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = kind.read(path)
    except kind.errors as e:
        tally.refused += 1
        said = str(e)
        if len(said.splitlines()) != 1 or not said.isprintable() or len(said) > 1500:
            fault = f"says {said[:300]!r}"
    except TooLong:
        fault = f"takes more than {SECONDS} s"
    except Exception as e:
        fault = f"ends in {type(e).__name__}: {str(e)[:200]}"
    else:
        if kind.sealed and data != whole:
            path.write_bytes(whole)
            if found != kind.read(path):
                fault = "is accepted with another content"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    left = sorted(os.listdir(folder))
    if left != [kind.file]:
        fault = fault or f"leaves {left}"
    if fault:
        kept = Path(tempfile.gettempdir()) / f"damage-{kind.name.replace(' ', '-')}-{len(tally.wrong)}"
        kept.write_bytes(data)
        tally.wrong.append(f"{kind.name}: a changed {kind.file} {fault} (kept as {kept})")


def damage(count: int, seed: int = 0, only: str = "") -> Tally:
    "That many changed files, spread evenly over the kinds"
    signal.signal(signal.SIGVTALRM, _too_long)
    tally = Tally()
    chosen = [kind for kind in kinds() if only in kind.name]
    for index, kind in enumerate(chosen):
        rng = random.Random(f"{seed} {kind.name}")
        before = (tally.changed, tally.refused, len(tally.wrong))
        with tempfile.TemporaryDirectory() as folder:
            while tally.changed < count * (index + 1) // len(chosen) and len(tally.wrong) - before[2] < 10:
                one_file(kind, rng, Path(folder), tally)
        now = (tally.changed - before[0], tally.refused - before[1], len(tally.wrong) - before[2])
        print(f"{kind.name}: {now[0]} changed files, {now[1]} refused, {now[2]} wrong", flush=True)
    return tally


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of a kind's name, such as record")
    args = parser.parse_args()
    result = damage(args.count, args.seed, args.only)
    print("\n".join(result.wrong))
    print(f"{result.changed} changed files, {result.refused} refused: {len(result.wrong)} wrong")
    sys.exit(bool(result.wrong))
