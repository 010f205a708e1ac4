# Thin calls of the `bayesbinn` command, which works without make once the package is installed.
PYTHON ?= python3
# run notebooks side by side, one thread each: the quick ones are too small to share a notebook between cores
JOBS ?= 2
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: reproduce test check site lab clean
.DEFAULT_GOAL := reproduce

# The environment is rebuilt when what it is made from changes.
$(VENV)/.ready: setup.py settings.ini constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is %s (choose one: make PYTHON=python3.12)" % sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

reproduce: $(VENV)/.ready  ## run the quick suite and render the site
	$(BIN)/bayesbinn batch quick --jobs $(JOBS); status=$$?; $(BIN)/bayesbinn site && exit $$status

test: $(VENV)/.ready  ## run the test-suite
	$(BIN)/python -m pytest

check: $(VENV)/.ready  ## notebooks and package in step, every documentation notebook runs
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/nbdev_export
	git diff --exit-code -- bayesbinn_nb
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/nbdev_test --n_workers 2

site: $(VENV)/.ready  ## render the site from what has been run
	$(BIN)/bayesbinn site

lab: $(VENV)/.ready  ## open the notebooks
	$(BIN)/jupyter lab nbs

clean:
	rm -rf _docs _proc _runs build *.egg-info
