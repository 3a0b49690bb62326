# `make demo` and `make test` are all the set-up there is: both make .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two processes: compiling takes most of the time, on one core each.
PYTEST := $(BIN)/pytest -n 2 --dist worksteal
INSTALLED := $(VENV)/.installed
# Otherwise every command that a test starts would restart itself with this setting.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

# The quick tests compile thousands of programs that run once, which takes most of the time. LLVM does
# not optimize them, and XLA generates their code without MLIR, where jaxlib still has an option for
# this (an unknown option ends the process). The slow tests use JAX's defaults.
WITHOUT_MLIR := --xla_cpu_use_fusion_emitters=false
compile_fast = --xla_backend_optimization_level=0 $(shell XLA_FLAGS=$(WITHOUT_MLIR) \
	$(1)/python -c 'import jax; jax.devices()' 2> /dev/null && echo $(WITHOUT_MLIR))

PEERS := $(VENV)/.peers
# An environment with the lower bounds of all dependencies.
OLDEST := .venv-oldest
DOCS := $(VENV)/.docs
# npm packages for tests in Node and Chromium: the runtime that exported pages contain, and a driver.
WEB := $(VENV)/web
NPM_PACKAGES := onnxruntime-web@1 playwright-core@1

.PHONY: demo quick shapes test test-slow test-all test-oldest docs faults peers web lint format types release clean

demo: $(INSTALLED)
	$(BIN)/deeplab-jax demo --workdir=runs/demo

# Tests of the numerical building blocks, in about one minute.
quick: $(INSTALLED)
	$(PYTEST) -m "not slow" tests/losses tests/metrics tests/test_config.py tests/test_errors.py

# Checks the array types that the functions on arrays declare, in every call of their tests.
shapes: $(INSTALLED)
	$(PYTEST) -m "not slow" --check-shapes tests/ops tests/losses tests/metrics tests/crf

test: $(INSTALLED)
	XLA_FLAGS="$(call compile_fast,$(BIN)) $(XLA_FLAGS)" $(PYTEST) -m "not slow"

# One part of the slow tests, as in SHARD=2/8; all of them without it.
SHARD ?= 1/1
test-slow: $(INSTALLED)
	$(PYTEST) --shard=$(SHARD)

# With the other implementations that tests compare with; some of them are large.
test-all: $(PEERS) $(if $(shell command -v npm),web)
	$(PYTEST)

# The quick tests with exactly the lower bounds of setup.cfg, on Python 3.11 or 3.12. Old libraries
# use what newer ones deprecate.
test-oldest: $(OLDEST)/.installed
	XLA_FLAGS="$(call compile_fast,$(OLDEST)/bin) $(XLA_FLAGS)" \
	$(OLDEST)/bin/pytest -n 2 --dist worksteal -m "not slow" -W ignore::DeprecationWarning $(TESTS)

# The site, in build/docs; a warning or a broken internal link is an error.
docs: $(DOCS)
	$(BIN)/python docs/write_tables.py --check
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs

# Kills, damages and starves real runs, and counts what came of it; takes about an hour.
faults: $(INSTALLED)
	PYTHONPATH=tests/helpers $(BIN)/python tests/faults/run.py

peers: $(PEERS)

web: $(WEB)/.installed

# Checks style, docstrings, the English of all texts and generated type stubs; changes no file.
lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python docs/check_prose.py
	$(BIN)/python .ci/write_stubs.py --check

# Fixes what `make lint` reports and can be fixed mechanically.
format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python .ci/write_stubs.py

# Checks types, strictly and in all packages.
types: $(INSTALLED)
	$(BIN)/mypy

# Builds, checks, and tries the wheel in an environment that holds nothing else.
release: $(INSTALLED)
	$(BIN)/python -m pip install --quiet 'twine >= 6.1'
	rm -rf build dist
	$(BIN)/python -m build --quiet
	$(BIN)/twine check --strict dist/*
	$(BIN)/python .ci/try_release.py dist

clean:
	rm -rf $(VENV) $(OLDEST) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache

$(INSTALLED): setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "deeplab_jax needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

$(OLDEST)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --upgrade pip packaging
	$(OLDEST)/bin/python .ci/lower_bounds.py test > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/constraints.txt --editable '.[test]'
	touch $@

$(PEERS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[test,peers]'
	touch $@

$(WEB)/.installed: $(INSTALLED)
	npm install --silent --no-save --prefix $(WEB) $(NPM_PACKAGES)
	touch $@

$(DOCS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[test,docs]'
	touch $@
