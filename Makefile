# `make demo` and `make test` need Python 3.11+, git and make; each sets up .venv by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench conformance soak clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## / — /'

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "GroundFault needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[demo]' --group dev
	@touch $@

demo: $(STAMP)  ## the Gronk spike on a real chain of services, three times; writes demo-report/ (about 3 minutes)
	$(BIN)/groundfault demo $(ARGS)

test: $(STAMP) lint  ## linters, types, contracts and every test (under 10 minutes)
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	$(BIN)/python -m pytest -n 3 --dist worksteal -m 'not e2e'  # these mostly wait for sockets
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'e2e and not (alone or long)'  # these mostly wait for processes
	$(BIN)/python -m pytest -m 'e2e and alone and not long'  # these measure, so they want the machine for themselves
endif

lint: $(STAMP)  ## ruff, mypy and the import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)  ## costs, accuracy and goodput, beside the peers in the same run (about twenty minutes)
	$(BIN)/python bench/breaker_cost.py
	$(BIN)/python bench/metrics_cost.py --quick
	$(BIN)/python bench/sink_cost.py --quick
	$(BIN)/python bench/adapter_cost.py --quick
	$(BIN)/python bench/shell_cost.py --quick
	$(BIN)/python bench/shed_cost.py --quick
	$(BIN)/python bench/wait_accuracy.py --trials 2
	$(BIN)/python bench/overload.py --quick
	$(BIN)/python bench/cascade.py --quick
	$(BIN)/python bench/settings_trouble.py --seconds 2
	$(BIN)/python bench/advise_speed.py --lines 1000000
	$(BIN)/python bench/console_observe.py
	$(BIN)/python bench/top_cost.py
	$(BIN)/python bench/generator_lag.py
	$(BIN)/python bench/simulator_speed.py

conformance: $(STAMP)  ## the field's hard cases, against every breaker installed (about 4 minutes)
	$(BIN)/python tests/conformance $(ARGS)

soak: $(STAMP)  ## ten times as many random cases, lost permits, ten minutes of fuzzing, then ten of chaos (about an hour)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --group soak
	$(BIN)/python -m pytest -m long
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -m 'not e2e' $(ARGS)
	$(BIN)/python soak/permits.py
	$(BIN)/python soak/fuzz_headers.py --seconds 600
	$(BIN)/python soak/chaos.py  # kills, faults and spoiled settings at eight times capacity; soak-report/ has the results

clean:  ## remove what the other targets made
	rm -rf $(VENV) build dist demo-report soak-report .mypy_cache .ruff_cache .pytest_cache .hypothesis
