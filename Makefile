# Two commands matter: `make run` (the main job) and `make test` (the whole suite).
# Everything lives in .venv and .demo; remove both with `make clean`.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-deps
# Tests that start daemons leave most of a core idle: three workers keep two cores busy.
WORKERS ?= 3
ROUNDS ?= 10
FRAMES ?= 10000000

.PHONY: help setup run test coverage explore crash fuzz check lint types arrows bench release-test lock clean
.DEFAULT_GOAL := help

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is missing; install it: apt install python3.11-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "make: the venv module is missing; install it: apt install python3.11-venv" >&2; exit 1; }

$(VENV)/.run: $(BIN)/python requirements/base.txt requirements/build.txt pyproject.toml hatch_build.py runloopd/bus/_gather.c
	@echo "setting up $(VENV) ..." >&2
	@$(PIP) --require-hashes -r requirements/base.txt -r requirements/build.txt
	@$(PIP) --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.txt
	@echo "adding the test tools ..." >&2
	@$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

setup: $(VENV)/.run ## Set up only: afterwards .venv/bin/rlp is there

run: $(VENV)/.run ## Set up and run the main job: import the examples, compose an e-mail, confirm, send
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh docs/examples/tour.sh

test: $(VENV)/.dev ## Run the whole test suite
	@$(BIN)/pytest --numprocesses=$(WORKERS) --dist=worksteal

coverage: $(VENV)/.dev ## The same, counting lines and branches: takes twice as long
	@rm -f .coverage .coverage.*
	@$(BIN)/pytest --numprocesses=$(WORKERS) --dist=worksteal --cov --cov-report=term:skip-covered

explore: $(VENV)/.dev ## Let the property tests look for new counter-examples, ROUNDS times
	@for round in $$(seq $(ROUNDS)); do \
	  HYPOTHESIS_PROFILE=explore $(BIN)/pytest --quiet --numprocesses=$(WORKERS) -m hypothesis || exit; done

crash: $(VENV)/.dev ## Kill two runs at every write of theirs, WORKERS at a time
	@$(BIN)/python -m tests.crash $(WORKERS)

fuzz: $(VENV)/.dev ## Fuzz the frame reader, guided by coverage, until FRAMES are judged
	@$(PIP) --require-hashes --target .fuzz --upgrade -r requirements/fuzz.txt
	@PYTHONPATH=.fuzz FRAMES=$(FRAMES) $(BIN)/python -m tests.fuzz.fuzz_frames

check: lint types arrows test ## Everything CI runs

lint: $(VENV)/.dev ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.dev ## mypy, strict
	@$(BIN)/mypy

arrows: $(VENV)/.dev ## import-linter: who may import whom
	@$(BIN)/lint-imports --no-cache

release-test: $(VENV)/.dev ## Packages, upgrades, machines, images, for real: as root, some hours
	@packaging/tests/all

bench: $(VENV)/.dev ## Run the benchmarks and print their figures
	@$(BIN)/python -m tests.bench

lock: ## Refresh the hash-locked requirements (needs uv; a 14-day cooldown applies)
	@for set in base build package deb dev; do \
	  case $$set in base) in="pyproject.toml";; deb) in="pyproject.toml --extra fast --extra keyring --extra vec";; build|package) in="requirements/$$set.in";; dev) in="pyproject.toml requirements/dev.in --extra fast --extra keyring --extra vec";; esac; \
	  uv pip compile --quiet --python-version 3.11 --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	    --custom-compile-command "make lock" --exclude-newer "$$(date -u -d '14 days ago' +%F)" $$in -o requirements/$$set.txt; done

clean: ## Remove the environment and the demo home
	@-[ -x $(BIN)/rlp ] && [ -d .demo ] && RUNLOOP_HOME="$(CURDIR)/.demo" $(BIN)/rlp daemon stop >/dev/null 2>&1
	@rm -rf $(VENV) .demo .fuzz
