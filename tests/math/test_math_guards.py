"""Two guards over the derivation pages nbs/math/*.ipynb.

1. Every displayed equation has a check. A display `$$ … \\tag{X} $$` must be followed, before the next `## ` heading,
by a code
   cell that begins `# check (X)` and makes an assertion that can fail (`shown.check("X", …)`, which evaluates the
   display, is one); a display without a tag must say which checked equation
   it restates (an \\eqref or a link to a page in the same cell).
2. Every exported function is pinned. Its results are multiplied by 1.01, then by -1 (bools are negated; tuples and
dicts entry by
   entry), the assertions of the pages are run again, and some cell must notice.

Cells that begin `# figure` or `# slow` are not run here.
"""

import ast
import contextlib
import functools
import importlib
import io
import json
import os
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

MATH = Path(__file__).parents[2] / "nbs" / "math"


@pytest.fixture(autouse=True)
def no_windows(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")


# ---------------------------------------------------------------- reading a page


@dataclass
class Cell:
    kind: str
    source: str

    @property
    def directives(self):
        return [line[2:].strip() for line in self.source.splitlines() if line.startswith("#|")]

    @property
    def code(self):
        """The source without directives and without the lines that only IPython understands."""
        return "\n".join("" if line.startswith(("#|", "%", "!")) else line for line in self.source.splitlines())

    @property
    def first_line(self):
        return next((line.strip() for line in self.code.splitlines() if line.strip()), "")

    @property
    def exported(self):
        return any(d.split()[:1] in (["export"], ["exports"]) for d in self.directives)

    @property
    def skipped(self):
        return self.first_line.startswith(("# figure", "# slow")) or any(
            d.replace(" ", "") == "eval:false" for d in self.directives
        )


@dataclass
class Page:
    name: str
    cells: list[Cell]
    module: str | None = field(init=False)

    def __post_init__(self):
        exp = [d.split()[1] for c in self.cells for d in c.directives if d.startswith("default_exp")]
        self.module = f"bayesbinn_nb.{exp[0]}" if exp else None

    def exported_functions(self):
        trees = (ast.parse(c.code) for c in self.cells if c.kind == "code" and c.exported)
        return [n.name for t in trees for n in t.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]


def read_page(path):
    cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
    return Page(Path(path).stem, [Cell(c["cell_type"], "".join(c["source"])) for c in cells])


PAGES = {p.stem: read_page(p) for p in sorted(MATH.glob("*.ipynb"))}


# ---------------------------------------------------------------- guard 1: equations and their checks

DISPLAY = re.compile(r"\$\$(.*?)\$\$", re.S)
TAG = re.compile(r"\\tag\*?\{([^}]*)\}")
CHECK = re.compile(r"# check\b((?:[ ,]*\([^()]+\))+)")


def _can_fail(expr):
    """False for a test that holds whatever the page computes."""
    if not any(isinstance(n, (ast.Name, ast.Call)) for n in ast.walk(expr)):
        return False
    if (
        isinstance(expr, ast.BoolOp)
        and isinstance(expr.op, ast.Or)
        and any(isinstance(v, ast.Constant) and v.value for v in expr.values)
    ):
        return False
    if isinstance(expr, ast.Compare) and ast.dump(expr.left) == ast.dump(expr.comparators[0]):
        return False
    if isinstance(expr, ast.Call) and len(expr.args) >= 2 and ast.dump(expr.args[0]) == ast.dump(expr.args[1]):
        return False
    return True


def _assertions(source):
    """The assertions of a cell that are reached and that can fail."""
    tree = ast.parse(source)
    called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    found = []

    def visit(node):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Constant) and not node.test.value:
            return
        if isinstance(node, ast.FunctionDef) and node.name not in called:
            return
        if isinstance(node, ast.Assert) and _can_fail(node.test):
            found.append(node)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            f = node.value.func
            name = f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "")
            if (name.startswith(("assert_", "test_")) or name == "check") and _can_fail(node.value):
                found.append(node)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def unchecked(page):
    """What is wrong with the equations of a page, one line each; empty if all are checked."""
    problems, open_tags, seen = [], {}, set()

    def close():
        problems.extend(f"{page.name}: equation ({t}) has no check before the next section" for t in open_tags)
        open_tags.clear()

    for cell in page.cells:
        if cell.kind == "markdown":
            for part in re.split(r"(?m)^(?=## )", cell.source):
                if part.startswith("## "):
                    close()
                if len(re.findall(r"\$\$", part)) % 2:
                    problems.append(f"{page.name}: an odd number of $$ in the cell that begins {part[:40]!r}")
                for body in DISPLAY.findall(part):
                    tags = TAG.findall(body)
                    if not tags and not re.search(r"\\eqref|\.ipynb", part):
                        problems.append(
                            f"{page.name}: a displayed equation has neither a tag nor a reference to a "
                            f"checked one: {' '.join(body.split())[:60]}"
                        )
                    for t in tags:
                        if t in seen:
                            problems.append(f"{page.name}: tag ({t}) is used twice")
                        seen.add(t)
                        open_tags[t] = body
                if TAG.findall(DISPLAY.sub("", part)):
                    problems.append(f"{page.name}: a \\tag outside $$ … $$")
        elif cell.kind == "code" and (m := CHECK.fullmatch(cell.first_line.split(":")[0].rstrip())):
            tags = re.findall(r"\(([^()]+)\)", m[1])
            n = len(_assertions(cell.code))
            if n < len(tags):
                problems.append(
                    f"{page.name}: the cell '{cell.first_line}' names {len(tags)} equations and makes {n} "
                    "assertions that can fail"
                )
            for t in tags:
                if t not in seen:
                    problems.append(f"{page.name}: the cell '{cell.first_line}' stands before equation ({t})")
                open_tags.pop(t, None)
    close()
    return problems


@pytest.mark.parametrize("name", PAGES)
def test_every_displayed_equation_is_checked(name):
    assert not (problems := unchecked(PAGES[name])), "\n".join(problems)


def _page(*cells):
    return Page(
        "made_up",
        [
            Cell("code" if c.startswith(("#", "x", "assert")) and not c.startswith("## ") else "markdown", c)
            for c in cells
        ],
    )


EQ = "Then\n$$ a = b \\tag{7}\\label{eq:x} $$"


@pytest.mark.parametrize(
    "cells, complaint",
    (
        ((EQ, "# check (7)\nassert a == b"), None),
        ((EQ, "# check (7): by enumeration\nassert a == b"), None),
        ((EQ, "more text", "### deeper", "# check (7)\ntorch.testing.assert_close(a, b)"), None),
        ((EQ, "# check (7)\ndef t():\n    assert a == b\nt()"), None),
        ((EQ, '# check (7)\nshown.check("7", a=1.0)'), None),
        (("By $\\eqref{eq:x}$ again $$ a = b $$",), None),
        ((EQ,), "(7) has no check"),
        ((EQ, "x = 1\nassert a == b"), "(7) has no check"),
        ((EQ, "## Next", "# check (7)\nassert a == b"), "(7) has no check"),
        (("# check (7)\nassert a == b", EQ), "before equation (7)"),
        ((EQ, "# check (7)\nprint(a, b)"), "0 assertions"),
        ((EQ, "# check (7)\nassert True"), "0 assertions"),
        ((EQ, "# check (7)\nassert a == a"), "0 assertions"),
        ((EQ, "# check (7)\nassert a == b or True"), "0 assertions"),
        ((EQ, "# check (7)\nassert_close(a, a)"), "0 assertions"),
        ((EQ, "# check (7)\nif False:\n    assert a == b"), "0 assertions"),
        ((EQ, "# check (7)\ndef t():\n    assert a == b"), "0 assertions"),
        ((EQ, EQ.replace("7", "8"), "# check (7), (8)\nassert a == b"), "names 2 equations and makes 1"),
        ((EQ, EQ, "# check (7)\nassert a == b"), "used twice"),
        (("bare $$ a = b $$",), "neither a tag nor a reference"),
        (("$a = b \\tag{9}$",), "outside"),
        (("$$ a = b \\tag{7}",), "odd number"),
    ),
)
def test_the_equation_guard_has_teeth(cells, complaint):
    problems = unchecked(_page(*cells))
    assert not problems if complaint is None else any(complaint in p for p in problems), problems


# ---------------------------------------------------------------- guard 2: mutated functions

ACTIVE = {"name": None, "mutate": None}
RETURNS = {}


def _wrapped(name, fn):
    @functools.wraps(fn)
    def call(*args, **kwargs):
        out = fn(*args, **kwargs)
        RETURNS.setdefault(name, out)
        return ACTIVE["mutate"](out) if ACTIVE["name"] == name else out

    call.mutable = True
    return call


def _mutants(value, path="the result"):
    """(description, function result -> mutated result) for everything that can be perturbed in a returned value."""
    if isinstance(value, (tuple, list)):

        def at(i, m):
            def mutate(v):
                new = [m(x) if k == i else x for k, x in enumerate(v)]
                return type(v)(*new) if hasattr(v, "_fields") else type(v)(new)

            return mutate

        return [(d, at(i, m)) for i, x in enumerate(value) for d, m in _mutants(x, f"entry {i} of {path}")]
    if isinstance(value, dict):
        return [
            (d, lambda v, k=k, m=m: {**v, k: m(v[k])})
            for k, x in value.items()
            for d, m in _mutants(x, f"[{k!r}] of {path}")
        ]
    if isinstance(value, bool):
        return [(f"{path} negated", lambda v: not v)]
    if isinstance(value, torch.Tensor) and value.dtype == torch.bool:
        return [(f"{path} negated", lambda v: ~v)]
    if isinstance(value, (int, float)) or hasattr(value, "dtype"):
        return [(f"{path} × 1.01", lambda v: v * 1.01), (f"{path} × -1", lambda v: -v)]
    return []


def _run(cell, namespace):
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        exec(compile(cell.code, "<cell>", "exec"), namespace)


def _fresh(page):
    """Run a page from the top, its exported functions wrapped as soon as they are defined; returns the namespace."""
    ns = {"__name__": "page", "display": lambda *a, **k: None}
    for cell in page.cells:
        if cell.kind != "code" or cell.skipped:
            continue
        _run(cell, ns)
        if cell.exported:
            for name in set(page.exported_functions()) & ns.keys():
                if not hasattr(ns[name], "mutable"):
                    ns[name] = _wrapped(name, ns[name])
    return ns


@functools.cache
def _wrap_package(modules):
    """Wrap the exported functions in the package too, for pages and functions that import them."""
    wrapped = {}
    for page in PAGES.values():
        if page.module in modules:
            mod = importlib.import_module(page.module)
            for name in page.exported_functions():
                if not hasattr(getattr(mod, name), "mutable"):
                    wrapped[getattr(mod, name)] = _wrapped(name, getattr(mod, name))
    for module in modules:
        mod = importlib.import_module(module)
        for name, value in list(vars(mod).items()):
            if callable(value) and getattr(value, "__hash__", None) and value in wrapped:
                setattr(mod, name, wrapped[value])


@functools.cache
def _run_page(page_name):
    _wrap_package(tuple(p.module for p in PAGES.values() if p.module))
    ACTIVE.update(name=None, mutate=None)
    try:
        return _fresh(PAGES[page_name])
    except Exception as e:
        return e


def _populated(page_name):
    """The namespace of a page that has been run from the top, unmutated; run once."""
    if isinstance(ns := _run_page(page_name), Exception):
        raise RuntimeError(f"nbs/math/{page_name}.ipynb does not run: {ns!r}") from ns
    return ns


@pytest.fixture(scope="module", autouse=True)
def _restore_package():
    saved = {m: dict(vars(importlib.import_module(m))) for m in (p.module for p in PAGES.values()) if m}
    yield
    for m, names in saved.items():
        vars(importlib.import_module(m)).update(names)


def _asserting(page, name):
    """The cells worth running again: those with assertions, the ones that name the function first."""
    cells = [c for c in page.cells if c.kind == "code" and not c.exported and not c.skipped and _assertions(c.code)]
    return sorted(cells, key=lambda c: re.search(rf"\b{name}\b", c.code) is None)


def _notices(page, name):
    """True if some cell of the page raises while the active mutation is on."""
    ns = dict(_populated(page.name))
    for cell in _asserting(page, name):
        try:
            _run(cell, ns)
        except Exception:
            return True
    return False


def survivors(page, name, others=()):
    """The mutations of one exported function that no cell notices."""
    _populated(page.name)
    readers = [p for p in others if re.search(rf"\b{name}\b", "\n".join(c.code for c in p.cells if c.kind == "code"))]
    if name not in RETURNS:
        for p in readers:
            _populated(p.name)
    if name not in RETURNS:
        return [f"{name} is never called"]
    alive = []
    for what, mutate in _mutants(RETURNS[name]) or [("its results cannot be perturbed", lambda v: v)]:
        for p in (page, *readers):
            _populated(p.name)
            ACTIVE.update(name=name, mutate=mutate)
            try:
                if _notices(p, name):
                    break
            finally:
                ACTIVE.update(name=None, mutate=None)
        else:
            alive.append(f"{name}: {what}")
    return alive


EXPORTED = [(page.name, name) for page in PAGES.values() if page.module for name in page.exported_functions()]


@pytest.mark.parametrize("name", PAGES)
def test_page_runs(name):
    """Every cell that is neither a figure nor slow, in one namespace, without a notebook server."""
    _populated(name)


@pytest.mark.parametrize("page, name", EXPORTED)
def test_every_exported_function_is_pinned(page, name):
    """If this fails, add an assertion to the page that would have seen the named perturbation."""
    others = [p for p in PAGES.values() if p.name != page]
    assert not (alive := survivors(PAGES[page], name, others)), "no cell of nbs/math notices: " + "; ".join(alive)


@pytest.mark.parametrize(
    "check, expected",
    (
        ("assert double(2.0) == 4.0", 0),
        ("assert abs(double(2.0)) == 4.0", 1),
        ("assert abs(double(2.0) - 4) < 0.1", 1),
        ("assert double(2.0) != 17.0", 2),
        ("# slow\nassert double(2.0) == 4.0", 2),
    ),
)
def test_the_mutation_guard_has_teeth(check, expected, monkeypatch):
    page = _page("#| exports\ndef double(x): return 2 * x", check, "# a demonstration\nx = double(3.0)")
    monkeypatch.setitem(PAGES, "made_up", page)
    monkeypatch.delitem(RETURNS, "double", raising=False)
    _wrap_package(tuple(p.module for p in PAGES.values() if p.module))
    ns = _fresh(page)
    monkeypatch.setitem(globals(), "_populated", lambda name: ns)
    alive = survivors(page, "double")
    assert len(alive) == expected, alive
