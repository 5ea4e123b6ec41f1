# Two commands for a fresh machine with Python 3.11 or newer: `make grid` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup grid test slow coverage mutants lint types bench clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fixedbias needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

grid: setup
	$(BIN)/python -m bench.grid --quick

# One process per core; then those tests that want the machine for themselves.
QUICK := not slow and not gpu
PARALLEL := --maxprocesses 8 --dist worksteal --benchmark-disable --numprocesses
# Slow tests wait for processes that they start, and for time to pass: one more than cores.
MORE := $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')

test: setup
	$(BIN)/python -m pytest -m "$(QUICK) and not alone" $(PARALLEL) logical
	$(BIN)/python -m pytest -m "$(QUICK) and alone"

slow: setup
	$(BIN)/python -m pytest -m "slow and not alone" $(PARALLEL) $(MORE)
	$(BIN)/python -m pytest -m "slow and alone"

# Of both packages, processes that tests start included. PYTEST_ARGS="-m 'not gpu'" adds slow tests.
coverage: setup
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered $(PYTEST_ARGS)

# Stops and goes on where it was; `mutmut browse` shows the survivors.
mutants: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[mutants]'
	$(BIN)/python -m mutmut run
	$(BIN)/python -m mutmut results

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m pytest bench --benchmark-only

clean:
	rm -rf $(VENV) build dist *.egg-info
