"""Twenty things that a newcomer looks up, each answered by the first three hits of the site's own search."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from bayesbinn_nb.site.links import Site
from bayesbinn_nb.site.pages import collect_pages, load_pages, site_config
from bayesbinn_nb.site.render import shown_of
from bayesbinn_nb.site.search import search_entries
from bayesbinn_nb.site.text import PageText

ROOT = Path(__file__).resolve().parents[2]
RANKING = ROOT / "nbs" / "theme" / "ranking.js"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="the ranking is JavaScript, and node is not installed")

# question → pages, one of which must be among the first three hits
LOOKUPS = {
    "STE": ["methods/ste.html"],
    "straight-through estimator": ["methods/ste.html"],
    "kl_weight": ["methods/bayesbinn.html#api-BayesBiNNOptimizer"],
    "sampled_params": ["methods/bayesbinn.html#api-BayesBiNNOptimizer.sampled_params"],
    "early stopping": ["library/callbacks.html"],
    "onnx": ["library/deploy.html"],
    "own data": ["library/trainer.html#your-own-network-your-own-data", "library/data.html"],
    "how do I write my own method": ["methods/write_your_own.html"],
    "load_data": ["library/data.html#api-load_data"],
    "resume after a crash": ["library/resume.html"],
    "save the model": ["library/checkpoint.html"],
    "one bit per weight": ["library/packing.html"],
    "gumbel softmax": ["math/relaxation.html"],
    "flip ratio": ["methods/bop.html", "library/callbacks.html"],
    "continual learning": ["math/continual.html"],
    "several seeds": ["library/together.html"],
    "run on a cluster": ["repro/executors.html"],
    "gpu": ["methods/kernels/gpu.html"],
    "KL divergence": ["math/bernoulli.html"],
    "batch norm": ["library/models.html", "math/prediction.html"],
    "what does lambda mean notation": ["math/notation.html"],
    "predict uncertainty": ["math/prediction.html"],
    "errors in the paper": ["math/errata.html"],
    "mnist accuracy": ["results/benchmark_mnist.html"],
    "install": ["index.html"],
}


def ranked(index: list[dict], questions: list[str]) -> dict[str, list[dict]]:
    "What the browser would show: the same file, run by node"
    script = (
        "const {prepare, rank} = require(process.argv[1]);"
        "const {index, questions} = JSON.parse(require('fs').readFileSync(0, 'utf8')), ready = prepare(index);"
        "console.log(JSON.stringify(Object.fromEntries(questions.map(q => [q, rank(ready, q).slice(0, 12)]))))"
    )
    told = json.dumps({"index": index, "questions": questions})
    done = subprocess.run([NODE, "-e", script, str(RANKING)], input=told, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def index() -> list[dict]:
    "The index of the whole site, without rendering it"
    config = site_config(ROOT)
    pages, missing, _ = collect_pages(ROOT, config, [])
    load_pages(pages)
    site = Site(ROOT, config, pages, set(missing))
    entries = []
    for page in (p for p in pages if p.listed):
        nb = shown_of(page)
        text = PageText(site, page, nb)
        for cell in nb.cells:
            if cell.cell_type == "markdown":
                text.cell(cell)
        entries += search_entries(page, nb, [heading["id"] for heading in text.toc])
    return entries


@pytest.fixture(scope="module")
def hits(index) -> dict[str, list[dict]]:
    return ranked(index, list(LOOKUPS))


@pytest.mark.parametrize("question", LOOKUPS)
def test_a_newcomers_question_is_answered_by_the_first_three_hits(hits, question):
    wanted = LOOKUPS[question]
    there = [w for w in wanted if (ROOT / "nbs" / w.partition("#")[0].replace(".html", ".ipynb")).is_file()]
    if not there:
        pytest.skip(f"{wanted} is not written yet")
    found = [hit["entry"]["u"] for hit in hits[question][:3]]
    assert any(address.startswith(w) for address in found for w in there), found


def test_the_first_hit_for_a_methods_name_is_its_page(index):
    for question, page in {
        "STE": "ste",
        "Bop": "bop",
        "BayesBiNN": "bayesbinn",
        "PMF": "pmf",
        "LR-Net": "lrnet",
    }.items():
        assert ranked(index, [question])[question][0]["entry"]["u"] == f"methods/{page}.html"


def test_every_public_name_and_argument_is_in_the_index(index):
    names = {entry["h"] for entry in index if entry["k"] == "name"}
    assert {"BayesBiNNOptimizer", "STE", "Trainer.fit", "load_data", "pack_bits"} <= names
    for entry in index:
        assert entry["k"] != "name" or "api-" in entry["u"]
    optimiser = next(entry for entry in index if entry["h"] == "BayesBiNNOptimizer")
    assert {"kl_weight", "sampled_params", "temperature"} <= set(optimiser["n"].split())


def test_no_entry_shows_tex(index):
    commands = [r"\frac", r"\lambda", r"\mathrm", r"\begin", r"\tag", r"\eqref", "$$"]
    for entry in index:
        if entry["k"] != "name" and not entry["u"].startswith("site/"):  # whose code spans show TeX
            found = [c for c in commands if c in entry["h"] + entry["t"]]
            assert not found, f"{entry['u']}: {found}"


SMALL = [
    dict(
        u="a.html",
        h="A system",
        p="A system",
        k="page",
        n="",
        t="Tests of an estimator instead of a proof.",
        a="a",
    ),
    dict(u="b.html", h="Early stopping", p="Loops", k="heading", n="patience", t="Stops early."),
    dict(u="c.html#api-EarlyStop", h="EarlyStop", p="Loops", k="name", n="patience kl_weight", t="Stop."),
]


def test_words_have_ends():
    assert ranked(SMALL, ["ste", "in"])["ste"] == [], "not inside of system and instead"
    assert [h["entry"]["u"] for h in ranked(SMALL, ["syst"])["syst"]] == ["a.html"], "the beginning of the last word"
    assert not ranked(SMALL, ["stem"])["stem"]


def test_a_short_text_is_shown_to_its_last_word_and_a_long_one_is_cut_between_words():
    long = dict(SMALL[2], t="word " * 40 + "end")
    shown = {h["entry"]["h"]: h["text"] for h in ranked([*SMALL[:2], long], ["early stop"])["early stop"]}
    assert shown["Early stopping"] == "Stops early." and shown["EarlyStop"].endswith("word …")


def test_most_words_are_enough_and_parts_of_names_are_words():
    found = ranked(SMALL, ["early stopping please", "kl_weight", "weight", "stop early", "nothing of this"])
    assert found["early stopping please"][0]["entry"]["u"] == "b.html"
    assert found["kl_weight"][0]["entry"]["u"] == found["weight"][0]["entry"]["u"] == "c.html#api-EarlyStop"
    assert {h["entry"]["u"] for h in found["stop early"]} == {"b.html", "c.html#api-EarlyStop"}
    assert found["nothing of this"] == []
