# Everything needs only Python >= 3.11, make and pip: each target makes what it lacks.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint types bench clean

demo: $(VENV)/.stamp
	$(BIN)/celbo demo -o celbo_demo --overwrite

test: $(VENV)/.stamp-test lint types
	$(BIN)/python -m pytest -q -n auto --dist loadfile

lint: $(VENV)/.stamp-test
	$(BIN)/ruff check src tests benchmarks docs/make_compatibility.py docs/make_models.py
	$(BIN)/ruff format --check src tests benchmarks docs/make_compatibility.py docs/make_models.py

types: $(VENV)/.stamp-test
	$(BIN)/mypy

bench: $(VENV)/.stamp-test
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) celbo_demo .pytest_cache .ruff_cache .mypy_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "celbo needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .
	touch $@

$(VENV)/.stamp-test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[test]'
	touch $(VENV)/.stamp $@
