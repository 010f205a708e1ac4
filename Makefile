# Thin calls of the `bayesbinn` command and of pytest, which work without make once the package is installed.
PYTHON ?= python3
# how many tests or notebooks run side by side, one thread each: they are too small to share one between cores
JOBS ?= 2
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: help reproduce test check lint levels targets site lab clean
.DEFAULT_GOAL := reproduce

help:  ## say what can be made
	@echo "make reproduce is what plain make does. JOBS=$(JOBS) run side by side; the environment is $(VENV)."
	@sed -n 's/^\([a-z]*\):.*##\(.*\)/    make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20
	@echo "Continuous integration (.ci/run) promises: test, check and levels are green on two cores."

# The environment is rebuilt when what it is made from changes.
$(VENV)/.ready: setup.py settings.ini constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is %s (choose one: make PYTHON=python3.12)" % sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

reproduce: $(VENV)/.ready  ## run the quick suite and render the site
	$(BIN)/bayesbinn batch quick --jobs $(JOBS); status=$$?; $(BIN)/bayesbinn site && exit $$status

test: $(VENV)/.ready  ## run the test-suite
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

check: lint  ## package and notebooks in step, every documentation notebook runs, results pages show what their records say
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/nbdev_export
	git diff --exit-code -- bayesbinn_nb
	@new=$$(git ls-files --others --exclude-standard -- bayesbinn_nb); test -z "$$new" || { echo "exported, not committed: $$new"; exit 1; }
	$(BIN)/python -m bayesbinn_nb.repro.notebooks documentation --jobs $(JOBS)
	$(BIN)/python -m bayesbinn_nb.repro.notebooks pages --jobs $(JOBS)

lint: $(VENV)/.ready  ## formatting, lint and types, as pyproject.toml says (part of check)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/basedpyright --level error

levels: $(VENV)/.ready  ## numeric tests, and notebooks of math and methods, with the instructions of older processors
	$(BIN)/python tests/levels.py run --jobs $(JOBS)

targets: $(VENV)/.ready  ## measure the targets of speed on this machine, as ratios: met or not met
	$(BIN)/python -m bayesbinn_nb.library.targets

site: $(VENV)/.ready  ## render the site from what has been run
	$(BIN)/bayesbinn site

lab: $(VENV)/.ready  ## open the notebooks
	$(BIN)/jupyter lab nbs

clean:  ## delete what can be made again, but not the environment
	rm -rf _docs _proc _runs build *.egg-info
