"""Every figure of the site is described in words, and has its size."""

from pathlib import Path

import nbformat
import pytest

from bayesbinn_nb.site.pages import listed_pages, site_config
from bayesbinn_nb.site.pictures import picture_size
from bayesbinn_nb.site.visible import visible_notebook

ROOT = Path(__file__).resolve().parents[2]


def pictures(file: Path) -> list[tuple[str, str, str]]:
    "(alt text, kind, data) of each picture of a notebook"
    found = []
    for cell in visible_notebook(nbformat.read(file, as_version=4)).cells:
        for output in cell.outputs if cell.cell_type == "code" else ():
            for kind, data in output.get("data", {}).items():
                if kind.startswith("image/"):
                    found.append((cell.metadata.site["alt"], kind, data))
    return found


LISTED = [ROOT / "nbs" / source for _, _, source in listed_pages(site_config(ROOT))]


def test_there_are_pictures():
    assert sum(len(pictures(file)) for file in LISTED) >= 40


@pytest.mark.parametrize("file", LISTED, ids=lambda f: f.relative_to(ROOT / "nbs").as_posix())
def test_figures_of_a_page_are_described_and_have_a_size(file):
    for alt, kind, data in pictures(file):
        assert len(alt) >= 30, (
            f"a figure of {file.name} has the alt text {alt!r}: say in `#| fig-alt:` what is to be seen"
        )
        assert not alt.startswith("Plot of "), (
            f"a figure of {file.name} has no `#| fig-alt:`, only the labels of its axes"
        )
        assert picture_size(kind, data)
