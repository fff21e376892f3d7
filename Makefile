# Everything needs only Python >= 3.11, make and pip: each target makes what it lacks.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test tutorials docs lint types bench bench-all clean

demo: $(VENV)/.stamp
	$(BIN)/celbo demo -o celbo_demo --overwrite

test: $(VENV)/.stamp-test lint types
	$(BIN)/python -m pytest -q -n auto --dist loadfile

tutorials: $(VENV)/.stamp-test
	$(BIN)/python -m pytest -q -n auto -m tutorials tests/docs

docs: $(VENV)/.stamp-docs
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/site
	@echo "The site is build/site/index.html"

lint: $(VENV)/.stamp-test
	$(BIN)/ruff check src tests benchmarks docs/*.py
	$(BIN)/ruff format --check src tests benchmarks docs/*.py

types: $(VENV)/.stamp-test
	$(BIN)/mypy

bench: $(VENV)/.stamp-test
	$(BIN)/python -m benchmarks

bench-all: $(VENV)/.stamp-test
	$(BIN)/python -m benchmarks --all

clean:
	rm -rf $(VENV) .venv-peer build docs/reference/generated celbo_demo .pytest_cache .ruff_cache .mypy_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "celbo needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .
	touch $@

$(VENV)/.stamp-test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[test]'
	touch $(VENV)/.stamp $@

$(VENV)/.stamp-docs: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[docs]'
	touch $(VENV)/.stamp $@
