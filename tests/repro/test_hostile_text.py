"""Records of unknown origin, shown on every results page: their words are shown, and nothing obeys them."""

import ast
import json
import random
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import nbformat
import pytest
from nbconvert.filters.markdown_mistune import markdown2html_mistune
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from bayesbinn_nb.repro.claims import WORDS, claims, paragraph
from bayesbinn_nb.repro.records import load_records, read_record, write_record
from bayesbinn_nb.site import build_site
from bayesbinn_nb.site.pages import SiteError

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "nbs" / "results"
PAGES = sorted(p for p in RESULTS.glob("*.ipynb") if p.name not in {"index.ipynb"})
HOSTILE = (
    "<script>alert(1)</script>",
    'x"><img src=x onerror=alert(1)>',
    "[here](javascript:alert(1))",
    "</td></table><svg onload=alert(1)>",
    "`code` | cell | $$\\href{javascript:alert(1)}{x}$$",
    "<a href='javascript:alert(1)'>x</a>\x1b[2J",
    "![x](data:text/html;base64,PHNjcmlwdD4=)",
    "first\n\n<iframe srcdoc='<script>alert(1)</script>'>",
)


def _of_texts(value, change):
    "The same structure, with `change` applied to every text in it, names in dicts too"
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_of_texts(v, change) for v in value]
    if isinstance(value, dict):
        return {k: _of_texts(v, change) for k, v in value.items()}
    return value


def poison(record, rng):
    "Hostile words in some of a record's texts; what pages select by stays, mostly, so that the record is shown at all"

    def hostile(text):
        return rng.choice(HOSTILE) if rng.random() < 0.7 else text

    record.deviations = [rng.choice(HOSTILE) for _ in range(2)]
    record.stand_in = rng.choice(HOSTILE) if record.stand_in else None
    for name in ("device", "dtype", "commit", "notebook", "hash", "row", "data_fingerprint"):
        setattr(record, name, hostile(getattr(record, name)))
    for name in ("versions", "machines", "extra", "baseline"):
        setattr(record, name, _of_texts(getattr(record, name), hostile))
    for name in ("settings", "parameters"):
        values = getattr(record, name)
        values[rng.choice(HOSTILE)] = rng.choice(HOSTILE)
        setattr(record, name, _of_texts(values, lambda text: rng.choice(HOSTILE) if rng.random() < 0.2 else text))
    if rng.random() < 0.3:
        record.arm = rng.choice(HOSTILE)
    if rng.random() < 0.1:
        record.method = rng.choice(HOSTILE)


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    "A copy of every committed record with hostile words in it, some in folders that are called so"
    rng, runs, count = random.Random(0), tmp_path_factory.mktemp("results") / "runs", 0
    for path in sorted((RESULTS / "runs").rglob("*.json")):
        place = runs / path.relative_to(RESULTS / "runs")
        if rng.random() < 0.3:
            place = place.parent.with_name(f"{place.parent.name} <img src=x onerror=alert(1)>") / place.name
        place.parent.mkdir(parents=True, exist_ok=True)
        if not path.name.startswith("seed"):
            shutil.copy(path, place)
            continue
        record = read_record(path)
        poison(record, rng)
        write_record(place.parent, record, name=place.name)
        count += 1
    assert len(load_records(runs)) == count > 100
    return runs


class Acting(HTMLParser):
    "Collects what a browser would execute or load"

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        if tag in {"script", "iframe", "svg", "object", "embed", "form", "meta", "style", "link", "base"}:
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            address = re.sub(r"\s", "", value or "").lower()
            if name.startswith("on") or (
                name in {"href", "src"} and re.match(r"(javascript|data:text|vbscript)", address)
            ):
                self.found.append(f"<{tag} {name}={value}>")
        if tag == "img":
            self.found.append(f"<img {attrs}>")

    handle_startendtag = handle_starttag


def acting(text: str) -> list[str]:
    "Everything in a piece of HTML that would act"
    parser = Acting()
    parser.feed(text)
    parser.close()
    return parser.found


def shown(page: Path, runs: Path):
    "What every code cell of a page shows, as HTML, when it reads these records"
    space = {}
    for cell in nbformat.read(page, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        source = "\n".join(line for line in cell.source.splitlines() if not line.startswith("#|"))
        body = ast.parse(source).body
        last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), str(page), "exec"), space)
        if "parameters" in cell.metadata.get("tags", ()):
            space["records_root"] = str(runs)
        if last is None:
            continue
        value = eval(compile(ast.Expression(last.value), str(page), "eval"), space)
        if hasattr(value, "_repr_html_") and (text := value._repr_html_()):
            yield cell.source, text
        elif hasattr(value, "_repr_markdown_"):
            yield cell.source, markdown2html_mistune(value._repr_markdown_())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_pages_show_hostile_words_and_obey_none(page, poisoned):
    matplotlib.use("agg")
    seen = 0
    for source, text in shown(page, poisoned):
        assert not acting(text), f"{source}: {acting(text)[:3]}"
        assert "\x1b" not in text, source
        seen += "alert(1)" in text
    matplotlib.pyplot.close("all")
    assert seen or page.stem not in {"benchmark_mnist", "scorecard"}  # the words do arrive


@pytest.mark.parametrize("seed", range(4))
def test_claims_are_judged_on_any_part_of_the_records(seed):
    "A folder with a few rows, a few seeds, arms without a common seed: a word and a sentence, never a traceback"
    rng, everything = random.Random(seed), load_records(RESULTS / "runs")
    for share in (0.03, 0.1, 0.3, 0.6, 0.9):
        records = [r for r in everything if rng.random() < share]
        for of in claims():
            finding = of.find(records)
            assert finding.word in WORDS
            assert paragraph(of, finding)


def hostile_run():
    "An executed notebook that somebody sent"
    data = [
        {"text/html": text} for text in HOSTILE
    ] + [{"text/markdown": text} for text in HOSTILE] + [
        {"text/plain": HOSTILE[0]},
        {"text/latex": HOSTILE[0]},
        {"application/javascript": "alert(1)"},
        {"image/svg+xml": "<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>alert(1)</script></svg>"},
        {"image/png": '"><script>alert(1)</script>'},
    ]  # fmt: skip
    outputs = [new_output("display_data", data=one) for one in data]
    outputs += [
        new_output("stream", text=HOSTILE[0]),
        new_output("error", ename="E", evalue="", traceback=[HOSTILE[3]]),
    ]
    directives = (
        f"#| fig-alt: {HOSTILE[1]}\n#| fig-cap: {HOSTILE[3]}\n#| code-fold: true\n#| code-summary: {HOSTILE[0]}"
    )
    cells = [new_markdown_cell(f"# {HOSTILE[1]}\n\n> {HOSTILE[0]}"), *map(new_markdown_cell, HOSTILE)]
    return new_notebook(cells=[*cells, new_code_cell(f"{directives}\nx = '{HOSTILE[0]}'", outputs=outputs)])


def test_the_page_of_a_run_from_elsewhere_does_nothing(tmp_path):
    shutil.copytree(ROOT / "nbs" / "theme", tmp_path / "nbs" / "theme")
    config = {"website": {"title": "tiny", "sidebar": {"contents": [{"text": "Home", "href": "index.ipynb"}]}}}
    (tmp_path / "_quarto.yml").write_text(json.dumps(config))
    home = new_notebook(cells=[new_markdown_cell("# Tiny\n\n> A promise."), new_code_cell("1")])
    home.cells[1].outputs = [new_output("display_data", data={"text/html": "<script>own()</script>"})]
    nbformat.write(home, tmp_path / "nbs" / "index.ipynb")
    row = tmp_path / "nbs" / "results" / "runs" / "short" / "row"
    row.mkdir(parents=True)
    nbformat.write(hostile_run(), row / "row.ipynb")
    with pytest.raises(SiteError, match="needs x, which is not there"):  # the picture of a hostile cell
        build_site(root=tmp_path, use="nbconvert", quiet=True)
    folder = tmp_path / "_docs"
    page = (folder / "results/runs/short/row/row.html").read_text()
    assert page.count("alert(1)") >= 10  # to be read
    ours = acting((folder / "index.html").read_text().replace("<script>own()</script>", ""))
    depth = re.compile(r"\.\./")
    pictures = r"<img \[\('(alt|src', '(data:image/svg\+xml;base64,|data:image/png;base64,|x'|theme/favicon))"
    found = [depth.sub("", one) for one in acting(page)]
    math = ["<script>"] * 2  # the page has a dollar: MathJax and its settings
    assert sorted(f for f in found if not re.match(pictures, f)) == sorted(
        [f for f in ours if not re.match(pictures, f)] + math
    )
    assert len(re.findall(r"<script\b[^>]*>", page)) == len(re.findall(r"<script\b", page)) == found.count("<script>")
    assert "own()" in (folder / "index.html").read_text()  # the project's own pages may act: they are reviewed as code


def test_what_acts_is_found():
    for text in HOSTILE:
        assert acting(markdown2html_mistune(text)) or "$$" in text, text
    assert acting("<p onclick='f()'>") and not acting("<p>text</p><a href='page.html'>x</a>")
