"""Notebooks executed and compared: what differs is named by page and cell, and writing changes outputs only."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bayesbinn_nb.repro import notebooks
from bayesbinn_nb.repro.executed import clean_notebook, notebook_text
from bayesbinn_nb.repro.notebooks import (
    Checked,
    NotebookError,
    check_all,
    check_page,
    compare_outputs,
    documentation_notebooks,
    execute_in_place,
    result_pages,
    run_notebook,
)

pytest.importorskip("nbclient")


def notebook(*sources, outputs=()):
    cells = [
        dict(cell_type="code", execution_count=None, id=f"cell-{i}", metadata={}, outputs=list(outputs), source=source)
        for i, source in enumerate(sources)
    ]
    kernel = dict(display_name="python3", language="python", name="python3")
    return dict(cells=cells, metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)


def written(path, *sources):
    path.write_text(json.dumps(notebook(*sources), indent=1) + "\n", encoding="utf-8")
    return path


def shown(**data):
    return dict(output_type="display_data", metadata={}, data={kind.replace("_", "/"): v for kind, v in data.items()})


def stream(text):
    return dict(output_type="stream", name="stdout", text=text)


# -- comparing


@pytest.mark.parametrize(
    "committed, now, fault",
    [
        ([stream("a\nb\n")], [stream(["a\n", "b\n"])], None),  # one text, two ways to write it
        ([stream("a\nb\n")], [stream("a\nc\n")], "output 0 (stdout), line 2: committed 'b', now 'c'"),
        ([stream("a\n")], [stream("a\nb\n")], "line 2: committed '', now 'b'"),
        ([shown(text_html="<b>1</b>")], [shown(text_html="<b>2</b>")], "(text/html)"),
        ([shown(text_plain="1")], [shown(text_plain="2")], "(text/plain)"),
        ([shown(text_markdown="1", text_plain="x")], [shown(text_markdown="1", text_plain="y")], None),
        ([shown(image_png="1", text_plain="x")], [shown(image_png="2", text_plain="y")], None),
        ([shown(image_png="1")], [], "committed outputs are picture; now nothing"),
        ([], [stream("a")], "committed outputs are nothing; now stdout"),
        ([stream("a")], [dict(output_type="error", ename="E", evalue="v", traceback=[])], "now error"),
    ],
)
def test_what_counts_as_a_difference(committed, now, fault):
    found = compare_outputs(notebook("x", outputs=committed), notebook("x", outputs=now))
    if fault is None:
        assert found == []
    else:
        assert len(found) == 1 and found[0].startswith("cell 0 (id cell-0)") and fault in found[0]


def test_every_output_that_differs_is_named():
    before = notebook("x", "y", outputs=[stream("1"), shown(text_html="2")])
    after = notebook("x", "y", outputs=[stream("3"), shown(text_html="4")])
    assert [fault.partition(",")[0] for fault in compare_outputs(before, after)] == [
        "cell 0 (id cell-0)",
        "cell 0 (id cell-0)",
        "cell 1 (id cell-1)",
        "cell 1 (id cell-1)",
    ]
    assert compare_outputs(before, notebook("x")) == ["committed are 2 cells, now there are 1"]


def test_a_long_line_is_shown_where_it_differs():
    long = "x" * 1000
    (fault,) = compare_outputs(notebook("x", outputs=[stream(long + "1")]), notebook("x", outputs=[stream(long + "2")]))
    assert "x1'" in fault and "x2'" in fault and len(fault) < 300


# -- in git

ROOT = Path(__file__).parent.parent.parent
RUNS = "nbs/results/runs/"  # written by the runner; a row keeps its notebook until it is run again


def committed_notebooks():
    listed = subprocess.run(["git", "ls-files", "*.ipynb"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not in a git checkout")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


def cleaned_by_nbdev(folder, texts):
    "What `nbdev_clean` makes of notebooks, with the settings of the checkout; texts by name"
    pytest.importorskip("nbdev")
    folder.mkdir(exist_ok=True)
    (folder / "settings.ini").write_bytes((ROOT / "settings.ini").read_bytes())
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    command = [sys.executable, "-c", "from nbdev.clean import nbdev_clean; nbdev_clean()"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name: (folder / name).read_text(encoding="utf-8") for name in texts}


def without_counts(text):
    return [line for line in text.splitlines() if '"execution_count":' not in line]


def test_nbdev_clean_leaves_every_committed_notebook_as_it_is(tmp_path):
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in committed_notebooks()}
    assert len(texts) > 100
    cleaned = cleaned_by_nbdev(tmp_path, texts)
    changed = [name for name in texts if cleaned[name] != texts[name]]
    # a run from before the runner left out the counts may still have them, and nothing else that is volatile
    changed = [n for n in changed if not n.startswith(RUNS) or without_counts(cleaned[n]) != without_counts(texts[n])]
    assert not changed, f"clean with nbdev_clean: {changed}"


def test_what_is_written_here_is_clean(tmp_path):
    "Both ways to write an executed notebook: in place, as pages are, and whole, as a run's is"
    page = written(tmp_path / "page.ipynb", "print(print)", "class A: pass\nA()", "6 * 7")
    execute_in_place(page)
    volatile = notebook("x", outputs=[shown(text_plain="<A at 0x7f12345678ab>"), stream("a\n")])
    volatile["cells"][0].update(execution_count=7, metadata={"tags": ["parameters"], "papermill": {"duration": 1}})
    volatile["cells"][0]["outputs"].append(
        dict(output_type="execute_result", execution_count=7, metadata={}, data={"text/plain": "42"})
    )
    volatile["metadata"]["language_info"] = {"name": "python", "version": "3.11.0"}
    texts = {"nbs/page.ipynb": page.read_text(), "nbs/run.ipynb": notebook_text(clean_notebook(volatile))}
    assert cleaned_by_nbdev(tmp_path / "checkout", texts) == texts


# -- executing


def test_writing_changes_outputs_only_and_settles(tmp_path):
    page = written(tmp_path / "page.ipynb", "import os\nprint(sorted(os.listdir('.')))", "6 * 7")
    before = json.loads(page.read_text(encoding="utf-8"))
    assert len(check_page(page).faults) == 2
    assert json.loads(page.read_text(encoding="utf-8")) == before  # comparing writes nothing
    execute_in_place(page)
    text = page.read_text(encoding="utf-8")
    after = json.loads(text)
    assert after["cells"][0]["outputs"][0]["text"] == "['page.ipynb']\n"  # it runs where it lies
    assert after["cells"][1]["outputs"][0]["data"]["text/plain"] == "42"
    for cell in after["cells"]:
        cell["outputs"] = []
    assert after == before
    execute_in_place(page)
    assert page.read_text(encoding="utf-8") == text
    assert check_page(page).ok


def test_a_page_that_fails_is_named_by_its_cell_and_left_alone(tmp_path):
    page = written(tmp_path / "page.ipynb", "1", "raise KeyError('no such record')")
    before = page.read_bytes()
    with pytest.raises(NotebookError, match=r"page\.ipynb, cell 1 does not run:(.|\n)*no such record"):
        execute_in_place(page)
    assert page.read_bytes() == before


def test_notebooks_do_not_share_a_process(tmp_path):
    first = written(tmp_path / "first.ipynb", "import json\njson.mark = 1")
    second = written(tmp_path / "second.ipynb", "import json\nassert not hasattr(json, 'mark')")
    wrong = written(tmp_path / "wrong.ipynb", "#| eval: false\nraise SystemError", "assert 1 == 2, 'arithmetic'")
    lines = []
    results = check_all([first, second, wrong], run_notebook, jobs=1, say=lines.append)
    assert [checked.ok for checked in results] == [True, True, False]
    assert "arithmetic" in results[2].faults[0] and "SystemError" not in results[2].faults[0]
    assert lines[-1] == "2 notebooks passed, 1 failed"


def test_the_command_fails_when_a_notebook_does(tmp_path, monkeypatch, capsys):
    (tmp_path / "nbs" / "math").mkdir(parents=True)
    (tmp_path / "nbs" / "results").mkdir()
    written(tmp_path / "nbs" / "math" / "coin.ipynb")
    written(tmp_path / "nbs" / "results" / "table.ipynb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(notebooks, "run_notebook", lambda path: Checked(path, 0.0, ("broken",)))
    monkeypatch.setattr(notebooks, "check_page", lambda path, write: Checked(path, 0.0, () if write else ("differs",)))
    assert notebooks.main(["documentation"]) == 1 and "coin.ipynb: broken" in capsys.readouterr().out
    assert notebooks.main(["pages"]) == 1 and "--write" in capsys.readouterr().out
    assert notebooks.main(["pages", "--write"]) == 0
    assert notebooks.main(["documentation", "--rooms", "attic"]) == 2 and "attic" in capsys.readouterr().err


def test_every_room_and_every_page_is_found():
    root = notebooks.Path(__file__).parents[2]
    places = [path.relative_to(root / "nbs") for path in documentation_notebooks(root)]
    assert {place.parts[0] for place in places if len(place.parts) > 1} == {
        "math",
        "methods",
        "library",
        "howto",
        "repro",
        "site",
    }
    assert {place.stem for place in places if len(place.parts) == 1} >= {"index"}
    assert {"index", "scorecard", "speed"} <= {path.stem for path in result_pages(root)}
    with pytest.raises(NotebookError, match="no notebook below"):
        documentation_notebooks(root / "tests")
