"""Can the notebooks be read? Counts, for every notebook that exports, what a reader meets.

    python tests/reading.py             # the table, and what breaks a rule
    python tests/reading.py library     # one room

Three rules (`test_reading.py` holds every room to them): an exported cell has at most 60 lines, and half of a room's
have at most 25; between two exported cells stands prose, more than a heading; every public name that a notebook exports
is shown or checked in one of its other cells. What the words say, no script can judge: a reader has to.
"""

import ast
import json
import re
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path

NOTEBOOKS = Path(__file__).parent.parent / "nbs"
ROOMS = ("math", "methods", "library", "repro", "site")
LONGEST, MEDIAN, FEWEST_WORDS = 60, 25, 8


@dataclass
class Reading:
    "What one notebook asks of its reader"

    path: Path
    lengths: list[int] = field(default_factory=list)  # lines of each exported cell, directives not counted
    words: int = 0  # of prose
    checks: int = 0  # assertions in cells that are not exported
    bare: list[int] = field(
        default_factory=list
    )  # exported cells (by index) without prose since the exported cell before
    unshown: list[str] = field(default_factory=list)  # public names that no other cell uses

    def faults(self) -> list[str]:
        long = [f"an exported cell of {n} lines, {LONGEST} are allowed" for n in self.lengths if n > LONGEST]
        bare = [f"cell {i} is exported and no prose stands between it and the exported cell before" for i in self.bare]
        unshown = [f"{name} is exported, and no cell shows or checks it" for name in self.unshown]
        return [f"{self.path}: {text}" for text in [*long, *bare, *unshown]]


def parsed(source: str) -> ast.Module:
    "The syntax tree of a cell; an empty one where the cell is a shell line or a magic"
    try:
        return ast.parse(re.sub(r"^[%!].*$", "", source, flags=re.M))
    except SyntaxError:
        return ast.parse("")


def public_names(tree: ast.Module) -> list[str]:
    "Functions, classes and constants that a cell defines, without the underscored"
    names = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [name for name in dict.fromkeys(names) if not name.startswith("_")]


def used_names(tree: ast.Module) -> set[str]:
    "Every name and attribute that a cell mentions, imports and strings with a name's spelling included"
    used = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            used.add(node.id)
        elif isinstance(node, ast.Attribute):
            used.add(node.attr)
        elif isinstance(node, ast.alias):
            used.add(node.name.split(".")[-1])
    return used


def n_checks(source: str) -> int:
    return len(
        re.findall(r"^\s*(?:assert\b|test_\w+\(|with (?:pytest\.raises|ExceptionExpected)\b|test_fail\()", source, re.M)
    )


def read(path: Path) -> Reading:
    "Counts over one notebook"
    reading = Reading(path.relative_to(NOTEBOOKS.parent))
    exported, used, words_since = [], set(), FEWEST_WORDS
    for index, cell in enumerate(json.loads(path.read_text())["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            text = re.sub(r"^#+ .*$", "", source, flags=re.M)
            reading.words += len(source.split())
            words_since += len(text.split())
            continue
        tree = parsed(source)
        if re.search(r"^#\| *export[is]?\b", source, re.M):
            code = [line for line in source.splitlines() if not line.startswith("#|")]
            only_imports = all(isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body)
            if not only_imports:
                reading.lengths.append(len(code))
                if words_since < FEWEST_WORDS:
                    reading.bare.append(index)
                words_since = 0
            exported += public_names(tree)
        else:
            reading.checks += n_checks(source)
            used |= used_names(tree)
    reading.unshown = [name for name in dict.fromkeys(exported) if name not in used]
    return reading


def room(name: str) -> list[Reading]:
    "Every notebook of a room that exports something"
    readings = [
        read(path) for path in sorted((NOTEBOOKS / name).rglob("*.ipynb")) if not path.parts[-1].startswith((".", "_"))
    ]
    return [reading for reading in readings if reading.lengths]


def faults(name: str) -> list[str]:
    "What breaks a rule in a room, a sentence each"
    readings = room(name)
    found = [fault for reading in readings for fault in reading.faults()]
    lengths = [n for reading in readings for n in reading.lengths]
    if lengths and statistics.median(lengths) > MEDIAN:
        found.append(
            f"nbs/{name}: half of the exported cells have more than {statistics.median(lengths):.0f} lines, "
            f"{MEDIAN} are allowed"
        )
    return found


def main(names: list[str]) -> int:
    broken = []
    for name in names or ROOMS:
        readings = room(name)
        if not readings:
            continue
        lengths = [n for reading in readings for n in reading.lengths]
        print(
            f"{name}: {len(lengths)} exported cells, longest {max(lengths)}, median "
            f"{statistics.median(lengths):.0f} lines; "
            f"{sum(r.words for r in readings) / sum(lengths):.1f} words and "
            f"{sum(r.checks for r in readings) / len(lengths):.1f} checks to an exported line and cell"
        )
        for reading in readings:
            print(
                f"    {reading.path.stem:24} {len(reading.lengths):3} cells, longest {max(reading.lengths):3}, "
                f"median {statistics.median(reading.lengths):4.0f}; {reading.words:5} words, {reading.checks:3} checks"
            )
        broken += faults(name)
    print("\n".join(broken))
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
