"""Packaging of bayesbinn_nb. The names, the version and the library's requirements are read from settings.ini."""

import re
import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
cfg = ConfigParser(delimiters=["="])
cfg.read(ROOT / "settings.ini", encoding="utf-8")
cfg = cfg["DEFAULT"]

EXTRAS = {
    # drawing figures
    "plots": ["matplotlib", "seaborn"],
    # running templates and suites with the `bayesbinn` command
    "repro": ["matplotlib", "seaborn", "papermill", "nbformat", "ipykernel", "scipy", "pillow"],
    # fused loops for the optimiser's passes on a CPU, compiled once and kept on disk
    "fast": ["numba"],
    # ONNX files of trained networks, and the runtime that executes them
    "deploy": ["onnx", "onnxruntime"],
    # what two of the how-to pages show
    "howto": ["lightning", "accelerate"],
    # training loggers
    "loggers": ["tensorboard", "wandb"],
}
EXTRAS["site"] = EXTRAS["repro"] + ["nbconvert", "sphinx-mathjax-offline"]
EXTRAS["cluster"] = EXTRAS["repro"] + ["dask", "distributed", "dask-jobqueue"]
EXTRAS["dev"] = (
    EXTRAS["site"]
    + EXTRAS["fast"]
    + EXTRAS["deploy"]
    + EXTRAS["howto"]
    + EXTRAS["cluster"]
    + [
        "jupyterlab",
        "nbdev>=2.4,<3",
        "execnb<0.2",
        "fastcore<1.13",
        "ghapi<2",
        "sympy",
        "pytest",
        "pytest-xdist",
        "pytest-timeout",
        "coverage",
        "ruff",
        "basedpyright",
        "tensorboard",
        "build",
        "setuptools>=70.1",  # builds wheels by itself; the test of what is shipped builds without a network
    ]
)


class BuildWithNotebooks(build_py):
    """Ship the run templates, the suites and the published numbers (nbs/experiments) inside the wheel."""

    def run(self):
        super().run()
        if getattr(self, "editable_mode", False):
            return
        source, target = ROOT / "nbs" / "experiments", Path(self.build_lib) / "bayesbinn_nb" / "experiments"
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "_*"))


def long_description():
    """The README with links that work on an index page, which knows nothing of the files beside it."""
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""

    def absolute(found):
        picture, label, target = found.groups()
        if re.match(r"[a-z][a-z0-9+.-]*:|#", target):
            return found[0]
        return f"{picture}[{label}]({cfg['git_url']}/{'raw' if picture else 'blob'}/{cfg['branch']}/{target})"

    text = re.sub(r'(<img[^>]* src=")(?!https?://)', rf"\g<1>{cfg['git_url']}/raw/{cfg['branch']}/", text)
    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", absolute, text)


setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    keywords=cfg["keywords"],
    author=cfg["author"],
    author_email=cfg["author_email"],
    license="MIT",
    # pyproject.toml, which nbdev writes, declares these as dynamic, so they must be set here
    url=cfg["git_url"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    long_description=long_description(),
    long_description_content_type="text/markdown",
    packages=find_packages(include=["bayesbinn_nb", "bayesbinn_nb.*"]),
    package_data={"bayesbinn_nb": ["py.typed", "networks/*"]},
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg["requirements"].split(),
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["bayesbinn=bayesbinn_nb.repro.cli:main"]},
    cmdclass={"build_py": BuildWithNotebooks},
    zip_safe=False,
)
