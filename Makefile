# Two commands do everything: `make run` and `make test`. Both need only Python 3.11+ with venv, and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
STAMP  := $(VENV)/.installed
LAMDATUI := $(BIN)/lamdatui

.PHONY: help install install-dev models test-models run test test-slow mutants mutants-named lint format clean
.DEFAULT_GOAL := help

help:
	@echo "make run        install, fetch the embedded model, open the console on the quickstart"
	@echo "make test       install what tests need, then lint, types, import contracts and tests"
	@echo "make test-slow  the long proofs: kills at every fault point, the whole quickstart"
	@echo "make mutants    small faults in the modules that guard data: do their tests notice? (20 minutes)"
	@echo "make lint       ruff, basedpyright, import-linter"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: Python 3.11 or newer is needed; try: make PYTHON=python3.12 run"; exit 2; }
	@echo "== making $(VENV)"
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "error: python3 -m venv failed; on Debian: apt-get install python3-venv"; rm -rf $(VENV); exit 2; }

# torch first and alone: with it in place no other package asks for a build with CUDA libraries.
$(STAMP): $(BIN)/python pyproject.toml constraints.txt
	@$(BIN)/python -c 'import pip' 2>/dev/null || $(BIN)/python -m ensurepip >/dev/null # the making of $(VENV) was cut off
	@echo "== installing torch (the largest part)"
	@$(PIP) install --progress-bar on -c constraints.txt torch
	@echo "== installing lamdatui and what it stands on"
	@$(PIP) install --progress-bar on -c constraints.txt -e .
	@if command -v nvidia-smi >/dev/null; then \
	  echo "== an NVIDIA GPU: installing bitsandbytes"; \
	  $(PIP) install -c constraints.txt -e '.[qlora]' || exit 2; \
	  $(BIN)/python -c 'import sys, torch; sys.exit(torch.version.cuda is None)' \
	    || echo "== this torch has no CUDA: $(BIN)/pip install --force-reinstall torch==2.13.0"; \
	fi
	@touch $(STAMP)

install: $(STAMP)

$(VENV)/.installed-dev: $(STAMP)
	@command -v cc >/dev/null || command -v gcc >/dev/null \
	  || { echo "error: a C compiler is needed (reasoning-gym's pycosat is built from source); on Debian: apt-get install gcc python3-dev"; exit 2; }
	@echo "== installing what tests need"
	@$(PIP) install --progress-bar on -c constraints.txt -e '.[dev]'
	@touch $@

install-dev: $(VENV)/.installed-dev

models: $(STAMP)
	@echo "== the embedded model and the quickstart's data (fetched or made once, then kept in the user cache)"
	@$(LAMDATUI) models fetch quickstart-data-2 >/dev/null
	@$(LAMDATUI) models fetch smollm2-135m-gguf >/dev/null

run: models
	@if [ -t 0 ] && [ -t 1 ]; then \
	  $(LAMDATUI) run quickstart --name quickstart; \
	else \
	  echo "== no terminal: the quickstart runs headless, in mode auto"; \
	  $(LAMDATUI) run quickstart --name quickstart --headless --mode auto && $(LAMDATUI) show quickstart; \
	fi

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

test-models: $(STAMP)
	@echo "== the lab's bases, the embedded model and its data (made or fetched once)"
	@$(LAMDATUI) models fetch lab-bases >/dev/null
	@$(LAMDATUI) models fetch quickstart-data-2 >/dev/null
	@$(LAMDATUI) models fetch smollm2-135m-gguf >/dev/null

# Two at a time: most tests wait for a process or a screen. A file stays on one worker, so what its tests share is made once.
test: lint test-models
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/.installed-dev test-models
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow --timeout 3600

# Each fault is put into a copy of the checkout, which is removed afterwards; tests/mutants.toml explains the ones that may survive.
mutants: $(VENV)/.installed-dev test-models mutants-named
	$(BIN)/python -m tests.mutants

mutants-named: $(VENV)/.installed-dev test-models
	$(BIN)/python -m tests.mutants --named

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
