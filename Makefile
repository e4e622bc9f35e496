# One command each. `make test` is all that .ci/run runs; `make arena` is where a newcomer starts.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export OMP_WAIT_POLICY := PASSIVE# active waiting costs tenfold on shared cores
export PIP_DISABLE_PIP_VERSION_CHECK := 1

TIER ?= quick
JOBS ?= 2
ifndef PYTHON
PYTHON := $(shell for p in python3 python python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v "$$p" && break; done)
endif
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
REPRODUCTIONS := $(addprefix benchmarks/,anchors.py claims.py introductory.py ladder.py measure.py optimizers.py reproduce.py trials.py uplift.py zoo.py)
COMPARISONS := $(addprefix benchmarks/,anomalies.py disentangling.py few_labels.py fleet.py gaps.py imputation.py interval_coverage.py kills.py one_class.py restoration.py)
BENCHMARKS := $(filter-out $(REPRODUCTIONS) $(COMPARISONS),$(wildcard benchmarks/*.py))
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: help setup test fast slow gpu lint types format data arena reproduce zoo claims intro ladder bench docs clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z]+):.*## /\1\t/' | while IFS=$$'\t' read -r name what; do printf '  make %-10s %s\n' "$$name" "$$what"; done

setup: $(STAMP) ## a virtual environment in .venv with all that the project and its tests need

$(STAMP): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then echo "vaestro needs Python 3.11 or later and none was found; install one, or name it: make setup PYTHON=python3.12" >&2; exit 1; fi
	@if ! { $(BIN)/python -m pip --version || $(BIN)/python -m ensurepip; } >/dev/null 2>&1; then \
		"$(PYTHON)" -m venv --clear $(VENV) >/dev/null 2>&1 \
		|| { "$(PYTHON)" -m venv --clear --without-pip $(VENV) && "$(PYTHON)" -m pip --python $(BIN)/python install --quiet pip; } >/dev/null 2>&1 \
		|| { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment, for its venv or ensurepip module is missing; install it (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }; \
	fi
	@echo "installing vaestro and its pinned dependencies into $(VENV); a first time takes some minutes, most of them for torch"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

test: lint types fast ## all checks but the slow ones: lint, types, tests

fast: $(STAMP) ## the tests that take minutes at most, on two cores
	@$(PYTEST) -q -n $(JOBS)

slow: $(STAMP) ## the tests that train for real
	@$(PYTEST) -q -m slow

gpu: $(STAMP) ## the tests that need a CUDA device
	@$(PYTEST) -q -m gpu

lint: $(STAMP) ## ruff: rules and format
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "some files are not formatted; run: make format" >&2; exit 1; }

types: $(STAMP) ## mypy, strict
	@$(BIN)/python -m mypy

format: $(STAMP) ## ruff, writing
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format --quiet .

data: $(STAMP) ## MNIST into the cache, from whichever source answers
	@$(BIN)/vaestro data get mnist-dynamic || echo "no source of MNIST answers; the arena falls back to the 8x8 digits that scikit-learn carries"

arena: data ## eight entrants trained, judged and ranked, with report.html; TIER=quick (ten minutes) or standard
	@$(BIN)/vaestro arena run quick --tier $(TIER)

reproduce: data ## published numbers against ours: hours, written to results/
	@$(BIN)/python benchmarks/reproduce.py

zoo: data ## every recipe at equal time, two minutes a run: a row each in results/; hours
	@$(BIN)/python benchmarks/zoo.py --jobs $(JOBS)

claims: data ## what each method claims, at equal steps with three seeds: a verdict each in results/; hours
	@$(BIN)/python benchmarks/claims.py --jobs $(JOBS)

intro: data ## what introductory texts say, tested small: a verdict each in results/claims/; a quarter of an hour
	@$(BIN)/python benchmarks/introductory.py

ladder: data ## sharper images, one change at a time, with a picture in docs/pictures; about an hour
	@$(BIN)/python benchmarks/ladder.py --jobs $(JOBS)

bench: $(STAMP) ## the claims about speed and memory, measured here beside pythae and PyOD: about half an hour
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps pythae cloudpickle imageio tqdm
	@for script in $(BENCHMARKS); do echo "$$script"; $(BIN)/python "$$script"; done

docs: $(STAMP) ## the code blocks of README and docs/, run
	@$(PYTEST) -q tests/test_docs.py

clean: ## everything that make and the tools have made, but neither runs nor the arena
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
