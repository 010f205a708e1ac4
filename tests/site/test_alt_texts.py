"""Every figure of the site is described in words, and has its size."""

from pathlib import Path

import nbformat
import pytest

from bayesbinn_nb.site.pages import Page, collect_pages, site_config
from bayesbinn_nb.site.pictures import picture_size
from bayesbinn_nb.site.render import shown_of

ROOT = Path(__file__).resolve().parents[2]


def pictures(page: Page) -> list[tuple[str, str, str]]:
    "(alt text, kind, data) of each picture of a page"
    found = []
    page.nb = nbformat.read(page.file, as_version=4)
    for cell in shown_of(page).cells:
        for output in cell.outputs if cell.cell_type == "code" else ():
            for kind, data in output.get("data", {}).items():
                if kind.startswith("image/"):
                    found.append((cell.metadata.site["alt"], kind, data))
    return found


PAGES = collect_pages(ROOT, site_config(ROOT))[0]  # those of the menu, run templates, and executed runs


def test_there_are_pictures_on_pages_of_every_kind():
    found = {page.source: len(pictures(page)) for page in PAGES}
    runs = [source for source in found if source.startswith("results/runs/")]
    assert sum(found.values()) - sum(found[run] for run in runs) >= 40
    assert not runs or sum(found[run] for run in runs) >= len(runs) / 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.source)
def test_figures_of_a_page_are_described_and_have_a_size(page):
    for alt, kind, data in pictures(page):
        where = f"a figure of {page.source}"
        assert len(alt) >= 30, f"{where} has the alt text {alt!r}: say in `#| fig-alt:` what is to be seen"
        assert not alt.startswith("Plot of "), f"{where} has no `#| fig-alt:`, only the labels of its axes"
        assert picture_size(kind, data)
