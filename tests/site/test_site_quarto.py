"""Quarto gets the same pages: every visible paragraph, formula, figure and table of the real notebooks is
prepared for it."""

import re

import nbformat
import pytest
import yaml
from test_site import ROOT, build, checkout, quarto, write  # noqa: F401  (fixtures)

from bayesbinn_nb.site.links import Site
from bayesbinn_nb.site.pages import SiteError, collect_pages, load_pages, site_config
from bayesbinn_nb.site.quarto import write_for_quarto

PAGES = collect_pages(ROOT, site_config(ROOT))[0]
FORMS = ("text/html", "text/markdown", "image/svg+xml", "text/latex", "image/png", "image/jpeg", "text/plain")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    "The folder that Quarto would read, made from the real notebooks"
    pages, missing, _ = collect_pages(ROOT, site_config(ROOT))
    load_pages(pages)
    folder = tmp_path_factory.mktemp("quarto") / "_proc"
    before = set((ROOT / "nbs").iterdir())
    write_for_quarto(Site(ROOT, site_config(ROOT), pages, set(missing)), folder)
    assert set((ROOT / "nbs").iterdir()) == before, "something is left behind in nbs/"
    return folder


def visible_cells(page, nb):
    "What a reader sees, by rules of the test's own"
    hiding = {"hide", "remove-cell"}
    if page.source.startswith("results/") and page.origin != "experiments":
        hiding |= {"parameters", "injected-parameters"}
    for cell in nb.cells:
        head = re.search(r"^#\s*\|\s*(hide\s*$|default_exp|include:\s*false)", cell.source, re.M)
        if not (hiding & set(cell.metadata.get("tags", ())) or (cell.cell_type == "code" and head)):
            yield cell


def words(text):
    "Text without addresses, anchors and layout"
    text = re.sub(r'\]\([^)\s]+(\s+"[^"]*")?\)|\]\{\.missing[^}]*\}', "]", text)
    text = re.sub(r'((?:href|src)=)"[^"]*"', r"\1", text)
    text = re.sub(r"(?m)^(#+\s.*?)\s*\{#[^}]*\}\s*$", r"\1", text)
    return " ".join(text.replace("\u00a0", " ").split())


def shown_form(output):
    "(kind, content) of an output, as the embedded rendering shows it"
    if "data" not in output:
        return output.output_type, output.get("text", "")
    kind = next(kind for kind in FORMS if kind in output.data)
    return kind, output.data[kind]


def outputs(cells):
    return [shown_form(output) for cell in cells if cell.cell_type == "code" for output in cell.outputs]


def words_of_html(text):
    return " ".join(re.sub(r"<[^>]+>", " ", text.replace("\u00a0", " ")).split())


@pytest.mark.parametrize("page", PAGES, ids=[page.source for page in PAGES])
def test_every_visible_paragraph_formula_figure_and_table_reaches_quarto(prepared, page):
    original = list(visible_cells(page, nbformat.read(page.file, as_version=4)))
    made = nbformat.read(prepared / page.source, as_version=4)
    head = yaml.safe_load(made.cells[0].source.strip().strip("-"))
    text = "\n\n".join(cell.source for cell in made.cells if cell.cell_type == "markdown")
    found, promise = words(text), words(head.get("description", ""))
    for cell in original:
        if cell.cell_type != "markdown":
            continue
        for paragraph in re.split(r"\n\s*\n", cell.source):
            wanted = words(paragraph)
            title = re.match(r"# (.*)", wanted)
            quoted = re.sub(r"(^|\s)> ?", r"\1", wanted).strip()
            assert wanted in found or (title and title[1] in head["title"]) or quoted == promise, wanted
        for formula in re.findall(r"(?s)\$\$.*?\$\$", re.sub(r"(?s)```.*?```|`[^`\n]*`", "", cell.source)):
            assert formula in text, formula
    figures = [(kind, data) for kind, data in outputs(original) if kind.startswith("image/")]
    assert [(kind, data) for kind, data in outputs(made.cells) if kind.startswith("image/")] == figures
    others = [(kind, words_of_html(words(data))) for kind, data in outputs(original) if not kind.startswith("image/")]
    mine = [(kind, words_of_html(words(data))) for kind, data in outputs(made.cells) if not kind.startswith("image/")]
    hidden = [cell for cell in original if re.search(r"^#\s*\|\s*(output:\s*false|hide_output)", cell.source, re.M)]
    if not hidden:
        assert mine == others


def test_quarto_has_the_page_of_all_names(quarto):  # noqa: F811
    out = build(quarto, use="quarto")
    names = (out / "names.html").read_text()
    assert "# All names" not in names and 'href="math/coin.html#api-toss_coin"' in names
    assert 'id="api-toss_coin"' in (out / "math" / "coin.html").read_text()


def test_directives_arguments_and_records_reach_quarto(prepared):
    every = "\n".join(path.read_text(encoding="utf-8") for path in (prepared / "results").glob("*.ipynb"))
    assert "records_root = " not in every and "#| fig-alt: " in every
    home = (prepared / "index.ipynb").read_text(encoding="utf-8")
    assert "#| echo: false" in home and "#| fig-alt: " in home
    trainer = nbformat.read(prepared / "library" / "trainer.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in trainer.cells)
    assert '<table class="arguments">' in text and "#| code-fold: true" in text
    assert not re.search(r"(?m)^#\| (export|default_exp|hide)", text)
    names = re.findall(r'<div class="api-entry" id="api-(\w+)"', text)
    source = [name for name in re.findall(r'<span id="(\w+)"></span>', text) if name in names]
    assert len(names) > 2 and len(set(names)) == len(names), "each name once"
    assert [name for name in names if name in source] == source, "in the order of definition"
    runs = sorted((prepared / "results" / "runs").rglob("*.ipynb"))
    titles = [yaml.safe_load(nbformat.read(run, as_version=4).cells[0].source.strip("-"))["title"] for run in runs]
    assert len(set(titles)) == len(runs)
    for run in runs:
        original = ROOT / "nbs" / run.relative_to(prepared)
        records = sorted(path.name for path in original.parent.glob("seed*.json"))
        assert sorted(path.name for path in run.parent.glob("seed*.json")) == records


def test_a_link_to_the_licence_works(quarto):  # noqa: F811
    (quarto / "LICENSE").write_text("Do as you like.")
    write(
        quarto, "nbs/index.ipynb", nbformat.v4.new_markdown_cell("# Tiny\n\n> See [it](../LICENSE).\n\n[x](../LICENSE)")
    )
    write(quarto, "nbs/math/coin.ipynb", nbformat.v4.new_markdown_cell("# Coin"))
    out = build(quarto, use="quarto")
    assert (out / "LICENSE").read_text() == "Do as you like." and "[x](LICENSE)" in (out / "index.html").read_text()
    assert "See [it](LICENSE)." in (out / "index.html").read_text()


def test_auto_says_why_quarto_failed_and_renders_without_it(quarto, capsys):  # noqa: F811
    (quarto / "break-quarto").touch()
    out = build(quarto, use="auto", quiet=False)
    said = capsys.readouterr().out
    assert "rendered with nbconvert instead of Quarto" in said and "no such thing" in said
    assert 'class="lead"' in (out / "index.html").read_text() and (out / ".bayesbinn-site").read_text() == "nbconvert\n"
    with pytest.raises(SiteError, match="no such thing"):
        build(quarto, use="quarto")


def _luminance(colour):
    parts = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
    linear = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize(
    "sheet, ink, ground",
    [
        ("dark", "pre-color", "body-bg"),  # what a cell prints
        ("dark", "pre-color", "code-block-bg"),
        ("dark", "link-color", "code-bg"),
        ("dark", "link-color", "body-bg"),  # the contents of the page
        ("dark", "text-muted", "body-bg"),
        ("light", "link-color", "#f8f9fa"),  # a name in code on Bootstrap's grey
        ("light", "link-color", "#ffffff"),
    ],
)
def test_letters_can_be_told_from_their_ground_in_quarto(sheet, ink, ground):
    "A ratio of 4.5 at least, as for all text; the browser sees the rest where Quarto is there"
    text = (ROOT / "nbs" / "theme" / f"{sheet}.scss").read_text()
    colours = {f"${name}": value for name, value in re.findall(r"(?m)^\$([\w-]+): ([^;]+);", text)}

    def colour(name):
        return colour(colours[name]) if name.startswith("$") else name

    light, dark = sorted((_luminance(colour("$" * (name[0] != "#") + name)) for name in (ink, ground)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5
    (themes,) = [form["theme"] for form in site_config(ROOT)["format"].values()]
    assert f"theme/{sheet}.scss" in themes[sheet]
