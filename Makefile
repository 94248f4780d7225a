# make demo | demo-kd | test | test-fast | lint | bench | clean    each target creates the environment that it needs
#   make test PYTEST_ARGS="tests/tools -k python"    one part of the tests
#   make test-fast                                   the fast tests, in less than two minutes
#   make test ONEFLOW=0.8.0                          the same tests on OneFlow 0.8.0, in a separate environment
#   make demo PYTHON=/path/to/python3.10             with this Python instead of the first suitable one

ONEFLOW ?= 0.9.0
PYTHON ?=
PYTEST_ARGS ?= tests
DEMO_ARGS ?=

ifeq ($(ONEFLOW),0.9.0)
VENV := .venv
REQUIREMENTS := requirements.txt
else
VENV := .venv-$(ONEFLOW)
REQUIREMENTS := requirements-$(ONEFLOW).txt
endif
RUN := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-kd test test-fast lint bench clean

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

# Runs before every target; quick if the environment is up to date.
setup:
	@PYTHON="$(PYTHON)" tools/setup_environment.sh "$(VENV)" "$(REQUIREMENTS)" requirements-dev.txt requirements-extras.txt

demo: setup
	@$(RUN) tools/fetch_demo_model.py
	@$(RUN) tools/demo.py $(DEMO_ARGS)

demo-kd: setup
	@$(RUN) tools/fetch_demo_model.py
	@$(RUN) tools/demo_kd.py $(DEMO_ARGS)

# OneFlow keeps the memory of each graph until its process ends, so the whole suite runs in two parts.
test: setup
ifeq ($(PYTEST_ARGS),tests)
	$(RUN) -m pytest tests/modeling tests/recipes
	$(RUN) -m pytest tests --ignore tests/modeling --ignore tests/recipes
else
	$(RUN) -m pytest $(PYTEST_ARGS)
endif

test-fast: setup
	$(RUN) -m pytest -m "not slow" $(PYTEST_ARGS)

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# Set BENCH_TORCH_PYTHON to a Python with torch and transformers to measure PyTorch too.
bench: setup
	@$(RUN) tools/fetch_demo_model.py
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(RUN) "$$script" || exit 1; done

# Does not remove models/ and output/, which contain the user's downloads and results.
clean:
	rm -rf .venv .venv.lock .venv-* .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
