# Every target sets up what it needs first: a virtual environment in .venv, exactly as requirements.lock has it.

EXPERIMENT ?= experiments/quickstart.yaml
STUDY ?= experiments/study.yaml
ARGS ?=
ROOT ?= mlruns
PORT ?= 5000
OUT ?= $(ROOT)
NAME ?= throughput
BASE_PYTHON ?= $(firstword $(foreach python,python3.11 python3.12 python3.13 python3,$(shell command -v $(python) 2>/dev/null)))

BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq

.DEFAULT_GOAL := help
.PHONY: help setup run drill rungs tune test lint ui compare bench clean

help:  ## prints this list
	@sed -n 's/^\([a-z]*\):.*##/make \1\t/p' Makefile | expand -t 14

setup: $(READY)  ## sets up the virtual environment, from requirements.lock

$(READY): requirements.lock pyproject.toml
	@$(BASE_PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "Python 3.11, 3.12 or 3.13 is needed, found: $(BASE_PYTHON). Name another: make setup BASE_PYTHON=…" >&2; exit 1; }
	@echo "setting up .venv (a few minutes, once)"
	@$(BASE_PYTHON) -m venv .venv
	@$(PIP) install --no-compile "$$(grep -o '^torch==[0-9.]*' requirements.lock)"
	@$(PIP) install --no-compile --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true  # on all cores, while pip uses one; some files are for a later Python
	@PYTHONWARNINGS=ignore $(PIP) install --no-deps --no-build-isolation -e .
	@touch $(READY)

run: $(READY)  ## runs one experiment, unattended: make run [EXPERIMENT=experiments/nethack.yaml] [ARGS="key.sub=value …"]
	@$(BIN)/ladder run $(EXPERIMENT) $(ARGS)

drill: $(READY)  ## shows the ladder at work: a run that really fails, step by step
	@$(BIN)/ladder run experiments/drill.yaml $(ARGS)

rungs: $(READY)  ## trains every rung to its end with the same seeds, to compare them: make rungs [ARGS="training.seed=[1,2,3,4,5]"]
	@$(BIN)/ladder run experiments/compare_rungs.yaml $(ARGS)

tune: $(READY)  ## lets Optuna tune the coefficients: make tune [STUDY=experiments/study.yaml] [ARGS="study.trials=60"], then ARGS="--validate 6"
	@$(BIN)/ladder tune $(STUDY) $(ARGS)

test: $(READY)  ## runs the test suite: make test [ARGS="-k resume"]
	@$(BIN)/python -m compileall -q pipeline fallbacks tests  # the tests start hundreds of processes
	@$(BIN)/python -m pytest -n 3 --dist loadgroup $(ARGS)

lint: $(READY)  ## checks style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

ui: $(READY)  ## serves the MLflow UI on http://127.0.0.1:5000, and prints where in it the newest experiment is: make ui [PORT=…] [ROOT=mlruns]
	@exec $(BIN)/ladder ui --port $(PORT) "tracking.root=$(ROOT)"

compare: $(READY)  ## shows what happened in the newest experiment, as a table and a page: make compare [ROOT=mlruns] [OUT=mlruns] [ARGS=PARENT_RUN_ID]
	@$(BIN)/ladder compare $(ARGS) "tracking.root=$(ROOT)" --out "$(OUT)"

bench: $(READY)  ## runs a benchmark: make bench [NAME=throughput|learning|detection|recovery|survival|tuning|latency|plateau] [ARGS="--seeds 3 …"]
	@$(BIN)/python -m benchmarks.$(NAME) $(ARGS)

clean:  ## removes the virtual environment and caches; never a result
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache *.egg-info
