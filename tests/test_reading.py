"The notebooks can be read: rules on cells and prose, counted by `tests/reading.py`; no docstring is torn in two"

import ast
import sys
from pathlib import Path

import pytest

import bayesbinn_nb

sys.path.insert(0, str(Path(__file__).parent))
import reading  # noqa: E402

SOURCES = sorted(Path(bayesbinn_nb.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("room", reading.ROOMS)
def test_a_room_keeps_the_rules_on_cells_and_prose(room):
    assert reading.room(room), f"there are no notebooks in nbs/{room}"
    assert reading.faults(room) == []


def is_text(node) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def torn(tree: ast.Module) -> list[str]:
    "Functions and classes whose docstring goes on in a second string, which Python drops and nobody reads"
    defined = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    return [node.name for node in defined if len(node.body) > 1 and all(map(is_text, node.body[:2]))]


def test_no_docstring_is_torn_in_two():
    assert torn(ast.parse('def f():\n    "Yes, if it rises; no, if it"\n    "falls"\n')) == ["f"]
    assert len(SOURCES) > 50
    assert {path.name: torn(ast.parse(path.read_text())) for path in SOURCES if torn(ast.parse(path.read_text()))} == {}
