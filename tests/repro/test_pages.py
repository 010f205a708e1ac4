"""The results pages: short, nothing hidden, every figure described, and one finding said alike wherever it is shown."""

import ast
import json
import re
from pathlib import Path

import pytest

from bayesbinn_nb.repro.claims import WORDS, claims
from bayesbinn_nb.site.visible import split_directives

RESULTS = Path(__file__).resolve().parents[2] / "nbs" / "results"
PAGES = sorted(path.stem for path in RESULTS.glob("*.ipynb"))
LOADING = {"use_house_style", "page_records", "published_numbers", "scorecard", "front_table", "sum", "startswith"}
MOST_LINES, MOST_BYTES = 40, 600_000


def notebook(page):
    return json.loads((RESULTS / f"{page}.ipynb").read_text(encoding="utf-8"))


def code_cells(page):
    "(directives, source, cell) of every code cell"
    for cell in notebook(page)["cells"]:
        if cell["cell_type"] == "code":
            yield *split_directives("".join(cell["source"])), cell


def code_lines(source):
    return [line for line in source.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def output(cell):
    "All text that a reader of the cell's output sees"
    found = [o.get("data", {}) for o in cell["outputs"]]
    return "\n".join("".join(data.get(kind, "")) for data in found for kind in ("text/markdown", "text/html"))


def only_loads(source):
    "Imports, a style, and assignments that call nothing but loaders"
    for node in ast.parse(source).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        if not isinstance(node, (ast.Assign, ast.Expr)):
            return False
        for call in (n for n in ast.walk(node) if isinstance(n, ast.Call)):
            if (call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id) not in LOADING:
                return False
    return True


def test_loading_is_told_from_computing():
    assert only_loads("from a import b\nrecords = page_records('x')\nsome = [r for r in records if r.a != 'b']")
    assert not only_loads("def f():\n    pass") and not only_loads("table = compute(records)")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_short_and_hides_only_imports_and_loading(page):
    cells = list(code_cells(page))
    count = sum(len(code_lines(source)) for _, source, _ in cells)
    assert count <= MOST_LINES, f"{count} lines of code; move what they compute to repro"
    for directives, source, cell in cells:
        hidden = {"hide", "hide_input"} & set(directives) or "false" in (
            directives.get("echo"),
            directives.get("include"),
        )
        if hidden or set(cell["metadata"].get("tags", ())) & {"hide-input", "remove-input", "remove-cell"}:
            assert only_loads(source), f"hidden: {source}"
        elif "parameters" not in cell["metadata"].get("tags", ()):
            body = ast.parse(source).body
            assert len(body) == 1 and isinstance(body[0], ast.Expr), f"more than one call: {source}"


@pytest.mark.parametrize("page", PAGES)
def test_every_picture_is_described(page):
    for directives, source, cell in code_cells(page):
        pictures = [o for o in cell["outputs"] if {"image/png", "image/svg+xml"} & set(o.get("data", {}))]
        if pictures or "_figure(" in source:
            alt = directives.get("fig-alt", "")
            assert len(alt.split()) >= 15 and ": " not in alt, (
                f"{source}: the alternative text says too little: {alt!r}"
            )


@pytest.mark.parametrize("page", PAGES)
def test_outputs_are_committed_and_clean(page):
    path = RESULTS / f"{page}.ipynb"
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < MOST_BYTES
    assert not re.search(r"/(work|tmp|root|home|Users)/\w", text), "a path of one machine"
    assert "Figure size" not in text
    for directives, source, cell in code_cells(page):
        assert all(o["output_type"] in ("execute_result", "display_data") for o in cell["outputs"])
        if (
            not directives.get("hide")
            and "hide" not in directives
            and "parameters" not in cell["metadata"].get("tags", ())
        ):
            assert cell["outputs"], f"not executed: {source}"


def said(page):
    "{claim in lower case: word} of the findings in a page's committed output"
    text = "\n".join(output(cell) for _, source, cell in code_cells(page) if source.startswith("believe("))
    found = re.findall(r"^\*\*(.+): \*([a-z ]+)\*\.\*\*", text, flags=re.MULTILINE)
    return {claim.lower(): word for claim, word in found}


def front():
    "{(page, claim): word} of the front page's committed table"
    text = next(output(cell) for _, source, cell in code_cells("index") if source == "table")
    rows = [re.split(r"(?<!\\)\|", line) for line in text.splitlines()[2:]]
    return {(re.search(r"\((\w+)\.ipynb\)", row[1])[1], row[2].strip().lower()): row[3].strip() for row in rows}


def test_front_page_and_pages_say_the_same_word():
    shown = front()
    titled = [c for c in claims() if c.title]
    assert {(c.page, c.text.lower()) for c in titled} == set(shown)
    for c in titled:
        word = said(c.page)[c.text.lower()]
        assert word in WORDS and shown[c.page, c.text.lower()] == word, c.name


@pytest.mark.parametrize("page", sorted({c.page for c in claims()}))
def test_a_page_shows_all_its_claims(page):
    assert set(said(page)) == {c.text.lower() for c in claims(page)}


def test_a_long_directive_goes_on_in_the_next_line():
    found, source = split_directives("#| fig-alt: one line\n#|   and: another\n#| echo: false\nf()")
    assert found == {"fig-alt": "one line and: another", "echo": "false"} and source == "f()"
