"""A handful of pages in a real browser, where Chromium is there; `browser.py` looks at all of them."""

import re
import shutil

import nbformat
import pytest
import torch

pytest.importorskip("websocket", reason="websocket-client is not installed")
import browser

from bayesbinn_nb.math.relaxation import half_logistic, relaxation_scale, relaxed_weights
from bayesbinn_nb.site.build import mathjax_file
from bayesbinn_nb.site.links import Site
from bayesbinn_nb.site.pages import Page, collect_pages, find_root, load_pages, site_config
from bayesbinn_nb.site.reference import NAMES_PAGE, names_page
from bayesbinn_nb.site.render import render_site

pytestmark = pytest.mark.skipif(browser.find_chromium() is None, reason="Chromium is not installed")

# of every kind one: home, formulas, a page with a script of its own, a long reference, wide tables, a run notebook
PAGES = [
    "index",
    "math/floating_point",
    "math/one_weight",
    "methods/bayesbinn",
    "library/loop",
    "results/scorecard",
    "repro/tables",
]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    "Those pages, rendered; links to others lead nowhere, which is not what is looked for here"
    out, root = tmp_path_factory.mktemp("site"), find_root()
    config = site_config(root)
    pages, missing, _ = collect_pages(root, config, [])
    pages = [page for page in pages if page.source.removesuffix(".ipynb") in PAGES]
    load_pages(pages)
    pages.append(names_page(pages, root / "nbs" / NAMES_PAGE))
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


@pytest.fixture(params=["http", "file"])
def one_weight(rendered, request):
    "The page of the sliders, served and as a file without any server"
    with browser.Browser() as window, browser.Server(rendered) as address:
        window.open((address if request.param == "http" else rendered.as_uri() + "/") + "math/one_weight.html")
        yield window


def _words(window, **settings):
    "What the page says after its sliders (and the box `single`) were set"
    for name, value in settings.items():
        what = f"e.checked = {str(value).lower()}" if name == "single" else f"e.value = {value}"
        window.run(f"""(e => {{ {what}; e.dispatchEvent(new Event('input', {{bubbles: true}})) }})
            (document.querySelector('[data-in="{name}"]'))""")
    return window.run("document.querySelector('[data-out=words]').innerText")


def _number(words, name):
    return float(re.search(rf"\b{name} = (-?[\d.]+(?:e[+-]?\d+)?)", words)[1])


def test_the_sliders_of_one_weight(one_weight):
    "Each slider and the box change the numbers, as the functions of the library do; the pictures are drawn and fit"
    start = _words(one_weight)
    assert abs(_number(start, "w") + 0.0473) < 1e-4 and "fractional" in start
    decided = _words(one_weight, lam=10, tau=-30, single=True)  # τ = 1e-10
    assert one_weight.run("document.querySelector('[data-out=tau]').textContent") == "1e-10"
    assert _number(decided, "s") == 1e10 and "only ε is left" in decided
    assert abs(_number(_words(one_weight, single=False), "s") / 1.198e8 - 1) < 0.01
    stuck = _words(one_weight, single=True, tau=-15, lam=5)  # τ = 1e-5
    assert abs(_number(stuck, "s") - 0.0551) < 1e-3 and "sticks" in stuck
    for tau in (-36, 0, 3):
        for lam in (-15, 0, 15):
            words = _words(one_weight, tau=tau, lam=lam, u=0.7)
            tensors = torch.tensor(float(lam)), torch.tensor(round(0.7 * 2**24) / 2**24)
            temperature = {-36: 1e-12, 0: 1.0, 3: 10.0}[tau]
            w = relaxed_weights(tensors[0], half_logistic(tensors[1]), temperature)
            s = relaxation_scale(w, torch.tanh(tensors[0]), temperature).item()
            assert abs(_number(words, "s") / s - 1) < 0.02 and "NaN" not in words
            outside = """[...document.querySelectorAll('.one-weight svg')].filter(svg => {
              const box = svg.getBoundingClientRect();
              return svg.children.length < 4 || [...svg.children].some(e => { const r = e.getBoundingClientRect();
                return r.left < box.left - 1 || r.right > box.right + 1
                  || r.top < box.top - 1 || r.bottom > box.bottom + 1 }) }).length"""
            assert one_weight.run(outside) == 0


def test_the_sliders_move_by_keys(one_weight):
    "Arrow keys move the slider that has the focus, and its number and the words follow"
    before = _words(one_weight, lam=0.4)
    one_weight.run("document.querySelector('[data-in=lam]').focus()")
    one_weight.key("ArrowRight", 39)
    assert one_weight.run("document.querySelector('[data-out=lam]').textContent") == "0.5"
    assert _words(one_weight) != before
