"""Suites: what is wrong is said before anything runs; 1e-10 is a number."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from bayesbinn_nb.repro import suites
from bayesbinn_nb.repro.suites import (
    SuiteError,
    check_parameters,
    experiments_dir,
    find_template,
    known_suites,
    load_suite,
    load_yaml,
    short_number,
    template_parameters,
)

CELL = """
# a comment
dataset: str = "digits"      # which data
temperature: float | None = 1e-10
epochs = 3
rate = 1e-3   # learning rate
flags: list[int] = [0]
layers: "dict[str, float]" = {}
how: Literal["mode", "mean"] = "mode"
verbose = False
anything = None
computed = 3 * 4
seeds = [0]
out = "."
work_dir = "_work"
"""


@pytest.fixture
def template(tmp_path):
    path = tmp_path / "demo.ipynb"
    nbformat.write(
        new_notebook(
            cells=[new_code_cell("import math"), new_code_cell(CELL, metadata={"tags": ["parameters"]})],
            metadata={"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}},
        ),
        path,
    )
    return path


def suite(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_parameters_are_read_from_the_cell(template):
    p = template_parameters(template)
    assert list(p)[:4] == ["dataset", "temperature", "epochs", "rate"]
    assert p["dataset"].help == "which data" and p["rate"].help == "learning rate"
    assert p["temperature"].kind == "float | None" and p["temperature"].default == 1e-10
    assert p["epochs"].kind == "int" and p["anything"].kind == "any" and p["computed"].kind == "any"


def test_agrees_with_papermill_where_papermill_can_read(template):
    import papermill

    theirs = papermill.inspect_notebook(template)
    ours = template_parameters(template)
    assert set(theirs) <= set(ours)
    assert "temperature" not in theirs  # why papermill's own reading is not enough


def test_values_are_converted(template):
    given = dict(
        temperature="1e-8",
        epochs=5,
        rate=1,
        flags=[1, 2],
        layers={"a": 1},
        how="mean",
        verbose=True,
        anything="x",
        computed=1,
    )
    got = check_parameters(template, given)
    assert got == given | dict(temperature=1e-8)
    assert isinstance(got["rate"], float) and isinstance(got["layers"]["a"], float)
    assert check_parameters(template, dict(temperature=None)) == dict(temperature=None)


@pytest.mark.parametrize(
    "values, message",
    [
        (dict(temprature=1.0), "no parameter 'temprature'; did you mean 'temperature'"),
        (dict(zzz=1.0), "no parameter 'zzz'; it has dataset"),
        (dict(epochs=3.5), "'epochs' of template demo must be int, not 3.5"),
        (dict(epochs=True), "must be int"),
        (dict(epochs="3"), "must be int"),
        (dict(dataset=3), "must be str"),
        (dict(temperature="cold"), "must be float"),
        (dict(flags=[1, "2"]), "must be list"),
        (dict(flags=1), "must be list"),
        (dict(how="median"), "must be Literal"),
        (dict(verbose=1), "must be bool"),
    ],
)
def test_wrong_name_or_type(template, values, message):
    with pytest.raises(SuiteError, match=message):
        check_parameters(template, values, "row-a")


def test_template_without_parameters(tmp_path):
    path = tmp_path / "plain.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("x = 1")]), path)
    with pytest.raises(SuiteError, match="no cell tagged 'parameters'"):
        check_parameters(path, {})
    path.write_text("{")
    with pytest.raises(SuiteError, match="not a notebook"):
        check_parameters(path, {})


def test_rows_defaults_and_each(template, tmp_path):
    s = load_suite(
        suite(
            tmp_path,
            """
about: mine
anchors: {fast: &fast {epochs: 1}}
defaults: {template: demo, seeds: [0, 1], params: {dataset: mnist}, pages: p}
pages: [index]
rows:
  - row: plain
    params: *fast
  - row: t{temperature}-r{rate}
    each: {temperature: [10.0, 1e-3], rate: [3e-4]}
    seeds: [4]
    published: paper.t7.tau1e-3.*
    deviations: temperature {temperature}
    needs: mnist
    pages: ["page_{temperature}"]
    baseline: majority class
""",
        )
    )
    assert [r.name for r in s.rows] == ["plain", "t10-r3e-4", "t1e-3-r3e-4"]
    a, _, b = s.rows
    assert (
        a.params == {"dataset": "mnist", "epochs": 1}
        and a.seeds == [0, 1]
        and a.pages == ["p"]
        and s.pages == ["index"]
    )
    assert b.params == {"dataset": "mnist", "temperature": 1e-3, "rate": 3e-4} and b.seeds == [4]
    assert b.published == ["paper.t7.tau1e-3.train", "paper.t7.tau1e-3.val", "paper.t7.tau1e-3.test"]
    assert (b.deviations, b.needs, b.baseline, b.suite) == (
        ["temperature 1e-3"],
        ["mnist"],
        "majority class",
        "mine",
    ) and b.pages == ["page_1e-3"]
    assert [r.name for r in s.select("t*")] == ["t10-r3e-4", "t1e-3-r3e-4"]
    assert [r.name for r in s.select("plain, t10*")] == ["plain", "t10-r3e-4"]
    with pytest.raises(SuiteError, match="no row of suite mine matches 'planes'; near it: plain"):
        s.select("planes")
    with pytest.raises(SuiteError, match="no row of suite mine matches 't11\\*'"):  # one of two is enough
        s.select("plain,t11*")


@pytest.mark.parametrize(
    "text, message",
    [
        ("rows: [{row: a, template: dem}]", "no run template 'dem'; did you mean 'demo'"),
        ("rows: [{row: a}]", "needs a 'template'"),
        ("rows: [{template: demo}]", "needs a 'row'"),
        ("rows: [{row: A b, template: demo}]", "lower-case"),
        ("rows: [{row: a, template: demo, seed: [1]}]", "unknown key 'seed'"),
        ("row: []", "needs a list 'rows'"),
        ("rowz: []\nrows: []", "unknown key 'rowz'"),
        ("rows: [{row: a, template: demo}, {row: a, template: demo}]", "two rows are called 'a'"),
        ("rows: [{row: a, template: demo, seeds: 3}]", "seeds must be a list"),
        ("rows: [{row: a, template: demo, seeds: []}]", "seeds must be a list"),
        ("rows: [{row: a, template: demo, params: {epochs: x}}]", "a: parameter 'epochs'"),
        ("rows: [{row: a, template: demo, params: {epoch: 3}}]", "did you mean 'epochs'"),
        ("rows: [{row: a, template: demo, params: {seeds: [3]}}]", "row's own key 'seeds'"),
        ("rows: [{row: a, template: demo, params: {work_dir: x}}]", "given by the runner"),
        ("rows: [{row: a, template: demo, published: nothing.*}]", "no published number"),
        ("rows: [{row: a, template: demo, each: {epochs: 3}}]", "'each' wants"),
        ("rows: [{row: a, row: b, template: demo}]", "twice"),
        ("rows: [", "not valid YAML"),
        ("rows: [3]", "expected keys and values"),
    ],
)
def test_errors_name_the_place(template, tmp_path, text, message):
    with pytest.raises(SuiteError, match=message):
        load_suite(suite(tmp_path, text))


def test_unknown_suite_lists_the_known_ones(tmp_path):
    with pytest.raises(SuiteError, match="unknown suite 'quik'; the suites are"):
        load_suite("quik")
    with pytest.raises(SuiteError, match="no suite file"):
        load_suite(tmp_path / "absent.yaml")


def test_yaml_numbers():
    assert load_yaml("[1e-10, 3E-4, -1e5, 1.5, 1, .5, 1.]") == [1e-10, 3e-4, -1e5, 1.5, 1, 0.5, 1.0]
    assert load_yaml("['1e-10', e5, 1e, 2020-01]") == ["1e-10", "e5", "1e", "2020-01"]
    assert [short_number(x) for x in (1e-10, 3e-4, 0.1, 1.0, 10.0, 5, "a", 0.25)] == [
        "1e-10",
        "3e-4",
        "1e-1",
        "1",
        "10",
        "5",
        "a",
        "2.5e-1",
    ]


def test_every_suite_of_the_package_loads():
    assert (experiments_dir() / "published.yaml").exists()
    for name in known_suites():
        assert load_suite(name).rows
    with pytest.raises(SuiteError, match="no run template 'nowhere'"):
        find_template("nowhere")


def test_no_suite_needs_torch():
    import subprocess
    import sys

    code = "import sys, bayesbinn_nb.repro.suites, bayesbinn_nb.repro.records; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
