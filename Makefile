# Every target sets up what it needs in .venv, from a bare checkout: Python 3.11 or later and a package index are enough.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Three at a time: half of the time is waiting for processes and sockets. A file stays together, since its tests share engines.
PYTEST := $(BIN)/python -m pytest -q -n 3 --dist loadfile
ALONE  := $(BIN)/python -m pytest -q -m alone

.PHONY: demo test test-core check lint bench schema clip clean help

help:            ## what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/words       ## play the bundled clip through the engine, in the console
	@$(BIN)/clser-stream --demo

test: $(VENV)/train       ## every test
	$(PYTEST) -m "not alone"
	$(ALONE)

test-core: $(VENV)/dev    ## every test that needs no torch
	$(PYTEST) -m "not torch and not alone"
	$(ALONE)

check: $(VENV)/train lint ## formatting, lint, types, import contracts, then every test
	$(PYTEST) -m "not alone"
	$(ALONE)

lint: $(VENV)/dev         ## what reads the code without running it
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=.typing $(BIN)/lint-imports --no-cache

bench: $(VENV)/dev        ## the short benchmarks
	$(BIN)/clser-bench latency --short
	$(BIN)/clser-bench capacity --streams 1,32,100 --seconds 15
	$(BIN)/clser-bench bus

schema: $(VENV)/base      ## engine/schema/ from the records
	$(BIN)/python -m clser.engine.wire

clip: $(VENV)/base        ## the bundled clip (needs espeak-ng)
	$(BIN)/python -m clser.clients.clips.make_demo

clean:           ## forget the environment and the caches
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/made:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/base: $(VENV)/made pyproject.toml
	$(PIP) -e .
	touch $@

$(VENV)/words: $(VENV)/base
	$(PIP) -e ".[sphinx]" || echo "pocketsphinx cannot be installed here: the demo runs without words"
	touch $@

$(VENV)/dev: $(VENV)/base
	$(PIP) -e ".[dev,sphinx,whisper]"
	touch $@

$(VENV)/train: $(VENV)/dev
	$(PIP) -e ".[dev,sphinx,train,whisper]"
	touch $@
