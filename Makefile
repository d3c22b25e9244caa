# Two commands do everything: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements.lock

.PHONY: demo test test-slow lint types contracts setup lock wheel clean

demo: $(VENV)/.installed
	$(BIN)/gradscope demo

test: $(VENV)/.installed lint types contracts
	$(BIN)/python -m pytest

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow

setup: $(VENV)/.installed

$(VENV)/.installed: $(LOCK) pyproject.toml gradscope/measure/_host.c
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "GradScope needs Python 3.11 or newer: make PYTHON=python3.12 " + "$(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement $(LOCK)
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	mkdir -p build/types && ln -sfn ../../dashboard build/types/gradscope_dashboard
	$(BIN)/mypy

contracts: $(VENV)/.installed
	$(BIN)/lint-imports

lock:  # uv is needed for this alone: pip install uv
	uv pip compile --universal --python-version 3.11 --extra dev --no-emit-index-url --no-emit-find-links --quiet --output-file $(LOCK) pyproject.toml

wheel: $(VENV)/.installed
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) build dist *.egg-info gradscope/measure/*.so
