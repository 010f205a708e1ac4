"""A handful of pages in a real browser, where Chromium is there; `browser.py` looks at all of them."""

import shutil

import nbformat
import pytest

pytest.importorskip("websocket", reason="websocket-client is not installed")
import browser

from bayesbinn_nb.site.build import mathjax_file
from bayesbinn_nb.site.links import Site
from bayesbinn_nb.site.pages import Page, collect_pages, find_root, load_pages, site_config
from bayesbinn_nb.site.render import render_site

pytestmark = pytest.mark.skipif(browser.find_chromium() is None, reason="Chromium is not installed")

# of every kind one: home, formulas, a long reference, wide tables, a run notebook
PAGES = ["index", "math/floating_point", "methods/bayesbinn", "library/loop", "results/scorecard", "repro/tables"]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    "Those pages, rendered; links to others lead nowhere, which is not what is looked for here"
    out, root = tmp_path_factory.mktemp("site"), find_root()
    config = site_config(root)
    pages, missing, _ = collect_pages(root, config, [])
    pages = [page for page in pages if page.source.removesuffix(".ipynb") in PAGES]
    load_pages(pages)
    (out / "mathjax").mkdir()
    shutil.copy(mathjax_file(), out / "mathjax")
    render_site(Site(root, config, pages, set(missing)), out)
    return out


@pytest.mark.parametrize("way", ["http", "file"])
def test_no_fault_at_any_width_light_and_dark(rendered, way):
    assert browser.look_at_site(rendered, [f"{page}.html" for page in [*PAGES, "names"]], (way,)) == []


def test_faults_are_seen(tmp_path):
    "Each fault of a bad page is named; a good page has none"
    good = '<!DOCTYPE html><html><head><link rel="icon" href="data:,">'
    good += (
        '<meta name="viewport" content="width=device-width, initial-scale=1"></head><body><h1 '
        'id="a">Good</h1></body></html>'
    )
    bad = (
        '<h1 id="a">A</h1><h1 id="a">A</h1><a href="#gone">x</a><img '
        'src="gone.png"><script>console.error("oh")</script>'
        '<script src="http://127.0.0.1:9/x.js"></script><script>undefined_name()</script><p '
        'style="width:500px">wide</p>'
    )
    (tmp_path / "good.html").write_text(good)
    (tmp_path / "bad.html").write_text(good.replace('<h1 id="a">Good</h1>', bad))
    faults = "\n".join(browser.look_at_site(tmp_path, ["good.html", "bad.html"], ("http",)))
    assert "good.html" not in faults
    for words in (
        "given 2 times", "#gone leads "
            "nowhere", "no alt text", "answers 404", "oh", "outside the site", "a script fails",
        "at 390 px it scrolls sideways", "no width and height", "2 headings of the first level",
    ):  # fmt: skip
        assert words in faults, words


@pytest.fixture
def phone(rendered):
    with browser.Browser() as window, browser.Server(rendered) as address:
        window.resize(390)
        window.open(address + "library/loop.html")
        yield window


def test_the_menu_of_a_phone(phone):
    "It covers the page, says that it is open, keeps the focus, closes with Escape and gives the focus back"
    assert phone.run("getComputedStyle(document.querySelector('nav.side')).display") == "none"
    opened = "document.querySelector('button.menu').getAttribute('aria-expanded')"
    assert phone.run(opened) == "false"
    phone.run("document.querySelector('button.menu').click()")
    assert phone.run(opened) == "true"
    box = phone.run("JSON.stringify(document.querySelector('nav.side').getBoundingClientRect())")
    assert phone.run(f"(r => r.left === 0 && r.right === innerWidth && r.bottom >= innerHeight - 1)({box})")
    assert phone.run("document.querySelector('nav.side').contains(document.activeElement)")
    assert phone.run("document.querySelector('main').inert")
    phone.key("Escape", 27)
    assert phone.run(opened) == "false"
    assert phone.run("document.activeElement === document.querySelector('button.menu')")
    assert not phone.run("document.querySelector('main').inert")


def test_rows_are_cards_and_the_page_has_contents_on_a_phone(phone):
    table = "document.querySelector('table.cards')"
    assert phone.run(f"getComputedStyle({table}.querySelector('td')).display") in ("block", "inline-block")
    assert phone.run(f"{table}.scrollWidth <= {table}.clientWidth + 1")
    assert phone.run("getComputedStyle(document.querySelector('.toc-small')).display") == "block"
    phone.resize(1400)
    assert phone.run(f"getComputedStyle({table}.querySelector('td')).display") == "table-cell"
    assert phone.run("getComputedStyle(document.querySelector('.toc-small')).display") == "none"


def test_search_in_the_page(phone):
    "Typing loads index and ranking; the first hit leads somewhere"
    phone.run("document.querySelector('.search input').focus()")
    phone.call("Input.insertText", text="TrainError loop epoch")
    phone.run(
        "new Promise(done => { const t = setInterval(() => { if (document.querySelector('.hits a')) { "
        "clearInterval(t); done(1) } }, 20) })"
    )
    assert "library/loop.html" in phone.run("document.querySelector('.hits a').href")
    assert phone.run("document.querySelector('.hits').getBoundingClientRect().right <= innerWidth")
