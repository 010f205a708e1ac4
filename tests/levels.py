"""Older processors on this one: the instruction levels below it, whether each changes bits, and the checks at each.

A library chooses its instructions when it is loaded, and environment variables make it choose older ones. Sums then run
in another order and exponentials are other polynomials, as on an older processor, so a check that rests on the last
bit of one of them fails here and not on a reader's machine. Levels are only ever lowered.

    python tests/levels.py list           # the levels below this processor, and what each changes
    python tests/levels.py run --jobs 2   # the numeric tests, and the notebooks of math and methods, at each of them
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# tests whose outcome can depend on a processor; the guards of math run again what its notebooks run,
# which have their turn
NUMERIC = ("bayesbinn", "kernels", "kernels_cuda", "lag", "math_continual", "math_floating_point", "math_foundations")
NUMERIC += ("math_limits", "math_prediction", "methods_extra", "methods_faults", "methods_twins", "metrics", "models")
NUMERIC += ("packing", "together", "trainer")


@dataclass(frozen=True)
class Level:
    "Instructions that PyTorch, oneDNN, MKL and Numba may use at most"

    name: str
    capability: str  # what PyTorch calls it
    env: dict


LEVELS = (
    Level(
        "avx2",
        "AVX2",
        dict(
            ATEN_CPU_CAPABILITY="avx2",
            ONEDNN_MAX_CPU_ISA="AVX2",
            MKL_CBWR="AVX2",
            NUMBA_CPU_NAME="haswell",
            NUMBA_CPU_FEATURES="",
        ),
    ),
    Level(
        "oldest",
        "DEFAULT",
        dict(
            ATEN_CPU_CAPABILITY="default",
            ONEDNN_MAX_CPU_ISA="SSE41",
            MKL_CBWR="COMPATIBLE",
            NUMBA_CPU_NAME="generic",
        ),
    ),
)
ORDER = ("DEFAULT", "AVX2", "AVX512")  # oldest first; what is not listed (another architecture) has no older level here


def lower_levels(capability: str) -> list[Level]:
    "The levels strictly below a processor of this capability, the newest first"
    if capability not in ORDER:
        return []
    return [level for level in LEVELS if ORDER.index(level.capability) < ORDER.index(capability)]


PROBE = """
import hashlib, json
import torch

torch.set_num_threads(1)
torch.manual_seed(0)
a, b, x = torch.randn(200, 300), torch.randn(300, 100), torch.randn(4, 8, 20, 20)
values = {
    "product": a @ b,
    "convolution": torch.nn.functional.conv2d(x, torch.randn(16, 8, 3, 3)),
    "sum": a.sum(),
    "exp": a.exp(),
    "tanh": a.tanh(),
}
try:
    import numba, numpy
except ImportError:
    pass
else:
    total = numba.njit(lambda v: v.sum(), fastmath=True)
    values["compiled loop"] = torch.tensor(total(a.numpy().ravel()))
digests = {name: hashlib.sha256(v.contiguous().numpy().tobytes()).hexdigest()[:12] for name, v in values.items()}
print(json.dumps({"capability": torch.backends.cpu.get_cpu_capability(), "digests": digests}))
"""


def probe(env: dict | None = None) -> dict:
    "The capability that a process with this environment uses, and digests of a few float32 results"
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env={**os.environ, **(env or {})}, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def changed(native: dict, other: dict) -> list[str]:
    "Names of the results whose bits differ"
    return [name for name, digest in native["digests"].items() if other["digests"].get(name) != digest]


def levels_here(say=print) -> list[Level]:
    "The lower levels that change bits on this machine; says which do, and which are skipped"
    native = probe()
    say(f"this processor: {native['capability']}")
    lower = lower_levels(native["capability"])
    if not lower:
        say("no level below it is known: nothing to run")
    useful = []
    for level in lower:
        bits = changed(native, probe(level.env))
        if bits:
            say(f"{level.name}: changes {', '.join(bits)}")
            useful.append(level)
        else:
            say(f"{level.name}: changes no bit on this machine, SKIPPED")
    return useful


def numeric_tests() -> list[str]:
    "The test files that run at every level"
    return [str(path) for name in NUMERIC for path in (ROOT / "tests").rglob(f"test_{name}.py")]


def run_level(level: Level, jobs: int) -> bool:
    "Are the numeric tests and the notebooks of math and methods green at this level?"
    env = {**os.environ, **level.env, "OMP_NUM_THREADS": "1"}
    tests = ["pytest", "-n", str(jobs), "--dist", "loadfile", "-p", "no:cacheprovider", *numeric_tests()]
    notebooks = ["bayesbinn_nb.repro.notebooks", "documentation", "--rooms", "math", "methods", "--jobs", str(jobs)]
    green = True
    for command in (tests, notebooks):
        print(f"\n== {level.name}: {command[0]}", flush=True)
        green &= subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=env).returncode == 0
    return green


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("list", "run"))
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time, one thread each (default 2)")
    args = parser.parse_args(argv)
    levels = levels_here()
    if args.what == "list":
        return 0
    red = [level.name for level in levels if not run_level(level, args.jobs)]
    outcome = [f"{level.name} {'FAILED' if level.name in red else 'ok'}" for level in levels]
    print(f"\nlevels: {', '.join(outcome) or 'none'}")
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main())
