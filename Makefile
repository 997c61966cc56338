# `make train` and `make test` do all the set-up themselves; `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
BENCH_STAMP := .venv-bench/.installed
DOCS_STAMP := .venv-docs/.installed
EXTRAS_STAMP := .venv-extras/.installed
RUN := runs/quickstart/trust-region/seed-0
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help install train smoke view test test-faults test-extras check wheel bench docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

train: $(STAMP) ## set up, then train the quickstart curriculum, render its videos and write its report
	@$(BIN)/reconverge train --preset quickstart --overwrite --output-dir $(RUN)

smoke: $(STAMP) ## train a tiny curriculum from end to end, in seconds
	@$(BIN)/reconverge train --preset smoke --overwrite --output-dir runs/smoke/trust-region/seed-0

view: $(STAMP) ## watch the runs below runs/ on a local page
	@$(BIN)/reconverge view runs --open

test: $(STAMP) check ## set up, then lint, type-check and test
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 $(PYTEST_ARGS)

test-faults: $(STAMP) ## kill, damage and fill up the disk at every point; prints what was survived (docs/reliability.md)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 -m faults -rP $(PYTEST_ARGS)

test-extras: $(EXTRAS_STAMP) ## set up .venv-extras, then test what needs an optional library: Ray, ONNX, Minari, LeRobot, TensorBoard, a browser, the digits
	@OMP_NUM_THREADS=1 .venv-extras/bin/python -m pytest --numprocesses=auto --maxprocesses=2 -rs $(PYTEST_ARGS) $$(grep -l importorskip tests/*.py)

check: $(STAMP) ## lint and type-check only
	@$(BIN)/ruff check .
	@$(BIN)/mypy

wheel: $(STAMP) ## build the wheel, install it in a clean environment and use it there
	@bash .ci/wheel

bench: $(BENCH_STAMP) ## set up .venv-bench, then compare with pinned peers; BENCH_ARGS="update fisher --quick" for some
	@.venv-bench/bin/python -m benchmarks $(BENCH_ARGS)

docs: $(DOCS_STAMP) ## build the documentation into site/ and check every link; open site/index.html
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet
	@echo "built: site/index.html"

install: $(STAMP) ## set up .venv
	@echo "ready: $(BIN)/reconverge --help"

clean: ## remove the environments, caches and built files; runs are kept
	rm -rf .venv .venv-wheel .venv-bench .venv-docs .venv-extras site dist build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(STAMP): requirements.lock pyproject.toml .ci/install .ci/environment
	@bash .ci/install
	@touch $@

$(BENCH_STAMP): requirements.lock pyproject.toml .ci/environment benchmarks/install benchmarks/requirements.lock
	@bash benchmarks/install
	@touch $@

$(DOCS_STAMP): .ci/environment docs/install docs/requirements.lock
	@bash docs/install
	@touch $@

$(EXTRAS_STAMP): requirements.lock pyproject.toml .ci/environment .ci/install-extras
	@bash .ci/install-extras
	@touch $@
