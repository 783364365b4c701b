# `make help` lists the commands. Each one builds .venv first, with Python >= 3.11, git and make as all it needs.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
RUN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH" PYTHONPATH="$(CURDIR)/src" OMP_NUM_THREADS=1
WORKERS ?= 2

.PHONY: help reproduce ablation sweep test test-fast lint format schema docs lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

reproduce: $(READY) ## run whatever is not up to date: data, features, training, report
	@$(RUN) snakemake --cores all

ablation: $(READY) ## the variants that a data set lists under `ablation`, beside the methods they are variants of
	@$(RUN) snakemake --cores all ablation

sweep: $(READY) ## queue one experiment per value of a setting: make sweep OF=rank; without OF: what there is
	@$(RUN) python scripts/sweep.py $(OF)

test: $(READY) ## all tests, the slow ones included (some twenty minutes on two cores)
	@$(RUN) pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-fast: $(READY) ## the tests without the slow ones (two to three minutes on two cores)
	@$(RUN) pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow"

lint: $(READY) ## style, types and workflow rules
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy
	@$(RUN) snakefmt --check Snakefile workflow
	@$(RUN) snakemake --lint

format: $(READY) ## rewrite the code in the house layout
	@$(RUN) ruff check --fix-only .
	@$(RUN) ruff format .
	@$(RUN) snakefmt Snakefile workflow

schema: $(READY) ## write workflow/schemas/params.schema.json and docs/params.md from the dataclasses
	@$(RUN) python -m causalroute.schema

docs: $(READY) ## build the documentation into site/ (to read it: python -m http.server -d site)
	@$(RUN) NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

lock: ## newest versions that pyproject.toml allows -> constraints.txt
	@PYTHON="$(PYTHON)" UPGRADE=1 sh scripts/bootstrap.sh

clean: ## remove every result of runs; reports in git, .venv and caches stay
	rm -rf data counterfactuals features models runs logs benchmarks/out .snakemake

$(READY): pyproject.toml constraints.txt scripts/bootstrap.sh
	@PYTHON="$(PYTHON)" sh scripts/bootstrap.sh
