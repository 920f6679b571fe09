# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
EXTRAS := $(if $(filter Darwin,$(shell uname -s)),dev,cpu,dev)
BIN := .venv/bin

.PHONY: setup demo check test test-all golden pairs peers bench

setup: .venv/ready

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; run make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	touch $@

demo: setup
	$(BIN)/mtp-mlx demo
	$(BIN)/mtp-mlx generate "Tell me a story about a fox and a hen." --seed 7 --stats < /dev/null

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check mtp_mlx
	$(BIN)/lint-imports
	$(BIN)/codespell

test: setup
	$(BIN)/pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-all: setup
	$(BIN)/pytest -n 2 --dist load --timeout 900

# Rebuilds the goldens in an environment of their own (torch and Transformers); identical files.
golden: .venv-golden/ready
	.venv-golden/bin/python tests/golden/make.py

# Trains the embedded pairs anew in that environment, one core each, and pins their files.
pairs: .venv-golden/ready
	$(MAKE) --jobs=2 pair-tiny pair-tiny-moe
	.venv-golden/bin/python -m training.export

pair-%: .venv-golden/ready
	.venv-golden/bin/python -m training.make $*

.venv-golden/ready: tests/golden/requirements.txt
	$(PYTHON) -m venv .venv-golden
	.venv-golden/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# What ours is measured beside, in an environment of its own: bench.side_by_side, start, ragged.
peers: .venv-peers/ready

.venv-peers/ready: bench/peers/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# Every bench on the built-in pairs, one table, one line of JSON each, and a plot in
# build/bench.png.
bench: setup peers
	$(BIN)/python -m bench.all
