"""The site: what is listed, what is shown, what is checked, and the README."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from bayesbinn_nb.site import build_site
from bayesbinn_nb.site.checks import PageLinks, check_equations
from bayesbinn_nb.site.pages import SiteError, collect_pages, find_root, site_config
from bayesbinn_nb.site.readme import readme_text
from bayesbinn_nb.site.visible import split_directives

ROOT = Path(__file__).resolve().parents[2]


def write(root, path, *cells):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=list(cells)), file)
    return file


@pytest.fixture
def checkout(tmp_path):
    "A small checkout: three listed pages of which one is not written, one run notebook, the real theme"
    root = tmp_path / "checkout"
    (root / "nbs").mkdir(parents=True)
    shutil.copytree(ROOT / "nbs" / "theme", root / "nbs" / "theme")
    config = {
        "project": {"type": "website"},
        "execute": {"enabled": False},
        "website": {
            "title": "tiny",
            "sidebar": {
                "contents": [
                    {"text": "Home", "href": "index.ipynb"},
                    {"section": "Mathematics", "contents": ["math/coin.ipynb", "math/later.ipynb"]},
                ]
            },
        },
    }
    (root / "_quarto.yml").write_text(yaml.safe_dump(config, sort_keys=False))
    write(
        root,
        "nbs/index.ipynb",
        new_markdown_cell(
            "# Tiny\n\n> A promise.\n\nSee [the coin](math/coin.ipynb#a-fair-coin), "
            "[later](math/later.ipynb), `toss_coin`."
        ),
    )
    write(
        root,
        "nbs/math/coin.ipynb",
        new_markdown_cell(
            "# Coin\n\n> One coin.\n\n## A fair coin\n\n$$ p = q \\tag{1}\\label{eq:p} $$\n\nBy "
            "$\\eqref{eq:p}$, [home](../index.ipynb), "
            "[a run](../results/runs/short/row/row.ipynb), [its record](../results/runs/short/row/seed0.json)."
        ),
        new_code_cell("#| default_exp math.coin"),
        new_code_cell("#| hide\nsecret = 1"),
        new_code_cell('#| export\ndef toss_coin(p:float=.5)->int:\n    "Toss it. Twice."\n    return 1'),
        new_code_cell(
            "print('out')",
            outputs=[
                new_output("stream", text="out\n"),
                new_output("display_data", data={"image/svg+xml": "<svg xmlns='http://www.w3.org/2000/svg'/>"}),
                new_output("execute_result", data={"text/plain": "'the result'"}),
                new_output("display_data", data={"text/html": "<a href='../index.ipynb'>i</a>".replace("'", '"')}),
            ],
        ),
    )
    write(root, "nbs/experiments/row.ipynb", new_markdown_cell("# Row\n\nSee [the coin](../math/coin.ipynb)."))
    write(
        root,
        "nbs/results/runs/short/row/row.ipynb",
        new_markdown_cell("# Row\n\nAn executed run. See [the coin](../math/coin.ipynb)."),
    )
    (root / "nbs/results/runs/short/row/seed0.json").write_text("{}")
    return root


def build(root, **kw):
    "Build and return the folder"
    index = build_site(root=root, use=kw.pop("use", "nbconvert"), quiet=kw.pop("quiet", True), **kw)
    assert index.name == "index.html" and index.is_file()
    return index.parent


# ---- this repository's own site


def test_every_notebook_is_listed_and_every_listed_notebook_is_written():
    pages, missing, unlisted = collect_pages(ROOT, site_config(ROOT))
    assert unlisted == [], f"add to _quarto.yml: {unlisted}"
    assert missing == []
    assert pages[0].is_home


def test_the_equation_references_of_every_page_exist():
    pages, *_ = collect_pages(ROOT, site_config(ROOT))
    faults = [f for p in pages for f in check_equations(nbformat.read(p.file, as_version=4), p.source)]
    assert faults == []


@pytest.mark.parametrize(
    "file", sorted((ROOT / "nbs").rglob("*.ipynb")), ids=lambda f: f.relative_to(ROOT / "nbs").as_posix()
)
def test_what_is_stored_in_a_notebook(file):
    "Small and whole; no error, warning or progress bar in its outputs; no path of the machine it ran on"
    assert file.stat().st_size < 600_000
    outputs = [o for c in nbformat.read(file, as_version=4).cells if c.cell_type == "code" for o in c.outputs]
    for o in outputs:
        assert o.output_type != "error" and o.get("name") != "stderr"
        text = str(o.get("text", "")) + "".join(v for k, v in o.get("data", {}).items() if k.startswith("text/"))
        assert " was left out to keep this notebook" not in text
        assert not re.search(r"(?<![\w.])/(home|root|tmp|opt|work|Users)/|\r", text), text[:300]


def test_readme_is_in_step_with_the_home_page():
    text, pictures = readme_text(ROOT)
    assert (ROOT / "README.md").read_text(encoding="utf-8") == text, (
        "run: python -c 'from bayesbinn_nb.site import write_readme; write_readme()'"
    )
    for path, svg in pictures.items():
        assert (ROOT / path).read_text(encoding="utf-8") == svg
    for link in re.findall(r"\]\(([^)\s#]+)\)", text):
        if not re.match(r"[a-z]+:", link):
            assert (ROOT / link).exists(), f"README links to {link}, which is not there"


def test_the_ten_lines_of_the_home_page_run():
    "In a fresh interpreter, as a reader would: every cell of the home page, without the drawing"
    cells = [
        split_directives(c.source)
        for c in nbformat.read(ROOT / "nbs/index.ipynb", as_version=4).cells
        if c.cell_type == "code"
    ]
    code = "\n".join(source for found, source in cells if "echo" not in found)
    assert "trainer.fit(" in code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    accuracy = float(re.search(r"test accuracy: ([\d.]+)% by the mode", done.stdout)[1])
    assert accuracy > 80


# ---- rendering


def test_a_page_shows_what_a_reader_needs_and_nothing_else(checkout):
    out = build(checkout)
    page = (out / "math/coin.html").read_text()
    assert 'href="../index.html"' in page and 'href="../results/runs/short/row/row.html"' in page
    assert "secret" not in page and "#| " not in page and "default_exp" not in page
    assert 'id="toss_coin"' in page and "toss_coin(p=0.5)" in page and "Toss it." in page
    assert r"\label{eq:p}" in page and '<div class="lead"><p>One coin.</p>' in page.replace("\n", "")
    assert 'src="data:image/svg+xml;base64,' in page and '<pre class="out">out' in page
    assert "the result" in page and '<a href="../index.html">i</a>' in page
    assert (out / "results/runs/short/row/seed0.json").read_text() == "{}"
    assert '<a href="seed0.json">seed0.json</a>' in (out / "results/runs/short/row/row.html").read_text()
    assert 'href="../../../../math/coin.html">the coin' in (out / "results/runs/short/row/row.html").read_text(), (
        "a link written for the template's folder"
    )
    home = (out / "index.html").read_text()
    assert 'href="math/coin.html#a-fair-coin"' in home
    assert 'href="math/coin.html#toss_coin"' in home, "names of exported functions link to their source"
    assert 'class="missing"' in home and "later.html" not in home
    assert "A fair coin" in (out / "search.js").read_text()


def test_nothing_is_loaded_from_the_network_and_mathjax_is_there(checkout):
    out = build(checkout)
    assert (out / "mathjax/tex-svg-full.js").stat().st_size > 1e6
    for file in out.rglob("*.html"):
        parser = PageLinks()
        parser.feed(file.read_text())
        assert not [x for x in parser.loads if re.match("https?:|//", x)]
    assert 'src="../mathjax/tex-svg-full.js"' in (out / "math/coin.html").read_text()
    assert "http" not in re.sub(r"/\*.*?\*/", "", (out / "theme/site.css").read_text())


def test_missing_and_unlisted_pages_are_said_aloud(checkout, capsys):
    write(checkout, "nbs/math/orphan.ipynb", new_markdown_cell("# Orphan"))
    build(checkout, quiet=False)
    said = capsys.readouterr().out
    assert "math/later.ipynb is listed in _quarto.yml and not written yet" in said
    assert "nbs/math/orphan.ipynb is not listed in _quarto.yml" in said
    assert "index.ipynb links to math/later.ipynb" in said
    assert (checkout / "_docs/math/orphan.html").is_file()


def test_quick_results_stand_beside_the_others_with_a_banner(checkout):
    write(
        checkout,
        "_runs/quick/pages/two_moons.ipynb",
        new_markdown_cell("# Two Moons\n\n[run](../moons/moons.ipynb) 98.1 ± 0.2"),
        new_code_cell("records_root = 'runs'", metadata={"tags": ["parameters"]}),
    )
    write(checkout, "_runs/quick/moons/moons.ipynb", new_markdown_cell("# Moons run"))
    write(checkout, "_runs/quick/moons/moons.failed.ipynb", new_markdown_cell("# Half a run"))
    write(checkout, "_runs/quick/moons/_work/x.ipynb", new_markdown_cell("# Scratch"))
    out = build(checkout)
    page = (out / "results/quick/two_moons.html").read_text()
    assert 'class="banner"' in page and "stand-in" in page and "../runs/quick/moons/moons.html" in page
    assert "records_root" not in page and "98.1\u00a0±\u00a00.2" in page
    assert (
        "Your quick run" in page
        and "math/coin.html" in page
        and "quick/two_moons.html" in (out / "index.html").read_text()
    )
    assert not [f.name for f in out.rglob("*.html") if f.stem in ("x", "moons.failed")]
    out = build(checkout, suites=["short"])
    assert not (out / "results/quick").exists() and (out / "results/runs/short/row/row.html").is_file()
    with pytest.raises(SiteError, match="bayesbinn batch paper"):
        build(checkout, suites=["paper"])


@pytest.mark.parametrize(
    "text, fault",
    [
        ("[x](coin2.ipynb)", "coin2.ipynb, which is not there"),
        ("[x](../index.ipynb#nowhere)", "no anchor “nowhere”"),
        ("![x](picture.png)", "picture.png, which is not there"),
        ("![x](https://example.org/x.png)", "from the network"),
        ("[x](/index.html)", "root of the server"),
        (r"$\eqref{eq:none}$", r"\eqref{eq:none} has no \label"),
        ("$$ a \\tag{1}\\label{x} $$\n\n$$ b \\tag{2}\\label{x} $$", "given 2 times"),
        ("$$ a \\label{x} $$", "without \\tag"),
    ],
)
def test_faults_are_found(checkout, text, fault):
    write(
        checkout,
        "nbs/math/coin.ipynb",
        new_markdown_cell("# Coin\n\n## A fair coin\n\n" + text),
        new_code_cell("#| default_exp math.coin"),
    )
    with pytest.raises(SiteError) as e:
        build(checkout)
    assert fault in str(e.value) and len(e.value.faults) == 1
    assert (checkout / "_docs/index.html").is_file(), "the site is written all the same, to look at"


def test_links_in_code_and_to_the_web_are_no_faults(checkout):
    write(
        checkout,
        "nbs/math/coin.ipynb",
        new_markdown_cell("# Coin\n\n## A fair coin\n\n`[x](nothing.ipynb)` `\\eqref{no}` [web](https://example.org)"),
    )
    build(checkout)


# ---- refusing


def test_bad_requests_say_what_to_do(checkout, tmp_path):
    with pytest.raises(ValueError, match="choose 'auto'"):
        build(checkout, use="sphinx")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("x")
    with pytest.raises(SiteError, match="Choose another folder"):
        build(checkout, out=mine)
    assert (mine / "thesis.tex").is_file()
    (checkout / "nbs/math/coin.ipynb").write_text('{"cells": [')
    with pytest.raises(SiteError, match="coin.ipynb cannot be read as a notebook"):
        build(checkout)
    (checkout / "_quarto.yml").write_text("website: {title: x}")
    with pytest.raises(SiteError, match="lists no pages"):
        build(checkout)
    with pytest.raises(FileNotFoundError, match="inside a checkout"):
        find_root(tmp_path)


def test_a_failed_build_leaves_the_last_site_alone(checkout):
    out = build(checkout)
    before = (out / "index.html").read_text()
    (checkout / "nbs/math/coin.ipynb").write_text("{")
    with pytest.raises(SiteError):
        build(checkout)
    assert (out / "index.html").read_text() == before


# ---- Quarto

FAKE_QUARTO = """#!{python}
# Stands for `quarto render FOLDER`: one page for each notebook to render, as Quarto writes them where our pages differ.
import pathlib, sys, yaml, json
command, folder = sys.argv[1], pathlib.Path(sys.argv[2])
config = yaml.safe_load((folder / "_quarto.yml").read_text())
assert command == "render" and config["execute"] == {{"enabled": False}}
if (folder.parent / "break-quarto").exists(): sys.exit("ERROR: no such thing")
for source in config["project"]["render"]:
    nb = json.loads((folder / source).read_text())
    text = "".join("".join(c["source"]) + chr(10) for c in nb["cells"])
    page = folder / config["project"]["output-dir"] / source.replace(".ipynb", ".html")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text('<script src="https://cdnjs.cloudflare.com/ajax/libs/require.js/2.3.6/require.min.js"></script>'
                    '<script src="https://cdn.jsdelivr.net/npm/mathjax@3/es5/tex-chtml-full.js" type="text/javascript"></script>'
                    '<pre>' + text.replace("<", "&lt;") + '</pre>' + ('<a href="gone.html">x</a>' if (folder.parent / "dead-link").exists() else ""))
"""  # noqa: E501


@pytest.fixture
def quarto(checkout, tmp_path, monkeypatch):
    "A checkout on a machine where `quarto` is the stand-in"
    fake = tmp_path / "bin" / "quarto"
    fake.parent.mkdir()
    fake.write_text(FAKE_QUARTO.format(python=sys.executable))
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    return checkout


def test_quarto_renders_the_pages_that_exist_and_reads_offline(quarto):
    write(
        quarto,
        "_runs/quick/pages/two_moons.ipynb",
        new_markdown_cell("# Two Moons"),
        new_code_cell("#| hide\nsecret = 1"),
    )
    out = build(quarto, use="auto")
    config = yaml.safe_load((quarto / "_proc/_quarto.yml").read_text())
    assert config["project"]["render"] == [
        "index.ipynb",
        "math/coin.ipynb",
        "experiments/row.ipynb",
        "results/runs/short/row/row.ipynb",
        "results/quick/two_moons.ipynb",
        "names.ipynb",
    ]
    assert config["website"]["sidebar"]["contents"] == [
        {"text": "Home", "href": "index.ipynb"},
        {"section": "Mathematics", "contents": ["math/coin.ipynb"]},
        {"section": "Your quick run", "contents": ["results/quick/two_moons.ipynb"]},
        {"section": "Reference", "contents": ["names.ipynb"]},
    ]
    assert "../../../../math/coin.html" in (out / "results/runs/short/row/row.html").read_text()
    page = (out / "results/quick/two_moons.html").read_text()
    assert (
        'src="../../mathjax/tex-svg-full.js"' in page
        and "https:" not in page
        and "stand-in" in page
        and "secret" not in page
    )
    assert (out / "mathjax/tex-svg-full.js").is_file()
    assert sorted(p.name for p in (quarto / "nbs").iterdir()) == [
        "experiments",
        "index.ipynb",
        "math",
        "results",
        "theme",
    ], "something was left behind"
    (quarto / "dead-link").touch()  # Quarto itself returns 0 here
    with pytest.raises(SiteError, match="gone.html, which is not there"):
        build(quarto, use="quarto")
    (quarto / "break-quarto").touch()
    with pytest.raises(SiteError, match="(?s)quarto render failed with exit code 1.*no such thing"):
        build(quarto, use="quarto")


def test_without_quarto_asking_for_it_names_the_other_way(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SiteError, match="nbconvert"):
        build(checkout, use="quarto")
    build(checkout, use="auto")


# ---- the command


def test_the_command_ends_with_an_error_when_the_site_has_faults(checkout, monkeypatch, capsys):
    from bayesbinn_nb.repro.cli import main

    monkeypatch.chdir(checkout)
    main(["site", "--use", "nbconvert"])
    assert str(checkout / "_docs" / "index.html") in capsys.readouterr().out
    write(checkout, "nbs/index.ipynb", new_markdown_cell("# Tiny\n\n[gone](gone.ipynb)"))
    try:
        code = main(["site", "--use", "nbconvert"])
    except SystemExit as e:
        code = e.code
    said = capsys.readouterr()
    assert (
        code not in (0, None)
        and "gone.ipynb, which is not there" in said.err + said.out + str(code)
        and "Traceback" not in said.err
    )
