PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest -n auto

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint format types reference examples screenshots samples bench bench-latency bench-accuracy kinds attack real figures oldest unchanged zoo check clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'

setup: $(READY)  ## make .venv and install pfp with what its development needs

# The stamp is newer than what it was made from, so this runs once, and again when a dependency changes.
# torch goes first and alone: everything after it then finds its build (CPU or other) already there.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt torch
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev]"
	touch $@

demo: setup  ## prune the sample network to half of its parameters and show the report
	$(BIN)/pfp compress samples/model.pt --calib samples/images --keep 0.5
	$(BIN)/pfp report

test: setup  ## run the tests but for the slow ones, as many at a time as cores
	$(PYTEST)

test-all: setup  ## run all tests, the slow ones too
	$(PYTEST) -m ""

lint: setup  ## check style, formatting and which package imports which
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo

format: setup  ## apply the formatting and the safe fixes
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: setup  ## check the types
	$(BIN)/mypy

reference: setup  ## write docs/reference.md from the command line, and docs/run.schema.json from the records
	$(BIN)/python docs/make_reference.py
	$(BIN)/python docs/make_schema.py

examples: setup  ## run the examples of the tutorial and README.md, and write what they print (about 7 minutes)
	$(BIN)/python docs/run_examples.py

screenshots: setup  ## make the pictures of the report page in the documentation again (needs Chromium)
	$(BIN)/python docs/make_screenshots.py

samples: setup  ## draw the sample images and train the sample network again (about 4 minutes)
	$(BIN)/python samples/make_samples.py

bench: setup  ## time and memory of each step of whole runs, beside other tools (about 10 minutes; continues)
	$(BIN)/python -m pip install -c constraints.txt -e ".[bench]"
	$(BIN)/python benchmarks/bench.py $(ARGS)

bench-latency: setup  ## how fast cut networks are, beside Torch-Pruning (about an hour on a quiet machine; continues)
	$(BIN)/python -m pip install -c constraints.txt -e ".[bench]"
	$(BIN)/python benchmarks/latency.py $(ARGS)

bench-accuracy: setup  ## accuracy beside that of other tools (hours; continues where it stopped)
	$(BIN)/python -m pip install -c constraints.txt -e ".[bench]"
	$(BIN)/python benchmarks/accuracy.py $(ARGS)

kinds: setup  ## small networks of the hard kinds, trained and cut (hours; continues where it stopped)
	$(BIN)/python benchmarks/kinds.py $(ARGS)

attack: setup  ## stop each command at every step and write, and 10,000 mutated files of every kind (about two hours)
	$(BIN)/python tests/attack/stops.py
	$(BIN)/python tests/attack/attack.py --only "started run" --cases 1000
	$(BIN)/python tests/attack/attack.py $(ARGS)

real: setup  ## trained networks through the whole command (about an hour; continues where it stopped)
	$(BIN)/python -m pip install -c constraints.txt -e ".[real]"
	$(BIN)/python -m pip install requests
	$(BIN)/python -m pip install --no-deps facenet-pytorch
	$(BIN)/python benchmarks/real.py $(ARGS)

figures: setup  ## int8 and float16 after pruning, and --max-drop, on trained networks (hours; continues where it stopped)
	$(BIN)/python -m pip install -c constraints.txt -e ".[real]"
	$(BIN)/python benchmarks/precision.py $(ARGS)
	$(BIN)/python benchmarks/max_drop.py $(ARGS)

# torch is named apart, to choose the build: `make oldest TORCH=2.13.0`. Left out: the sum of a FusedConv, on which
# onnxruntime 1.25 fails, and the count of the cases that a newer onnx brings.
TORCH  ?= 2.10
OLDEST := .venv-oldest/bin/python
oldest:  ## install the oldest releases that pyproject.toml allows, and run a part of the tests (about 10 minutes)
	test -x $(OLDEST) || $(PYTHON) -m venv .venv-oldest
	$(OLDEST) -m pip install "torch==$(TORCH)"
	$(OLDEST) -m pip install "torch==$(TORCH)" torchvision pytest hypothesis $$(sed -n '/^dependencies = /,/^]/s/^ *"\([a-su-z].*\|typer\)>=\(.*\)",/\1==\2/p' pyproject.toml)
	$(OLDEST) -m pip install --no-deps -e .
	$(OLDEST) -m pytest tests/onnx_io tests/exporting tests/cli tests/records tests/jobs/test_compress.py \
		-k "not sum and not has_a_case"

unchanged: setup  ## do the networks written now equal those of COMMIT, bit for bit? (about 9 minutes)
	$(BIN)/python benchmarks/unchanged.py $(COMMIT)

zoo: setup  ## networks of torchvision and timm through the engine (hours; continues where it stopped)
	$(BIN)/python benchmarks/zoo.py

check: lint types test-all  ## everything that must pass before a push

clean:  ## remove the environment, the caches and the run folders
	rm -rf $(VENV) build dist *.egg-info pfp-runs .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
