"""Places and run templates: read once, checked before the run, refused in one sentence."""

import json
import logging
import os
import pickle
import random
import time
from pathlib import Path

import nbformat
import pytest
from mutations import COUNT, mutated_bytes, mutated_structure
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from bayesbinn_nb.repro import places, suites, templates
from bayesbinn_nb.repro.places import default_out, experiments_dir, is_absolute, printable, short_path
from bayesbinn_nb.repro.templates import SuiteError, in_brief, load_template, read_notebook, value_fault

TEMPLATES = sorted(experiments_dir().glob("*.ipynb"))


def notebook(path: Path, source: str, before: tuple = (), after: tuple = ()) -> Path:
    tagged = new_code_cell(source, metadata={"tags": ["parameters"]})
    cells = [*map(new_code_cell, before), tagged, *map(new_code_cell, after)]
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Demo"), *cells]), path)
    return path


def raw(path: Path, **cell) -> Path:
    "A notebook of one parameter cell, written without any check"
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "seeds = [0]", "outputs": []} | cell
    path.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


# what a template is


def test_code_parameters_and_defaults(tmp_path):
    path = notebook(
        tmp_path / "demo.ipynb",
        'kind: Kind = "a"  # of two\nseeds: list[int] = [0]\nrate = 1e-3\nlong = 60 * 500\nodd = {1, 2}',
        before=('Kind = Literal["a", "b"]',),
        after=("print(rate)", "%time 1"),
    )
    template = load_template(path)
    assert template.name == "demo" and template.path == path.resolve()
    assert template.code == ('Kind = Literal["a", "b"]', "print(rate)", "%time 1")
    assert list(template.parameters) == ["kind", "seeds", "rate", "long", "odd"]
    assert template.parameters["kind"].kind == "Literal['a', 'b']"
    assert template.defaults == {"kind": "a", "seeds": [0], "rate": 1e-3, "long": "60 * 500", "odd": "{1, 2}"}
    assert [p.literal for p in template.parameters.values()] == [True, True, True, False, False]
    assert template.check({"kind": "b"}) == {"kind": "b"}
    with pytest.raises(SuiteError, match=r"must be Literal\['a', 'b'\], not 'c'"):
        template.check({"kind": "c"})
    template.defaults["seeds"].append(1)
    assert template.defaults["seeds"] == [0]  # nobody changes the next reader's
    assert pickle.loads(pickle.dumps(template)) == template


def test_a_template_is_read_once_for_each_state_of_its_file(tmp_path, monkeypatch):
    path = notebook(tmp_path / "demo.ipynb", "rate = 1.0")
    os.utime(path, (1e9, 1e9))
    read = []
    monkeypatch.setattr(templates, "read_notebook", lambda p: read.append(p) or read_notebook(p))
    first = load_template(path)
    assert load_template(str(path)) is first and len(read) == 1
    suites.check_parameters(path, {"rate": 2.0})
    assert len(read) == 1
    notebook(path, "rate = 2.0")  # of the same size
    assert load_template(path).defaults == {"rate": 2.0}
    notebook(path, "rate = 3.0")  # at once again, when the clock of the file system may not have moved
    assert load_template(path).defaults == {"rate": 3.0}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.stem)
def test_plain_papermill_knows_every_parameter(path, caplog):
    papermill = pytest.importorskip("papermill")
    with caplog.at_level(logging.WARNING, logger="papermill"):
        theirs = papermill.inspect_notebook(str(path))
    ours = load_template(path).parameters
    assert list(theirs) == list(ours)
    assert not [r for r in caplog.records if "Unable to parse" in r.getMessage()]
    for name, parameter in ours.items():
        assert theirs[name]["help"] == parameter.help, name
        kind = theirs[name]["inferred_type_name"]
        assert kind != "None" and "|" not in kind, (
            f"{name}: papermill reads Optional[…], not a type with |, or none at all"
        )
        alias = kind.isidentifier() and kind[0].isupper()  # a name that the cell gives to a longer type
        assert alias or kind.replace(" ", "") == parameter.kind.replace(" ", ""), name


def test_quotes_and_names_in_types(tmp_path):
    path = notebook(tmp_path / "demo.ipynb", 'a: "dict[str, \'float\']" = {}\nb: typing.Optional["int"] = None')
    template = load_template(path)
    assert [p.kind for p in template.parameters.values()] == ["dict[str, float]", "typing.Optional[int]"]
    assert template.check({"a": {"x": "1e-3"}, "b": 3}) == {"a": {"x": 1e-3}, "b": 3}


@pytest.mark.parametrize(
    "kind, given, converted",
    [
        ("int | float | None", 1, 1),
        ("Union[int, str]", "3", "3"),
        ("Sequence[float]", (1, 2), [1.0, 2.0]),
        ("tuple", (1, 2), [1, 2]),
        ("dict", {"a": 1}, {"a": 1}),
        ("Path", "x", "x"),
        ("np.ndarray[int]", [1], [1]),
        ("None", None, None),
    ],
)
def test_conversion(tmp_path, kind, given, converted):
    template = load_template(notebook(tmp_path / "demo.ipynb", f"a: {kind} = 3 * 4"))
    got = template.check({"a": given})["a"]
    assert got == converted and type(got) is type(converted)


# values that a record refuses


@pytest.mark.parametrize(
    "value, fault",
    [
        (float("inf"), "finite numbers only"),
        (float("nan"), "finite numbers only"),
        ({"lr": [1.0, float("-inf")]}, "finite numbers only"),
        ("/data/mnist", "relative paths only"),
        ("~/mnist", "relative paths only"),
        ("C:\\data", "relative paths only"),
        ({"peer": ["\\\\server\\share"]}, "relative paths only"),
        ({"/data": 1}, "relative paths only"),
        ("\ud800", "half a surrogate pair"),
        (2**63, "beyond"),
        ({1: 2}, "keys are texts"),
        ({1, 2}, "holds a set"),
        (b"bytes", "holds a bytes"),
        ([[[]]] * 20_000, "more than 10000 values"),
    ],
)
def test_what_a_record_refuses_is_refused_before_the_run(tmp_path, value, fault):
    template = load_template(notebook(tmp_path / "demo.ipynb", "anything = None\nout: str = '.'"))
    assert fault in value_fault(value)
    with pytest.raises(
        SuiteError, match=f"mine.yaml, row a: parameter 'anything' of template demo cannot be .*{fault}"
    ):
        template.check({"anything": value}, "mine.yaml, row a")


def test_texts_that_become_numbers_are_looked_at_again(tmp_path):
    template = load_template(notebook(tmp_path / "demo.ipynb", "rate: float = 1e-3\nout: str = '.'"))
    assert template.check({"rate": "1e-10", "out": "/scratch/run"}) == {"rate": 1e-10, "out": "/scratch/run"}
    for text in ("inf", "nan", "-1e999"):
        with pytest.raises(SuiteError, match="finite numbers only"):
            template.check({"rate": text})
    for wrong in ("1e-3x", "", [1.0]):
        with pytest.raises(SuiteError, match="must be float"):
            template.check({"rate": wrong})
    with pytest.raises(SuiteError, match="beyond"):
        template.check({"rate": 10**400})


# notebooks that are none


@pytest.mark.parametrize(
    "source, said",
    [
        ("%magic\nseeds: list[int] = [0]", "line 1 cannot be read as Python .*'%magic'"),
        ("seeds = [0]\nx: '(' = 1", "line 2 cannot be read as Python"),
        ("seeds: list[int] = None", r"the default of 'seeds' must be list\[int\], not None; write Optional"),
        ("rate: int = 1.5", "the default of 'rate' must be int, not 1.5"),
        ("x = " + "-" * 5000 + "1", "nested too deep"),
        ("x = " + "(" * 300 + ")" * 300, "line 1 cannot be read as Python"),
        ("x: " + "|".join(["int"] * 5000) + " = 1", "nested too deep"),
        ("seeds=[0]\nx='\ud800'", "half a surrogate pair"),
        ("x = 1\0", "cannot be read as Python"),
        ("x = " + "9" * 5000, "cannot be read as Python"),
    ],
)
def test_parameter_cells_that_cannot_be_read(tmp_path, source, said):
    path = raw(tmp_path / "wrong.ipynb", source=source)
    with pytest.raises(SuiteError, match=said) as e:
        load_template(path)
    assert "wrong.ipynb" in str(e.value) and "cell 1" in str(e.value) and len(str(e.value)) < 800


@pytest.mark.parametrize(
    "cell, said",
    [
        ({"source": ["a = 1\n", 5]}, "'source' must be a text or a list of texts"),
        ({"source": None}, "'source' must be a text"),
        ({"cell_type": None}, "has no 'cell_type'"),
        ({"metadata": []}, "'metadata' must hold keys and values"),
        ({"metadata": {"tags": "parameters"}}, "'tags' must be a list of texts"),
        ({"metadata": {"tags": [["parameters"]]}}, "'tags' must be a list of texts"),
    ],
)
def test_cells_of_a_wrong_form(tmp_path, cell, said):
    with pytest.raises(SuiteError, match=f"wrong.ipynb is not a notebook: cell 1: .*{said}"):
        read_notebook(raw(tmp_path / "wrong.ipynb", **cell))


def test_files_that_are_no_notebooks(tmp_path):
    path = tmp_path / "wrong.ipynb"
    deep = '{"a":' * 900 + "1" + "}" * 900
    for content, said in (
        (b"", "Expecting value"),
        (b"\xff\xfe", "not UTF-8 text"),
        (b"[]", "has no cells"),
        (b'{"cells": {}}', "has no cells"),
        (b'{"cells": [7]}', "cell 1: it has no 'cell_type'"),
        (b'{"cells": [], "nbformat": 3}', "its format is 3"),
        (b"[" * 100_000, "nested too deep"),
        (f'{{"cells": [], "metadata": {deep}}}'.encode(), "nested"),
        (b'{"cells": [], "metadata": {"title": "\\ud800"}}', "half a surrogate pair"),
    ):
        path.write_bytes(content)
        with pytest.raises(SuiteError, match=f"wrong.ipynb is not a notebook.*{said}"):
            read_notebook(path)
    for absent in (tmp_path, tmp_path / "absent.ipynb", tmp_path / ("a" * 300 + ".ipynb"), "zero\0byte.ipynb"):
        with pytest.raises(SuiteError, match="there is no notebook|cannot be read"):
            read_notebook(absent)
        with pytest.raises(SuiteError, match="there is no notebook|cannot be read"):
            load_template(absent)


def test_a_notebook_that_may_not_be_read(tmp_path, monkeypatch):
    path = notebook(tmp_path / "locked.ipynb", "x = 1")

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(SuiteError, match="locked.ipynb cannot be read: Permission denied"):
        read_notebook(path)


def test_a_notebook_of_hundreds_of_megabytes_is_not_read(tmp_path, monkeypatch):
    path = notebook(tmp_path / "large.ipynb", "x = 1")
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("it was read"))
    os.truncate(path, templates.LARGEST + 1)
    with pytest.raises(SuiteError, match="large.ipynb is not a notebook: it has 20000001 bytes"):
        read_notebook(path)


def test_changed_notebooks_load_or_are_refused(tmp_path):
    rng = random.Random(2)
    originals = [experiments_dir() / f"{name}.ipynb" for name in ("benchmark", "segmentation", "snelson_temperature")]
    originals.append(notebook(tmp_path / "small.ipynb", "a: Optional[int] = None  # b\nseeds: list[int] = [0]"))
    refused = 0
    for number in range(COUNT):
        original = rng.choice(originals).read_bytes()
        path = tmp_path / f"changed{number}.ipynb"
        if number % 2:
            path.write_bytes(mutated_bytes(original, rng))
        else:
            path.write_text(json.dumps(mutated_structure(json.loads(original), rng)))
        start = time.process_time()
        try:
            template = load_template(path)
            template.check({"seeds": [0]})
            assert all(isinstance(source, str) for source in template.code)
        except SuiteError as e:
            refused += 1
            said = str(e)
            assert path.stem in said and said.isprintable() and len(said) < 1500
        assert time.process_time() - start < 2, "of the processor's time"
        path.unlink()
    assert COUNT / 10 < refused < COUNT


# what messages show


def test_values_in_brief():
    bomb = "x"
    for _ in range(9):
        bomb = [bomb] * 9
    for value in (bomb, "a" * 10**6, 1 << 10**6, [1 << 10**6], {"k" * 1000: bomb}, "\x1b[2J\n", object()):
        assert len(in_brief(value)) <= 120 and in_brief(value).isprintable()
    assert in_brief(1e-10) == "1e-10" and in_brief("a\nb") == r"'a\nb'"


def test_paths_are_short_and_printable(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert short_path(tmp_path / "a" / "b.json") == os.path.join("a", "b.json")
    assert short_path(tmp_path.parent / "c") == os.path.join("..", "c")
    assert short_path(tmp_path.parent.parent.parent / "d") == str(tmp_path.parent.parent.parent / "d")
    assert short_path("e\x1b[2J\n\u202e") == r"e\x1b[2J\n" + "\\u202e"
    assert short_path("zero\0byte") == r"zero\x00byte"
    assert len(short_path("f" * 5000)) == 160 and short_path("f" * 5000 + "g.json").endswith("g.json")
    assert printable("übel ½") == "übel ½"


def test_absolute_is_absolute_on_every_system():
    assert all(map(is_absolute, ("/", "/data", "~", "~me/x", "C:\\x", "c:/x", "\\\\server\\x", "file:///x", "FILE:x")))
    assert not any(map(is_absolute, ("", "x", "./x", "../x", "a:b", "my_methods:Mine", "1/2")))


def test_places_of_a_checkout_and_of_an_installation(tmp_path, monkeypatch):
    package = tmp_path / "bayesbinn_nb"
    (package / "experiments").mkdir(parents=True)
    monkeypatch.setattr(places, "package_dir", lambda: package)
    monkeypatch.chdir(tmp_path)
    assert places.checkout_root() is None and places.results_dir() is None
    assert places.experiments_dir() == package / "experiments"
    assert default_out("short") == tmp_path / "_runs" / "short"
    (package / "experiments").rmdir()
    with pytest.raises(FileNotFoundError, match="reinstall bayesbinn_nb"):
        places.experiments_dir()
    (tmp_path / "nbs" / "experiments").mkdir(parents=True)
    (tmp_path / "settings.ini").touch()
    assert places.checkout_root() == tmp_path and places.results_dir() == tmp_path / "nbs" / "results"
    assert places.experiments_dir() == tmp_path / "nbs" / "experiments"
    assert default_out("short") == tmp_path / "nbs" / "results" / "runs" / "short"
    assert default_out("quick") == tmp_path / "_runs" / "quick"


def test_suites_hand_on_places_and_templates():
    for name in ("SuiteError", "Parameter", "read_notebook", "cell_source", "template_parameters", "check_parameters"):
        assert getattr(suites, name) is getattr(templates, name) and name in suites.__all__
    for name in ("package_dir", "checkout_root", "experiments_dir", "results_dir", "default_out"):
        assert getattr(suites, name) is getattr(places, name) and name in suites.__all__
