"What is built is what is needed: templates, suites and published numbers in the wheel, the notebooks in the sdist"

import re
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    "Names of the files of both archives, built from the files that git knows, without a network"
    pytest.importorskip("build")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("out")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and "results/runs" not in name:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    with zipfile.ZipFile(next(out.glob("*.whl"))) as wheel, tarfile.open(next(out.glob("*.tar.gz"))) as sdist:
        metadata = next(n for n in wheel.namelist() if n.endswith("METADATA"))
        return wheel.namelist(), sdist.getnames(), wheel.read(metadata).decode()


def test_the_wheel_works_away_from_a_checkout(built):
    wheel, _, _ = built
    inside = {name.removeprefix("bayesbinn_nb/") for name in wheel}
    wanted = {"py.typed", "experiments/published.yaml", "experiments/curves.csv", "experiments/bounds.json"}
    wanted |= {f"experiments/suites/{name}.yaml" for name in ("quick", "short", "paper")}
    wanted |= {"networks/mnist-bayesbinn.safetensors", "networks/mnist-bayesbinn.json"}
    wanted |= {f"experiments/{path.name}" for path in (ROOT / "nbs" / "experiments").glob("*.ipynb")}
    assert wanted <= inside, sorted(wanted - inside)
    assert not [name for name in wheel if name.startswith(("tests", "nbs"))]


def test_the_sdist_carries_the_source(built):
    _, sdist, _ = built
    inside = {name.partition("/")[2] for name in sdist}
    notebooks = {str(p.relative_to(ROOT)) for p in (ROOT / "nbs").rglob("*.ipynb")}
    notebooks = {name for name in notebooks if "results/runs" not in name and "/_" not in name and "/." not in name}
    wanted = notebooks | {"settings.ini", "setup.py", "_quarto.yml", "CHANGELOG.md", "Makefile", "tests/conftest.py"}
    wanted |= {"bayesbinn_nb/networks/mnist-bayesbinn.safetensors", "bayesbinn_nb/networks/mnist-bayesbinn.json"}
    assert wanted <= inside, sorted(wanted - inside)[:5]


def test_the_metadata_are_true(built):
    _, _, metadata = built
    assert "Name: bayesbinn_nb" in metadata.replace("bayesbinn-nb", "bayesbinn_nb")
    assert "Requires-Python: >=3.11" in metadata
    extras = {line.partition(": ")[2] for line in metadata.splitlines() if line.startswith("Provides-Extra")}
    assert {"dev", "repro", "site", "fast", "cluster", "deploy"} <= extras


def test_links_work_on_an_index_page(built):
    "None is relative, and each of ours leads to a file of the repository"
    _, _, metadata = built
    settings = ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    home = settings["DEFAULT"]["git_url"]
    text = re.sub(r"(?s)```.*?```", "", metadata.partition("\n\n")[2])
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)\s]+)\)", text)
    links += [("!", target) for target in re.findall(r'<img[^>]* src="([^"]*)"', text)]
    assert len(links) > 20
    for picture, target in links:
        assert re.match(r"https?://|#", target), target
        if target.startswith(home):
            kind, branch, path = target.removeprefix(home).strip("/").split("/", 2)
            assert (kind, branch) == ("raw" if picture else "blob", settings["DEFAULT"]["branch"])
            assert (ROOT / path.partition("#")[0]).exists(), target
    assert any(picture for picture, _ in links) and any(target.startswith(home) for _, target in links)
