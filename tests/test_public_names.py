"""The public names: each is what its module defines, loads nothing before it is asked for, and needs no notebook
tools."""

import ast
import inspect
import json
import pydoc
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import bayesbinn_nb
from bayesbinn_nb.repro.identity import current_code, identify, package_folder

ROOT = Path(__file__).parent.parent
NOTEBOOK_TOOLS = (
    "papermill",
    "nbdev",
    "matplotlib",
    "numba",
    "jupyter",
    "jupyter_core",
    "jupyter_client",
    "fastcore",
    "IPython",
)


def in_a_new_process(code, *arguments):
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_import_loads_nothing():
    "Neither torch nor a module of ours; what little is left is measured, the best of three new processes"
    code = (
        "import sys, time\nstart = time.process_time()\nimport bayesbinn_nb\nseconds = time.process_time() - start\n"
        "loaded = [m for m in sys.modules if m.startswith(('bayesbinn_nb.', 'torch', 'numpy'))]\n"
        "assert not loaded, loaded\nprint(seconds)"
    )
    assert min(float(in_a_new_process(code)) for _ in range(3)) < 0.05


def test_every_public_name_without_notebook_tools():
    code = """
import sys

class Closed:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Closed())
import bayesbinn_nb
for name in bayesbinn_nb.__all__:
    assert getattr(bayesbinn_nb, name).__name__ == name, name
assert not set(sys.argv[1:]) & set(sys.modules)
from bayesbinn_nb import *
print(len(bayesbinn_nb.__all__), Trainer.__module__)
"""
    assert in_a_new_process(code, *NOTEBOOK_TOOLS).split() == [
        str(len(bayesbinn_nb.__all__)),
        "bayesbinn_nb.library.trainer",
    ]


def test_the_package_says_what_is_public():
    assert set(bayesbinn_nb.__all__) <= set(dir(bayesbinn_nb))
    assert len(set(bayesbinn_nb.__all__)) == len(bayesbinn_nb.__all__)
    with pytest.raises(AttributeError, match="no public name 'LOSSES'.*longer path"):
        _ = bayesbinn_nb.LOSSES
    with pytest.raises(ImportError, match="cannot import name 'BayesBinn'"):
        from bayesbinn_nb import BayesBinn  # noqa: F401


def test_type_checkers_see_the_same_names():
    "The imports that only they read, beside the table that Python reads"
    door = current_code().module("")
    seen = {name: path for name, path in door.imports.items() if path.startswith("bayesbinn_nb.")}
    assert seen == {name: f"bayesbinn_nb.{module}.{attribute}" for name, module, attribute in door.strings}
    assert sorted(seen) == sorted(bayesbinn_nb.__all__)


def test_a_type_checker_agrees(tmp_path):
    "It knows the type behind a public name, and that a misspelt one does not exist"
    checker = shutil.which("basedpyright") or Path(sys.executable).with_name("basedpyright")
    if not Path(checker).exists():
        pytest.skip("basedpyright is not installed")
    (tmp_path / "use.py").write_text(
        "from bayesbinn_nb import STE, Trainer, load_data\nimport bayesbinn_nb\n"
        "reveal_type(STE)\nreveal_type(Trainer)\nreveal_type(load_data)\nbayesbinn_nb.Trainr\n"
    )
    settings = {"typeCheckingMode": "basic", "extraPaths": [str(ROOT)], "pythonVersion": "3.11"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [checker, "--outputjson", "--pythonpath", sys.executable, "-p", str(tmp_path)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    said = [(d["severity"], d["message"]) for d in json.loads(done.stdout)["generalDiagnostics"]]
    types = [re.search(r'is "(type\[\w+\]|\()', message)[1] for severity, message in said if severity == "information"]
    assert types == ["type[STE]", "type[Trainer]", "("], said
    assert [message for severity, message in said if severity == "error"] == [
        '"Trainr" is not a known attribute of module "bayesbinn_nb"'
    ]


def test_types_are_shipped():
    assert (package_folder() / "py.typed").is_file()


def test_version_is_that_of_the_settings():
    settings = (ROOT / "settings.ini").read_text(encoding="utf-8")
    assert re.search(r"(?m)^version = (.*)$", settings)[1] == bayesbinn_nb.__version__


@pytest.mark.parametrize(
    "cell",
    [
        "from bayesbinn_nb import STE\nSTE(lr=1)",
        "from bayesbinn_nb import STE as Straight\nStraight(lr=1)",
        "import bayesbinn_nb\nbayesbinn_nb.STE(lr=1)",
        "import bayesbinn_nb as bb\nmake = lambda: bb.STE(lr=1)",
        "from bayesbinn_nb import *\nSTE(lr=1)",
    ],
)
def test_a_template_that_comes_by_the_front_door_reaches_the_definition(cell, tmp_path):
    folder = tmp_path / "bayesbinn_nb"
    shutil.copytree(package_folder(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    before = identify([cell], {}, package=folder)
    direct = identify(["from bayesbinn_nb.methods.ste import STE\nSTE(lr=1)"], {}, package=folder)
    assert before.modules == direct.modules and "methods.ste" in before.modules
    assert "methods.pmf" not in before.modules and "library.trainer" not in before.modules
    with (folder / "methods" / "pmf.py").open("a") as file:
        file.write("\nADDED = 1\n")
    assert identify([cell], {}, package=folder).hash == before.hash
    with (folder / "methods" / "ste.py").open("a") as file:
        file.write("\nADDED = 1\n")
    assert identify([cell], {}, package=folder).hash != before.hash


def test_a_public_name_that_comes_to_mean_something_else_is_seen(tmp_path):
    folder = tmp_path / "bayesbinn_nb"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / f"{name}.py").write_text(f"def step(x):\n    return {name!r}\n")
    found = set()
    for name in ("one", "two"):
        (folder / "__init__.py").write_text(f'_PUBLIC = {{"step": "bayesbinn_nb.{name}:step"}}\n')
        found.add(identify(["from bayesbinn_nb import step\nstep(1)"], {}, package=folder).hash)
    assert len(found) == 2


def test_every_module_says_what_is_public():
    for path in sorted(package_folder().rglob("*.py")):
        if path.name in ("__init__.py", "_modidx.py"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assigned = [
            node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and node.targets[0].__dict__.get("id") == "__all__"
        ]
        assert assigned, f"{path} has no __all__"
        private = [name for name in ast.literal_eval(assigned[0]) if name.startswith("_")]
        assert not private, f"{path} exports {private}"


# -- help


def explained(text):
    "Arguments of a docstring and what is said of each"
    section = f"\n{text}".partition("\nArguments:\n")[2].partition("\nReturns:")[0]
    pattern = r"(?m)^    (\*{0,2}\w+)(?: \((.*?)\))?(?:: (.+))?$"
    return {name: (kind, meaning) for name, kind, meaning in re.findall(pattern, section)}


def arguments_to_explain(function, bound):
    names = list(inspect.signature(function).parameters.values())[1 if bound else 0 :]
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return {stars.get(p.kind, "") + p.name: p for p in names}


def assert_explained(function, text, bound=False):
    expected, found = arguments_to_explain(function, bound), explained(text or "")
    assert list(found) == list(expected), (function.__qualname__, list(found), list(expected))
    for name, (kind, meaning) in found.items():
        assert meaning, f"{function.__qualname__}: nothing is said of {name}"
        has_default = expected[name].default is not inspect.Parameter.empty
        assert ("default " in kind) == has_default, f"{function.__qualname__}: {name} is shown as {kind!r}"


@pytest.mark.parametrize("name", bayesbinn_nb.__all__)
def test_help_says_what_each_argument_means(name):
    "Of a function; of a class, and of every public method that is ours: names, defaults, and a comment for each"
    public = getattr(bayesbinn_nb, name)
    shown = pydoc.render_doc(public, renderer=pydoc.plaintext)
    assert inspect.getdoc(public).splitlines()[0] in shown
    if inspect.isfunction(public):
        assert_explained(public, inspect.getdoc(public))
        return
    if getattr(public.__init__, "__module__", "").startswith("bayesbinn_nb"):
        assert_explained(public.__init__, public.__doc__, bound=True)
    for attribute in (name for name in dir(public) if not name.startswith("_")):
        raw = inspect.getattr_static(public, attribute)
        method = inspect.unwrap(getattr(raw, "__func__", raw))
        if inspect.isfunction(method) and method.__module__.startswith("bayesbinn_nb"):
            text = inspect.getdoc(getattr(public, attribute)) or ""
            assert_explained(method, text, bound=not isinstance(raw, staticmethod))
            assert all(line.strip() in shown for line in text.splitlines())


def test_help_is_written_once():
    from bayesbinn_nb.library.arguments import explain

    before = bayesbinn_nb.Trainer.fit.__doc__
    explain(bayesbinn_nb.Trainer)
    assert bayesbinn_nb.Trainer.fit.__doc__ == before and before.count("Arguments:") == 1


def silent(
    said: int = 1,  # something
    unsaid: int = 2,
):
    "For the next test"


def test_an_argument_without_a_comment_would_be_noticed():
    from bayesbinn_nb.library.arguments import explain

    explain(silent)
    with pytest.raises(AssertionError, match="nothing is said of unsaid"):
        assert_explained(silent, silent.__doc__)
