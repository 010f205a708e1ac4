"""Is every refusal tested? Lists each `raise` and each `except` of the package that no test has run.

    coverage run -m pytest && coverage combine   # pip install coverage; with what tests start in other processes
    python tests/refusals.py                     # library, repro and site; or the rooms that are named

A line that only another system or a GPU can reach carries the comment `# elsewhere: why`; such lines are listed apart.
"""

import ast
import sys
from pathlib import Path

import coverage

PACKAGE = Path(__file__).parent.parent / "bayesbinn_nb"


def refusals(source: str) -> list[tuple[int, int]]:
    "(line that says it, first line that runs) of every raise and of every except"
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise):
            found.append((node.lineno, node.lineno))
        elif isinstance(node, ast.ExceptHandler):
            found.append((node.lineno, node.body[0].lineno))
    return sorted(found)


def untested(path: Path, executed: set[int]) -> tuple[list[str], list[str]]:
    "What no test has run, and of this what is marked as out of reach here"
    lines = path.read_text(encoding="utf-8").splitlines()
    missing, elsewhere = [], []
    for line, runs in refusals("\n".join(lines)):
        if runs in executed:
            continue
        marked = any("# elsewhere:" in lines[n - 1] for n in {line, runs})
        (elsewhere if marked else missing).append(
            f"{path.relative_to(PACKAGE.parent)}:{line}: {lines[line - 1].strip()}"
        )
    return missing, elsewhere


def main(rooms: list[str]) -> int:
    data = coverage.CoverageData()
    data.read()
    executed = {Path(name).resolve(): set(data.lines(name) or ()) for name in data.measured_files()}
    missing, elsewhere, total = [], [], 0
    for room in rooms or ["library", "repro", "site"]:
        for path in sorted((PACKAGE / room).rglob("*.py")):
            total += len(refusals(path.read_text(encoding="utf-8")))
            one, other = untested(path, executed.get(path.resolve(), set()))
            missing += one
            elsewhere += other
    print("\n".join(missing))
    if elsewhere:
        print("out of reach on this machine:", *elsewhere, sep="\n    ")
    print(f"{total} refusals, {len(missing)} never run by a test, {len(elsewhere)} out of reach here")
    return bool(missing)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
