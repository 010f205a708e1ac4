"""What the site says where something is missing, or no Python."""

import subprocess
import sys

import pytest

from bayesbinn_nb.site import build, pictures, quarto, reference, render, visible
from bayesbinn_nb.site.pages import SiteError, site_config


def test_what_is_not_installed_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    with pytest.raises(SiteError, match="Quarto is not installed .*use='nbconvert' renders the same pages"):
        build._renderer("quarto")
    monkeypatch.setitem(sys.modules, "nbconvert", None)
    with pytest.raises(SiteError, match=r"nbconvert is not installed: pip install 'bayesbinn_nb\[site\]'"):
        build._renderer("auto")
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(SiteError, match="MathJax is not installed.*pip install sphinx-mathjax-offline"):
        build.mathjax_file()


def test_a_list_of_pages_that_is_no_yaml(tmp_path):
    (tmp_path / "_quarto.yml").write_text("website: [")
    with pytest.raises(SiteError, match="_quarto.yml cannot be read as YAML"):
        site_config(tmp_path)


def test_quarto_that_ends_well_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(quarto.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, "", ""))
    with pytest.raises(SiteError, match="ended without error, but wrote no index.html"):
        quarto._call_quarto(tmp_path)


@pytest.mark.parametrize("source", ["def f(:", "x = (", "%magic"])
def test_a_cell_that_is_no_python_has_no_names(source):
    assert reference.reference_entries(source) == []
    assert not visible._only_imports(source)
    assert visible._helpers(source) == "Helpers"
    assert render._meaning(source) == source


@pytest.mark.parametrize("data", ["iVBORw0KGgo=", "not base 64 at al"])
def test_a_damaged_picture_has_no_size(data):
    "The first bytes of a PNG; what cannot be decoded"
    assert pictures.picture_size("image/png", data) is None
    assert pictures.size_attributes(data, "image/png") == ""
