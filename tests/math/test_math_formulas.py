"""The displayed formulas of nbs/math are what their cells check.

A cell that begins `# check (X)` reads equation (X) from its own page, `shown.check("X", …)`, and evaluates it. Here
every such equation is changed in its LaTeX (a sign, a factor, an exponent, an argument, a function, a condition), the
cell is run again, and it has to complain. nbs/math/equations.ipynb sees to it that no equation is left out.
"""

import contextlib
import io
import os
import re
import time
import warnings
from pathlib import Path

import pytest
import torch
from test_math_guards import PAGES

MATH = Path(__file__).parents[2] / "nbs" / "math"
GREEK = "alpha|beta|gamma|delta|varepsilon|epsilon|theta|kappa|lambda|mu|sigma|tau"
LETTER = re.compile(rf"\\(?:{GREEK})(?![A-Za-z])|(?<![\\A-Za-z{{])[A-Za-z](?![A-Za-z])")
FUNCTIONS = (
    (r"\tanh", r"\sinh"), (r"\cosh", r"\sinh"), (r"\sinh", r"\cosh"), (r"\log", r"\exp"), (r"\exp", r"\log"),
    (r"\sum", r"\prod"),
    (r"\operatorname{sech}", r"\cosh"), (r"\operatorname{artanh}", r"\tanh"), (r"\operatorname{sigmoid}", r"\tanh"),
    (r"\min", r"\max"), (r"\max", r"\min"),
)  # fmt: skip
CONDITIONS = (
    (r"\le ", r"\ge "),
    (r"\ge ", r"\le "),
    (r"\ne ", "="),
    (" < ", " > "),
    (" > ", " < "),
    ("<", ">"),
    (">", "<"),
)


# ---------------------------------------------------------------- changing a formula


def _protected(latex):
    "Character ranges that are names or layout: subscripts, texts, tags, environments"
    spans = [
        m.span()
        for m in re.finditer(
            r"\\(?:text|operatorname|tag|label|begin|end|phantom|mathrm|mathcal|mathbb|mathbf)\s*(?:\{[^{}]*\}|\s\w)",
            latex,
        )
    ]
    for m in re.finditer(r"_(\{)?", latex):
        if not m[1]:
            end = re.compile(r"_\s*(\\[A-Za-z]+|.)").match(latex, m.start()).end()
        else:
            end, depth = m.end(), 1
            while depth:
                depth += {"{": 1, "}": -1}.get(latex[end], 0)
                end += 1
        below_sum = re.search(r"(?:\\sum|\\prod|\\int|\\lim)\s*$", latex[: m.start()])
        if not (below_sum and "=" in latex[m.start() : end]):
            spans.append((m.start(), end))
    spans += [
        m.span()
        for m in re.finditer(r"\^\{\(\w\)\}|\^\{?\\top\}?|\^\{?\*\}?|\^\{?\\ast\}?|\\xrightarrow\{[^{}]*\}", latex)
    ]
    spans += [m.span() for m in re.finditer(r"\\[,;!:]|[+-]\s*O(?:\\big)?\(", latex)]  # ±O(h³) say the same
    return spans


def _free(latex, start, spans):
    return not any(a <= start < b for a, b in spans)


def _next(number):
    "The number with one more in its last place"
    digits = len(number.partition(".")[2])
    return f"{float(number) + 10.0**-digits:.{digits}f}"


def mutants(latex):
    "(what was changed, the changed LaTeX)"
    spans, found = _protected(latex), []

    def put(what, start, end, new):
        if _free(latex, start, spans):
            found.append((f"{what} at …{latex[max(0, start - 12) : end + 8]!r}", latex[:start] + new + latex[end:]))

    for m in re.finditer(r"[+-]", latex):
        put("sign", *m.span(), "-" if m[0] == "+" else "+")
    for m in re.finditer(r"(?<![\d.])\d+\.?\d*", latex):
        if not re.search(r"\\[td]?frac\d?$", latex[: m.start()]) or len(m[0]) == 1:
            put("factor", *m.span(), _next(m[0]))
        else:  # \tfrac12
            put("factor", m.start(), m.end(), m[0][0] + str(int(m[0][1:]) + 1))
    for m in re.finditer(r"(?<![:<>!])=|\\le(?![a-z])|\\ge(?![a-z])|\\approx|\\leftarrow|\\propto", latex):
        if not re.match(r"\s*0(?![.\d])", latex[m.end() :]):  # twice nothing is nothing
            put("factor 2", m.end(), m.end(), r" 2\,")
    for m in re.finditer(r"\^2(?!\d)|\^3", latex):
        put("exponent", *m.span(), "^3" if m[0] == "^2" else "^4")
    for m in re.finditer(r"\^\{([^{}]*)\}", latex):
        put("exponent", *m.span(), "^{2(" + m[1] + ")}")
    letters = list(
        dict.fromkeys(m[0] for m in LETTER.finditer(latex) if _free(latex, m.start(), spans) and m[0] != "d")
    )
    for m in LETTER.finditer(latex):
        if m[0] in letters and len(letters) > 1:
            other = letters[(letters.index(m[0]) + 1) % len(letters)]
            put(f"argument {m[0]} → {other}", *m.span(), other + " ")
    for old, new in FUNCTIONS:
        for m in re.finditer(re.escape(old) + r"(?![A-Za-z])", latex):
            found.append((f"function {old} → {new}", latex[: m.start()] + new + latex[m.end() :]))
    for old, new in CONDITIONS:
        for m in re.finditer(re.escape(old), latex):
            put("condition", *m.span(), new)
    unique = {new: what for what, new in found if new != latex}
    return [(what, new) for new, what in unique.items()]


# ---------------------------------------------------------------- running the checks of a page


def _run(cell, namespace):
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        exec(compile(cell.code, "<cell>", "exec"), namespace)


def _evaluated(cell):
    return re.findall(r"""shown\.check\(\s*["']([^"']+)["']""", cell.code)


def surviving(page, report=lambda *words: None):
    "Run a page from the top; at each check, change the formulas that it reads, and name the changes it does not see"
    alive, space = [], {"__name__": "page", "display": lambda *a, **k: None}
    random = torch.random.get_rng_state()
    for cell in page.cells:
        if cell.kind != "code" or cell.skipped:
            continue
        if "shown" in space and (tags := _evaluated(cell)):
            before = dict(space)
            for tag in dict.fromkeys(tags):
                start = time.process_time()
                alive += [f"({tag}) {what}" for what in _unseen(cell, tag, space, before)]
                report(tag, len(mutants(before["shown"].formulas[tag])), f"{time.process_time() - start:.1f} s")
            space.clear()
            space.update(before)
        _run(cell, space)
    torch.random.set_rng_state(random)
    return alive


def _unseen(cell, tag, space, before):
    formulas = before["shown"].formulas
    for what, changed in mutants(formulas[tag]):
        before["shown"].formulas = {**formulas, tag: changed}
        try:
            _run(cell, space)
            yield what
        except Exception:
            pass
        finally:
            before["shown"].formulas = formulas
            space.clear()
            space.update(before)


EVALUATED = [name for name, page in PAGES.items() if any(_evaluated(c) for c in page.cells)]


@pytest.mark.parametrize("name", EVALUATED)
def test_no_change_of_a_displayed_formula_survives(name, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(MATH)
    assert not (alive := surviving(PAGES[name])), f"{len(alive)} changes that no check sees:\n" + "\n".join(alive)


if __name__ == "__main__":
    import sys

    os.environ["MPLBACKEND"] = "Agg"
    os.chdir(MATH)
    for page_name in sys.argv[1:]:
        start = time.process_time()
        alive = surviving(PAGES[page_name], print)
        print(f"{page_name}: {len(alive)} survivors, {time.process_time() - start:.0f} s of processor time")
        print("\n".join(alive))
