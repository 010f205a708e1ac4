"""The displayed formulas of the pages of the methods, and the numbers of all displayed formulas.

nbs/methods/formulas.ipynb reads every display of those pages and evaluates it; here each is changed, as those of the
derivation are in test_math_formulas.py, and the check has to complain. The page itself sees to it that no display is
left out.
"""

import re
from pathlib import Path

from test_math_formulas import surviving
from test_math_guards import DISPLAY, TAG, read_page

NOTEBOOKS = Path(__file__).parents[2] / "nbs"


def displays(folder=NOTEBOOKS):
    "(page, tag or None, LaTeX) of every displayed formula; executed runs are copies of templates and stay out"
    for path in sorted(folder.rglob("*.ipynb")):
        page = path.relative_to(folder)
        if "runs" in page.parts or ".ipynb_checkpoints" in page.parts:
            continue
        text = "\n".join(re.sub(r"(?m)^> ?", "", c.source) for c in read_page(path).cells if c.kind == "markdown")
        for body in DISPLAY.findall(text):
            for tag in TAG.findall(body) or [None]:
                yield page.as_posix(), tag, body


def used_twice(found):
    "Tags that stand on more than one formula, with their pages"
    pages = {}
    for page, tag, _ in found:
        pages.setdefault(tag, []).append(page)
    return {tag: where for tag, where in pages.items() if tag is not None and len(where) > 1}


def test_no_change_of_a_formula_of_the_methods_survives(monkeypatch):
    monkeypatch.chdir(NOTEBOOKS / "methods")
    assert not (alive := surviving(read_page(NOTEBOOKS / "methods/formulas.ipynb"))), "\n".join(alive)


def test_no_number_of_a_formula_is_used_twice():
    found = list(displays())
    assert len(found) > 150 and not (twice := used_twice(found)), twice


def test_a_number_used_twice_is_noticed():
    assert used_twice([("a", "7", ""), ("b", "8", ""), ("c", "7", ""), ("c", None, ""), ("d", None, "")]) == {
        "7": ["a", "c"]
    }


if __name__ == "__main__":
    for page, tag, _ in displays():
        print(f"{page:40} {tag}")
