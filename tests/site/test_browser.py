"""A handful of pages in a real browser, where Chromium is there; `browser.py` looks at all of them."""

import re
import shutil
from contextlib import contextmanager

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

# of every kind one: home, formulas, a page with a script of its own, a long reference, wide tables, wider than paper
PAGES = [
    "index",
    "math/floating_point",
    "math/one_weight",
    "methods/bayesbinn",
    "library/loop",
    "results/scorecard",
    "results/speed",
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
        'style="width:500px">wide</p><nav>menu</nav><main><pre style="overflow: auto; width: 99px">'
        "a line that is longer than its room</pre></main><style>body { background: #111 }</style>"
    )
    (tmp_path / "good.html").write_text(good)
    (tmp_path / "bad.html").write_text(good.replace('<h1 id="a">Good</h1>', bad))
    faults = "\n".join(browser.look_at_site(tmp_path, ["good.html", "bad.html"], ("http",)))
    assert "good.html" not in faults
    for words in (
        "given 2 times", "#gone leads "
            "nowhere", "no alt text", "answers 404", "oh", "outside the site", "a script fails",
        "at 390 px it scrolls sideways", "no width and height", "2 headings of the first level",
        "pre is cut by", "nav is there", "the ground is rgb(17, 17, 17)",
    ):  # fmt: skip
        assert words in faults, words


@contextmanager
def on_a_phone(folder, page):
    "A browser of a phone's width that shows a page"
    with browser.Browser() as window, browser.Server(folder) as address:
        window.resize(390)
        window.open(address + page)
        yield window


@pytest.fixture
def phone(rendered):
    with on_a_phone(rendered, "library/loop.html") as window:
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


# The element that has the focus: what it is, and whether one sees that it has it
FOCUS = """(() => {
  const el = document.activeElement, style = getComputedStyle(el), box = el.getBoundingClientRect();
  const x = Math.max(1, Math.min(innerWidth - 2, box.left + box.width / 2));
  const y = Math.max(1, Math.min(innerHeight - 2, box.top + box.height / 2)), top = document.elementFromPoint(x, y);
  return {tag: el.tagName, name: el.className || el.type || '', text: el.textContent.trim().slice(0, 40),
    where: el.closest('nav.side') ? 'menu' : el.closest('.toc-small') ? 'contents' : el.closest('.hits') ? 'hits' : '',
    seen: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1 && !!top && (el.contains(top) || top.contains(el))};
})()"""  # noqa: E501


def _tab(window, until, most=60):
    "Tab until a stop is as wanted; every stop on the way has a focus that one sees"
    stops = []
    for _ in range(most):
        window.key("Tab", 9)
        stops.append(stop := window.run(FOCUS))
        assert stop["seen"] or stop["tag"] == "BODY", f"the focus is not seen on {stop}"
        if until(stop):
            return stops
    raise AssertionError(f"not reached by Tab: {stops}")


def test_tab_reaches_the_parts_of_a_page_on_a_phone(phone):
    "Skip link, menu, search, theme, contents, in this order, before the text; Enter opens the contents, Escape closes"
    stops = _tab(phone, lambda stop: stop["where"] == "contents")
    order = [stop["name"] for stop in stops]
    assert [order.index(name) for name in ("skip", "menu", "search", "theme")] == [0, 1, 3, 4]
    assert len(stops) < 9, stops
    is_open = "document.querySelector('.toc-small').open"
    phone.key("Enter", 13, "\r")
    assert phone.run(is_open)
    assert _tab(phone, lambda stop: stop["tag"] == "A")[-1]["where"] == "contents"
    phone.key("Escape", 27)
    assert not phone.run(is_open) and phone.run(FOCUS)["tag"] == "SUMMARY"


def test_the_keyboard_in_the_menu_of_a_phone(phone):
    "Enter opens it, Tab goes through it and nowhere else, a collapsed section opens by Enter, Escape closes from there"
    phone.run("document.querySelector('button.menu').focus()")
    phone.key("Enter", 13, "\r")
    assert phone.run(FOCUS)["where"] == "menu"
    closed = "!document.activeElement.parentElement.open"
    stops = _tab(phone, lambda stop: stop["tag"] == "SUMMARY" and phone.run(closed))
    assert {stop["where"] or stop["name"] for stop in stops} <= {"menu", "menu-open"}, stops
    section = phone.run("document.activeElement.textContent")
    phone.key("Enter", 13, "\r")
    phone.key("Tab", 9)
    stop = phone.run(FOCUS)
    assert stop["tag"] == "A" and stop["where"] == "menu" and stop["seen"]
    assert phone.run("document.activeElement.closest('details').querySelector('summary').textContent") == section
    around = _tab(phone, lambda stop: stop["name"] == "menu")
    assert {stop["where"] for stop in around if stop["tag"] not in ("BODY", "BUTTON")} == {"menu"}, around
    phone.key("Escape", 27)
    assert phone.run("document.querySelector('button.menu').getAttribute('aria-expanded')") == "false"
    assert phone.run(FOCUS)["name"] == "menu"


def _search(window, words):
    "Type into the box by keyboard, and wait for the hits"
    window.key("/", 191, "/")
    window.call("Input.insertText", text=words)
    window.run(
        "new Promise(done => { const t = setInterval(() => { if (document.querySelector('.hits a')) { "
        "clearInterval(t); done(1) } }, 20) })"
    )


def test_the_keyboard_in_the_search(phone):
    "'/' leads there, Tab into the hits, Escape closes them and gives the box back; who tabs on leaves no list behind"
    shown = "!document.querySelector('.hits').hidden"
    _search(phone, "TrainError")
    phone.key("Tab", 9)
    stop = phone.run(FOCUS)
    assert stop["where"] == "hits" and stop["seen"]
    phone.key("Escape", 27)
    assert not phone.run(shown) and phone.run("document.activeElement.type") == "search"
    assert phone.run("document.activeElement.value") == ""
    phone.key("Escape", 27)
    assert phone.run("document.activeElement === document.body")
    _search(phone, "TrainError")
    _tab(phone, lambda stop: stop["name"] == "theme")
    assert not phone.run(shown)


def test_the_menu_scrolls_to_its_page_and_the_page_stays_at_its_top(rendered):
    with browser.Browser() as window, browser.Server(rendered) as address:
        window.resize(1400, 300)  # so low that the current page of the menu is below the edge
        window.open(address + "results/scorecard.html")
        here = "document.querySelector('nav.side [aria-current]').getBoundingClientRect()"
        assert window.run("scrollY") == 0
        assert window.run(f"{here}.top > 0 && {here}.bottom <= innerHeight")


def test_a_dark_page_is_printed_on_white_without_menus(rendered):
    "What Chromium writes as PDF is not empty, and its rules for paper hold in the dark theme"
    with browser.Browser() as window, browser.Server(rendered) as address:
        window.open(address + "math/floating_point.html")
        window.theme("dark")
        assert len(window.call("Page.printToPDF", printBackground=True)["data"]) > 100_000
        window.media("print")
        window.resize(browser.PAPER)
        assert window.run(browser.PRINTED) == []
        ink = "getComputedStyle(document.body).color.match(/\\d+/g).every(part => +part < 80)"
        assert window.run(ink)
        unbroken = "[...document.querySelectorAll('main pre')].filter(e => getComputedStyle(e).whiteSpace === 'pre')"
        assert window.run(f"{unbroken}.length") == 0


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


# A page with the parts of Quarto's that its scripts leave open: it makes the search by script. What is folded has no
# width, as in browsers that do not lay it out
LIKE_QUARTO = """<!DOCTYPE html><html lang="en"><head><title>Like Quarto</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="stylesheet" href="quarto.css">
<style>pre { overflow: auto } td { white-space: nowrap }
details:not([open]) > pre { display: none } #title-block-header a { text-decoration: none }</style>
HEAD<script defer src="tex-svg-full.js"></script>
<script>addEventListener('load', () => { document.getElementById('quarto-search').innerHTML =
  '<div class="aa-Autocomplete" role="combobox"><button class="aa-DetachedSearchButton"></button></div>' })</script>
</head><body><div id="quarto-sidebar-glass"></div><div id="quarto-search"></div><div id="quarto-search-results"></div>
<main><header id="title-block-header"><h1>Like Quarto</h1><div class="description">A <a href="">link</a>.</div></header>
<p>$$\\begin{equation}\\label{sum}a+b\\end{equation}$$ says \\eqref{sum}.</p>
<pre id="output">WORDS</pre><table id="table" class="table-sm"><tbody><tr><td>WORDS</td></tr></tbody></table>
<pre id="short">short</pre><details><summary>Code</summary><pre id="folded">WORDS</pre></details>
</main></body></html>"""


@pytest.fixture
def like_quarto(tmp_path):
    theme = find_root() / "nbs" / "theme"
    for file in (theme / "reach.js", theme / "quarto.css", mathjax_file()):
        shutil.copy(file, tmp_path)
    head = "".join((theme / name).read_text() for name in ("mathjax.html", "quarto.html")).replace("/theme/", "")
    page = LIKE_QUARTO.replace("HEAD", head).replace("WORDS", "a line that is wider than a phone " * 4)
    (tmp_path / "page.html").write_text(page)
    assert browser.look_at_site(tmp_path, ["page.html"], ("http",)) == []
    with on_a_phone(tmp_path, "page.html") as window:
        yield window


def test_what_scrolls_in_quarto_is_reached_by_keyboard(like_quarto):
    "Where it scrolls and as long as it does; what was folded, too"
    reached = "[...document.querySelectorAll('main [tabindex=\"0\"]:not(mjx-container)')].map(e => e.id).join()"
    assert like_quarto.run(reached) == "output,table"
    like_quarto.run("document.querySelector('details').open = true; 1")
    like_quarto.run(browser.FRAME)
    assert like_quarto.run(reached) == "output,table,folded"
    like_quarto.resize(1800)
    assert like_quarto.run(reached) == ""


def test_a_link_in_the_promise_of_a_page_of_quarto_is_seen_without_its_colour(like_quarto):
    link = "document.querySelector('.description a')"
    assert like_quarto.run(f"getComputedStyle({link}).textDecorationLine") == "underline"


def test_links_of_formulas_and_the_search_of_quarto_have_names(like_quarto):
    assert like_quarto.run("document.querySelectorAll('mjx-container a').length") == 1
    assert like_quarto.run("document.querySelectorAll('mjx-container svg[aria-hidden] a').length") == 0
    assert like_quarto.run("document.querySelector('mjx-container a').getAttribute('aria-label')") == "equation sum"
    unnamed = "document.querySelectorAll('#quarto-search [class^=aa-]:not([aria-label=Search])').length"
    assert like_quarto.run(unnamed) == 0
    assert like_quarto.run("document.getElementById('quarto-sidebar-glass').getAttribute('aria-hidden')") == "true"


def test_colours_are_looked_at_when_they_have_settled(tmp_path):
    "Quarto's switch loads a sheet, and its links fade from one colour to the other"
    (tmp_path / "dark.css").write_text("p { color: rgb(9, 9, 9) }")
    (tmp_path / "page.html").write_text(
        "<!DOCTYPE html><style>p { color: rgb(200, 200, 200); transition: color .3s }</style><p>fades</p><script>"
        "quartoToggleColorScheme = () => { const sheet = document.createElement('link'); sheet.rel = 'stylesheet';"
        "sheet.href = 'dark.css'; document.head.append(sheet); document.body.classList.add('quarto-dark') }</script>"
    )
    with browser.Browser() as window, browser.Server(tmp_path) as address:
        window.open(address + "page.html")
        window.theme("dark")
        assert window.run("getComputedStyle(document.querySelector('p')).color") == "rgb(9, 9, 9)"
