"""What identifies a run: the meaning of the code it reaches and its parameters by value, and nothing about layout."""

import ast
import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bayesbinn_nb.repro import identity
from bayesbinn_nb.repro.identity import canonical, changed, identify, package_folder, reach
from bayesbinn_nb.repro.jobs import identify_template
from bayesbinn_nb.repro.suites import experiments_dir, load_suite

# every kind of syntax that the package uses, and some it may come to use
EVERYTHING = '''
"""docstring"""
from __future__ import annotations
import os, sys as system
from collections.abc import Callable

NUMBERS = (1, 1.0, 1e-10, 1_000, 0x10, 2j, True, None, ..., b"bytes", "text" "joined", "ümlaut")
x: int = 3
y: float

@decorator(1, key="value")
def function(a: int, /, b: str = "b", *args: object, c: float = 1.0, **kwargs) -> dict[str, int]:
    """docstring"""
    local: list[int] = [i for i in range(10) if i % 2]
    f = f"{a!r:>{b}} and {b}" f" {a:.2f}{'nested'}" "tail"
    with open(f) as one, open(b) as two:
        pass
    try:
        return {**kwargs, "a": [*args], "s": {1, 2}, "l": lambda z, *, k=1: z + k}
    except (ValueError, OSError) as e:
        raise RuntimeError from e
    else:
        assert local, "message"
    finally:
        del local[1:2, ::3]
    while (n := a) > 0 and not b or a if b else c:
        global NUMBERS
        yield from (n for n in args)
        break

class Class(Base, metaclass=Meta):
    """docstring"""
    field: int = 0
    bare: str
    @property
    async def method(self) -> int:
        async for i in self: await i
        return -1 ** 2 @ self.x[..., 1]

match NUMBERS:
    case [1, *rest] if rest: x = 1
    case {"a": 1, **more} | Class(field=2): x = 2
    case _: pass
'''
GOLDEN = "97591158a855"  # the same on every version of Python


def meaning(source):
    return canonical(ast.parse(textwrap.dedent(source)))


def test_canonical_text_is_a_constant():
    assert identity._sha(meaning(EVERYTHING), 12) == GOLDEN


@pytest.mark.parametrize("version", ["python3.11", "python3.12", "python3.13", "python3.14"])
def test_every_python_gives_the_same(version, tmp_path):
    "The identity's module needs nothing but Python itself, so another version can run it as it stands"
    pyenv = Path.home() / ".pyenv" / "versions"
    places = sorted(pyenv.glob(f"{version.removeprefix('python')}.*/bin/python")) if pyenv.is_dir() else []
    other = str(places[-1]) if places else shutil.which(version)
    if other is None or subprocess.run([other, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"{version} is not on this machine")
    (tmp_path / "everything.py").write_text(EVERYTHING, encoding="utf-8")
    code = (
        "import importlib.util, sys, ast, json, pathlib\n"
        "spec = importlib.util.spec_from_file_location('identity', sys.argv[1])\n"
        "identity = importlib.util.module_from_spec(spec); sys.modules['identity'] = identity\n"
        "spec.loader.exec_module(identity)\n"
        "text = pathlib.Path(sys.argv[2]).read_text(encoding='utf-8')\n"
        "cells = json.loads(sys.argv[4])\n"
        "whole = identity.identify(cells, {'lr': 1e-2}, package=sys.argv[3]).hash\n"
        "print(identity._sha(identity.canonical(ast.parse(text)), 12), whole)\n"
    )
    cells = ["from bayesbinn_nb.library.trainer import Trainer\nfrom bayesbinn_nb.methods.bayesbinn import BayesBiNN"]
    arguments = [identity.__file__, str(tmp_path / "everything.py"), str(package_folder()), json.dumps(cells)]
    done = subprocess.run([other, "-W", "error", "-c", code, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [GOLDEN, identify(cells, {"lr": 1e-2}).hash]


@pytest.mark.parametrize(
    "one, other",
    [
        ("x = 1e-4", "x = 0.0001"),
        ("x: int = 3", "x = 3"),
        ("def f(a: int) -> int: return a", "def f(a):\n    'doc'\n    return (a)"),
        ("x = f'{a}' 'b' 'c'", "x = f'{a}bc'"),
        ("class A(B): 'doc'", "class A(B): pass"),
        ("def f():\n    y: int\n    return 1", "def f():\n    return 1"),
        ("import os\nx = 1", "x = 1"),  # what a name stands for is looked up where it is used
    ],
)
def test_same_meaning(one, other):
    assert meaning(one) == meaning(other)


@pytest.mark.parametrize(
    "one, other",
    [
        ("x = True", "x = 1"),
        ("x = 1", "x = 1.0"),
        ("x = a + b * c", "x = (a + b) * c"),
        ("def f(a=1): return a", "def f(a=2): return a"),
        ("class A:\n    x: int", "class A:\n    x: str"),
        ("@numba.njit\ndef f(a: int): return a", "@numba.njit\ndef f(a: float): return a"),
        ("@triton.jit\ndef f(a: tl.constexpr): return a", "@triton.jit\ndef f(a): return a"),
        ("x = f'{a:.2f}'", "x = f'{a:.3f}'"),
        ("x = a[1:]", "x = a[:1]"),
        ("x = not a", "x = a"),
        ("def f(*, a): pass", "def f(a): pass"),
    ],
)
def test_other_meaning(one, other):
    assert meaning(one) != meaning(other)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "The package and the templates, to be changed"
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(package_folder(), folder / "bayesbinn_nb", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(experiments_dir(), folder / "experiments", dirs_exist_ok=True)
    return folder


def identities(folder):
    "row -> identity of every row of two suites, with a copy's package and templates"
    found = {}
    for suite in ("short", "paper"):
        for row in load_suite(suite).rows:
            template = folder / "experiments" / row.template.name
            found[suite, row.name] = of_row(folder, row, template)
    return found


def of_row(folder, row, template):
    from bayesbinn_nb.repro.suites import cell_source, read_notebook, template_parameters

    cells = [c for c in read_notebook(template)["cells"] if c["cell_type"] == "code"]
    sources = [cell_source(c) for c in cells if "parameters" not in c.get("metadata", {}).get("tags", [])]
    params = {name: p.default for name, p in template_parameters(template).items()} | row.params
    return identify(sources, params, row.deviations, package=folder / "bayesbinn_nb").hash


def test_other_line_widths_change_no_identity(copy, tmp_path):
    ruff = shutil.which("ruff") or str(Path(sys.executable).with_name("ruff"))
    if not Path(ruff).exists():
        pytest.skip("ruff is not installed")
    before = identities(copy)
    assert before == {
        (suite, row.name): identify_template(row.template, row.params, row.deviations).hash
        for suite in ("short", "paper")
        for row in load_suite(suite).rows
    }
    for width in (70, 200):
        other = tmp_path / str(width)
        shutil.copytree(copy, other)
        options = ["--isolated", "--config", "extend-include = ['*.ipynb']", "--line-length", str(width), "--quiet"]
        subprocess.run([ruff, "format", *options, str(other)], check=True, timeout=120)
        changed_files = [p for p in copy.rglob("*.py") if p.read_bytes() != (other / p.relative_to(copy)).read_bytes()]
        assert changed_files, "the other width changes nothing, so the test shows nothing"
        assert identities(other) == before


def with_line(folder, module, line):
    "A copy of the package in which a line was added to a module"
    path = folder / "bayesbinn_nb" / module
    path.write_text(path.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")


@pytest.mark.parametrize(
    "module, stales",
    [("methods/pmf.py", False), ("library/plots.py", False), ("repro/cli.py", False), ("library/trainer.py", True)],
)
def test_a_line_stales_what_reaches_it(copy, tmp_path, module, stales):
    other = tmp_path / "copy"
    shutil.copytree(copy, other)
    with_line(other, module, "ADDED = 1")
    row = next(r for r in load_suite("short").rows if r.name == "benchmark-mnist-ste")
    template = copy / "experiments" / row.template.name
    assert (of_row(copy, row, template) != of_row(other, row, template)) is stales


def test_a_function_may_move_to_another_room(copy, tmp_path):
    "Splitting a module changes no identity: a function is what it says and what its names stand for"
    other = tmp_path / "copy"
    shutil.copytree(copy, other)
    package = other / "bayesbinn_nb"
    source = "import math\n\n\ndef moved(x):\n    return math.log(x)\n"
    use = "\n\ndef uses(x):\n    return moved(x)\n"
    (package / "methods" / "together.py").write_text(source + use)
    one = identify(["from bayesbinn_nb.methods.together import uses"], {}, package=package).hash
    (package / "methods" / "apart.py").write_text(source)
    (package / "methods" / "together.py").write_text("from .apart import moved" + use)
    assert identify(["from bayesbinn_nb.methods.together import uses"], {}, package=package).hash == one
    (package / "methods" / "apart.py").write_text(source.replace("log(x)", "log2(x)"))
    assert identify(["from bayesbinn_nb.methods.together import uses"], {}, package=package).hash != one


def test_a_name_that_comes_to_mean_something_else_is_seen(tmp_path):
    package = tmp_path / "bayesbinn_nb"
    (package / "methods").mkdir(parents=True)
    for name in ("a", "b"):
        (package / "methods" / f"{name}.py").write_text(f"def step(x):\n    return {name!r}\n")
    for name in ("a", "b"):
        (package / "methods" / "user.py").write_text(
            f"from . import a, b\nfrom .{name} import step\ndef f(): return step(1)"
        )
        (tmp_path / name).write_text(identify(["from bayesbinn_nb.methods.user import f"], {}, package=package).hash)
    assert (tmp_path / "a").read_text() != (tmp_path / "b").read_text()


def test_modules_named_by_strings_follow_the_rows_method():
    rows = {row.name: row for row in load_suite("short").rows}
    for name, there, not_there in (("ste", "methods.ste", "methods.pmf"), ("pmf", "methods.pmf", "methods.lrnet")):
        row = rows[f"benchmark-mnist-{name}"]
        modules = identify_template(row.template, row.params, row.deviations).modules
        assert there in modules and not_there not in modules


def test_kernels_for_a_gpu_count_on_a_gpu_only():
    code = identity.current_code()
    imports = ["bayesbinn_nb.methods.bayesbinn.BayesBiNN"]
    on_cpu, on_gpu = (set(reach(code, imports, gpu=gpu)) for gpu in (False, True))
    assert on_gpu - on_cpu and all("cuda" in name or "gpu" in name for name in on_gpu - on_cpu)


@pytest.mark.parametrize(
    "values, other, same",
    [
        ({"lr": 1e-4}, {"lr": 0.0001}, True),
        ({"lr": 1}, {"lr": True}, False),
        ({"lr": 1}, {"lr": 1.0}, False),
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 2, "x": 1}}, True),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        ({"a": None}, {"a": "None"}, False),
        ({"seeds": [0]}, {"seeds": [1, 2]}, True),
        ({"out": "."}, {"out": "elsewhere"}, True),
    ],
)
def test_parameters_count_by_value(values, other, same):
    assert (identify(["x = 1"], values).hash == identify(["x = 1"], other).hash) is same


def test_what_is_drawn_after_the_records_does_not_count():
    cells = ["x = 1", "record_run(out)", "plt.plot(x)"]
    assert identify(cells, {}).hash == identify([*cells[:2], "print(x)"], {}).hash
    assert identify(cells, {}).hash != identify(["x = 2", *cells[1:]], {}).hash


def test_a_method_of_ones_own_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_own_method.py").write_text("class Mine:\n    rate = 1\n")
    before = identify(["x = 1"], {"method": "my_own_method:Mine"}).hash
    (tmp_path / "my_own_method.py").write_text("class Mine:\n    # faster\n    rate = 1\n")
    assert identify(["x = 1"], {"method": "my_own_method:Mine"}).hash == before
    (tmp_path / "my_own_method.py").write_text("class Mine:\n    rate = 2\n")
    assert identify(["x = 1"], {"method": "my_own_method:Mine"}).hash != before


def test_a_cell_that_is_no_python_is_named():
    with pytest.raises(SyntaxError, match="code cell 2"):
        identify(["x = 1", "for"], {})


def test_changed_functions(tmp_path):
    package = tmp_path / "bayesbinn_nb"
    package.mkdir()
    source = "EPS = 1\ndef f(): return EPS\nclass A:\n    def step(self): return f()\n    def other(self): return 1\n"
    (package / "m.py").write_text(source)
    cells = ["from bayesbinn_nb.m import A\nA().step()"]
    before = identify(cells, {}, package=package)
    assert changed(before, before.units) == []
    for old, new, expected in (
        ("return f()", "return f() + 1", ["m:A.step"]),
        ("EPS = 1", "EPS = 2", ["m:f"]),
        ("    def other(self): return 1\n", "", []),
        ("class A:", "def unused(): return 0\nclass A:", []),
        ("    def other", "    def hook(self): return 2\n    def other", ["m:A.hook"]),
    ):
        (package / "m.py").write_text(source.replace(old, new))
        now = identify(cells, {}, package=package)
        assert now.hash != before.hash or not expected
        assert changed(now, before.units) == expected, (old, new)
