"""Suites: what is wrong is said before anything runs; 1e-10 is a number."""

import json
import random
import re
import time
from pathlib import Path

import nbformat
import pytest
import yaml
from mutations import COUNT, mutated_bytes, mutated_structure
from nbformat.v4 import new_code_cell, new_notebook

from bayesbinn_nb.repro.suites import (
    SuiteError,
    YamlError,
    check_parameters,
    check_seeds,
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


def refused(tmp_path, text):
    "The sentence with which a suite is refused"
    path = suite(tmp_path, text) if isinstance(text, str) else tmp_path / "mine.yaml"
    if isinstance(text, bytes):
        path.write_bytes(text)
    with pytest.raises(SuiteError) as e:
        load_suite(path)
    said = str(e.value)
    assert "mine.yaml" in said and said.isprintable() and len(said) < 1000
    return said


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
    refused(tmp_path, text)


def test_unknown_suite_lists_the_known_ones(tmp_path):
    with pytest.raises(SuiteError, match="unknown suite 'quik'; the suites are"):
        load_suite("quik")
    with pytest.raises(SuiteError, match="no suite file"):
        load_suite(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    "text, message",
    [
        ("rows: [{row: a, template: demo, params: {epochs: !!int zz}}]", "in line 1: 'zz' is no int"),
        ("rows: [{row: a, template: demo, params: {epochs: !!int ''}}]", "is no int"),
        ("rows: [{row: a, template: demo, params: {epochs: !!bool zz}}]", "is no bool"),
        ("rows: [{row: a, template: demo, params: {epochs: !!timestamp zz}}]", "is no timestamp"),
        ("rows: [{row: a, template: demo, params: {epochs: !!float zz}}]", "is no float"),
        ("rows: [{row: a, template: demo, params: {epochs: " + "9" * 5000 + "}}]", "is no int"),
        ("rows: [{row: a, template: demo, params: {epochs: " + "9" * 4000 + "}}]", "whole number beyond"),
        ("rows: [{row: a, template: demo, params: {epochs: 0x" + "f" * 5000 + "}}]", "must be int, not '0xf"),
        ("rows: !!map [1]", "is no mapping"),
        ("rows: !!python/object:os.system x", "not valid YAML"),
        ("? [a]\n: 1", "cannot be a key"),
        ("<<: 1", "mappings only"),
        ("a: &a [*a]\nrows: []", "recursive"),
        ("rows: &a [*a]", "recursive|nested"),
        ("rows: " + "[" * 35 + "]" * 35, "nested more than 30 deep"),
        ("rows: " + "[" * 3000, "nest"),
        ("[" * 500_000, "nest"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"rows: \x00", "not valid YAML"),
        (b"x" * 1_000_001, "1000001 bytes, more than 1000000"),
        ("rows: [{row: " + "a" * 101 + ", template: demo}]", "at most 100"),
        ("rows: [{row: " + "a" * 5000 + ", template: demo}]", "needs a 'row'"),
        ("rows: [{row: a, template: " + "a" * 900 + "}]", "row a: there is no run template 'aaa"),
        ('rows: [{row: "x\\n", template: demo}]', "lower-case"),
        ('rows: [{row: "\\e[2J", template: demo}]', "lower-case"),
        ("rows: [{row: .., template: demo}]", "lower-case"),
        ("rows: [{row: a., template: demo}]", "lower-case"),
        ("rows: [{row: a/b, template: demo}]", "lower-case"),
        ("rows: [{row: a, template: demo, params: [1]}]", "row a: 'params' wants name: value"),
        ("rows: [{row: a, template: demo, params: {1: 2}}]", "has no parameter 1"),
        ("rows: [{row: a, template: demo, params: {anything: .inf}}]", "finite numbers only"),
        ("rows: [{row: a, template: demo, params: {anything: [.nan]}}]", "finite numbers only"),
        ("rows: [{row: a, template: demo, params: {temperature: 1e999}}]", "finite numbers only"),
        ("rows: [{row: a, template: demo, params: {dataset: /data}}]", "relative paths only"),
        ("rows: [{row: a, template: demo, params: {anything: 2020-01-01}}]", "holds a date"),
        ("rows: [{row: a, template: demo, params: {anything: {1: 2}}}]", "keys are texts"),
        ("rows: [{row: a, template: demo, each: {1: [2]}}]", "'each' has the key 1"),
        ("rows: [{row: a, template: demo, each: [1]}]", "'each' wants"),
        ("rows: [{row: a, template: demo, each: {epochs: []}}]", "'each' wants"),
        ("rows: [{row: 'a{epochs}', template: demo, each: {epochs: [.inf]}}]", "finite numbers only"),
        (
            "rows: [{row: a, template: demo, each: {" + ", ".join(f"p{i}: [1, 2]" for i in range(40)) + "}}]",
            "10000 rows",
        ),
        ("rows: [{row: a, template: demo, trace: 1}]", "'trace' is true or false"),
        ("rows: [{row: a, template: demo, baseline: [1]}]", "'baseline' is the name"),
        ("rows: [{row: a, template: demo, needs: {a: 1}}]", "'needs' must be a string"),
        ("rows: [{row: a, template: demo, deviations: " + "a" * 1001 + "}]", "more than 1000 characters"),
        ("rows: [{row: a, template: demo, seeds: [-1]}]", "seeds must be"),
        ("rows: [{row: a, template: demo, seeds: [[1]]}]", "seeds must be"),
        ("rows: [{row: a, template: demo, seeds: [4294967296]}]", "seeds must be"),
        ("rows: [{row: a, template: demo, pages: ../../index}]", "cannot be the name of a page"),
        ("rows: [{row: a, template: demo, pages: [/etc/index]}]", "cannot be the name of a page"),
        ("rows: [{row: a, template: demo, pages: 'a\\b'}]", "cannot be the name of a page"),
        (
            "rows: [{row: a, template: demo, pages: '{dataset}', each: {dataset: [../x]}}]",
            "cannot be the name of a page",
        ),
        ("rows: [{row: a, template: demo, pages: .hidden}]", "cannot be the name of a page"),
        ("rows: []\npages: ../x", "cannot be the name of a page"),
        ("rows: []\npages: {a: 1}", "'pages' must be"),
        ("rows: []\nabout: [1]", "'about' is a text"),
        ("rows: []\ndefaults: [1]", "defaults: expected keys and values"),
        ("rows: []\ndefaults: 0", "defaults: expected keys and values"),
        ("rows: [{row: a}]\ndefaults: {template: demo, params: [1]}", "'params' wants"),
    ],
)
def test_bad_input_is_one_sentence_with_file_and_row(template, tmp_path, text, message):
    assert re.search(message, refused(tmp_path, text))


def test_what_prints_as_millions_of_characters_is_refused_at_once(template, tmp_path):
    lines = ["anchors:", "  a0: &a0 [x]"]
    lines += [f"  a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]" for i in range(9)]
    start = time.process_time()
    said = refused(tmp_path, "\n".join([*lines, "rows:", "  - {row: x, template: demo, params: {anything: *a9}}"]))
    assert "more than 100000 values" in said
    lines = ["anchors:", "  a0: &a0 {k: x}"]
    lines += [f"  a{i + 1}: &a{i + 1} {{<<: [{', '.join([f'*a{i}'] * 9)}]}}" for i in range(20)]
    s = load_suite(
        suite(tmp_path, "\n".join([*lines, "rows:", "  - {row: x, template: demo, params: {anything: *a20}}"]))
    )
    assert s.rows[0].params == {"anything": {"k": "x"}}  # merged as dicts, not as nine to the twentieth texts
    assert time.process_time() - start < 2, "of the processor's time"


def test_merged_mappings_and_byte_order_mark(tmp_path):
    text = "{a: &a {x: 1, y: 1}, b: &b {y: 2, z: 2}, c: {<<: [*a, *b], z: 3}, d: {z: 3, <<: *b}}"
    assert load_yaml(text)["c"] == yaml.safe_load(text)["c"] == {"x": 1, "y": 1, "z": 3}
    assert load_yaml(text)["d"] == {"y": 2, "z": 3}
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert load_yaml(path) == {"a": 1}
    path.write_bytes(b"a: \xff")
    with pytest.raises(yaml.YAMLError, match="bom.yaml is not UTF-8 text"):
        load_yaml(path)
    with pytest.raises(YamlError) as e:
        load_yaml("a: !!int x")
    assert e.value.problem == "'x' is no int" and e.value.problem_mark.line == 0
    with pytest.raises(FileNotFoundError):
        load_yaml(tmp_path / "absent.yaml")


def test_values_that_look_like_names_of_values_stay(template, tmp_path):
    each = "each: {dataset: ['{how}'], how: [mean]}"
    text = f"rows: [{{row: a, template: demo, {each}, deviations: 'of {{dataset}}, {{other}}'}}]"
    assert load_suite(suite(tmp_path, text)).rows[0].deviations == ["of {how}, {other}"]


def test_trace_is_a_rows_own_or_the_suites(template, tmp_path):
    text = "defaults: {template: demo, trace: true}\nrows: [{row: a}, {row: b, trace: false}]"
    assert [r.trace for r in load_suite(suite(tmp_path, text)).rows] == [True, False]
    assert not load_suite(suite(tmp_path, "rows: [{row: a, template: demo}]")).rows[0].trace
    assert all(r.trace for name in ("short", "paper") for r in load_suite(name).rows)


def test_names_of_suites_and_files(template, tmp_path, monkeypatch):
    for name in ("...yaml", ".yaml", "a" * 101 + ".yaml", "a\x1b[2J.yaml"):
        (tmp_path / name).write_text("rows: []")
        with pytest.raises(SuiteError, match="cannot be the name of a suite|no suite file"):
            load_suite(tmp_path / name)
    for name in ("a" * 5000, "zero\0byte", "../suites/absent"):
        with pytest.raises(SuiteError, match="unknown suite"):
            load_suite(name)
        with pytest.raises(SuiteError, match="no run template"):
            find_template(name)
        with pytest.raises(SuiteError, match="no notebook"):
            find_template(name + ".ipynb")
    (tmp_path / "folder.ipynb").mkdir()
    with pytest.raises(SuiteError, match="no notebook"):
        find_template("folder.ipynb", tmp_path)
    assert find_template("demo.ipynb", tmp_path) == template  # a path in a suite may start at the suite


def test_a_row_of_published_numbers_without_an_id_stops_no_suite(template, tmp_path):
    (tmp_path / "published.yaml").write_text("[{id: mine.1}, {value: 3}, 7, {id: [1]}, {id: mine.2}]")
    text = "rows: [{row: a, template: demo, published: [mine.*, mine.2]}]"
    assert load_suite(suite(tmp_path, text)).rows[0].published == ["mine.1", "mine.2"]
    (tmp_path / "published.yaml").write_text("[")
    with pytest.raises(SuiteError, match="published.yaml is not valid YAML"):
        load_suite(suite(tmp_path, text))


def test_ten_thousand_rows_and_no_more(template, tmp_path):
    numbers = ", ".join(map(str, range(5001)))
    rows = [f"{{row: '{name}{{epochs}}', template: demo, each: {{epochs: [{numbers}]}}}}" for name in ("a", "b")]
    assert len(load_suite(suite(tmp_path, f"rows: [{rows[0]}]")).rows) == 5001
    assert "at most 10000 rows" in refused(tmp_path, f"rows: [{', '.join(rows)}]")


def test_seeds():
    assert check_seeds([3, 0, 2**32 - 1], "here") == [3, 0, 2**32 - 1]
    for wrong in (None, "0", [], [0, 0], [True], [0.0], [-1], [2**32], {0: 0}, [1 << 100_000]):
        with pytest.raises(SuiteError, match="here: seeds must be a list of different numbers"):
            check_seeds(wrong, "here")


def test_changed_suites_load_or_are_refused(template, tmp_path):
    rng = random.Random(1)
    small = """
about: mine
anchors: {fast: &fast {epochs: 1}}
defaults: {template: demo, seeds: [0, 1], pages: p, trace: true}
pages: [index]
rows:
  - {row: plain, params: {<<: *fast, rate: 1e-3}, baseline: majority class}
  - {row: "t{temperature}", each: {temperature: [10.0, 1e-3]}, published: paper.t7.*, deviations: "{rate}"}
"""
    originals = [(experiments_dir() / "suites" / f"{name}.yaml").read_text() for name in known_suites()]
    loaded = 0
    for number in range(COUNT):
        original = small if number % 4 < 2 else rng.choice(originals)
        path = tmp_path / f"changed{number}.yaml"
        if number % 2:
            path.write_bytes(mutated_bytes(original.encode(), rng))
        else:
            content = mutated_structure(yaml.safe_load(original), rng)
            path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8", errors="surrogatepass")
        start = time.process_time()
        try:
            rows = load_suite(path).rows
        except SuiteError as e:
            said = str(e)
            assert path.name in said and said.isprintable() and len(said) < 1500
        else:
            loaded += 1
            for row in rows:
                assert Path(tmp_path / row.name).resolve().parent == tmp_path
                assert all((tmp_path / f"{page}.ipynb").resolve().parent == tmp_path for page in row.pages)
                json.dumps(row.params, allow_nan=False).encode()
        assert time.process_time() - start < 2, "of the processor's time"
        path.unlink()
    assert COUNT / 20 < loaded < COUNT


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
