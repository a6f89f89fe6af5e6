# `make check` is the one definition of done. Everything runs in .venv, which is made when missing.
PYTHON ?= python3
BIN    := .venv/bin
READY  := .venv/.ready
# A process a core, each with one thread; the tests of a file stay together and share what they set up.
SPREAD ?= --numprocesses auto --dist loadfile
STYLE  ?= watercolor
MODEL  ?= 256
DEMO   := build/demo

# The environment of the published implementation.
define BESIDE
test -x .venv-parity/bin/python || $(PYTHON) -m venv .venv-parity
.venv-parity/bin/python -m pip install --quiet --constraint constraints.txt \
	accelerate diffusers numpy peft pillow pytest rich safetensors tokenizers torch transformers typer
endef

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help venv check test slow reference screenshots coverage fuzz parity against demo bench paired dist lock format clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

venv: $(READY)  ## make the environment in .venv

# The stamp is newer than what it was made from, or the environment is brought up to date.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

check: $(READY)  ## format, lint, types and tests: done means that this passes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SPREAD)

test: $(READY)  ## all tests but the slow ones, on as many cores as there are
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SPREAD)

slow: $(READY)  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

coverage: $(READY)  ## the tests, and which lines they never reach; fails below 90 %
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pytest-cov
	$(BIN)/python -m pytest --cov=styledrop_cli --cov-report=term:skip-covered --cov-fail-under=90

fuzz: $(READY)  ## spoiled files for every reader, 2,000 each, led by coverage; docs/lab/hostile_files.md has more
	$(BIN)/python -m pip install --quiet --constraint constraints.txt atheris
	$(BIN)/python tests/hostile/fuzz.py

parity:  ## compare with the published implementation, in an environment of its own (torchvision would break it)
	$(BESIDE)
	.venv-parity/bin/python -m pytest -m parity tests/models/test_clip.py tests/adapters/test_exchange.py tests/adapters/test_meissonic_lora.py tests/models/test_parity.py tests/models/test_meissonic_parity.py

against:  ## time and memory beside the published implementation, on random weights of its size (MODEL=256, meissonic, ...); half an hour or more
	$(BESIDE)
	PYTHONPATH=src .venv-parity/bin/python benchmarks/against_diffusers.py --model $(MODEL)

demo: $(READY)  ## learn the style of examples/watercolor.png and draw a sheet of pictures in it
	$(BIN)/styledrop train examples/$(STYLE).png --style "$(STYLE)" \
		-o $(DEMO)/$(STYLE).safetensors --overwrite
	$(BIN)/styledrop generate $(DEMO)/$(STYLE).safetensors \
		"a cat" "a teapot" "a house" "a rocket" -n 3 --seed 1 -o $(DEMO)

bench: $(READY)  ## time and memory of the everyday commands, and of a step
	$(BIN)/python benchmarks/bench.py

paired: $(READY)  ## one-picture adaptation judged against the truth, small; needs npm and the art of examples/pocket
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[pocket]'
	test -d corpus/art || $(BIN)/python examples/pocket/make_corpus.py --out corpus --parts art --sets fluent-emoji,fluent-emoji-flat,noto,twemoji
	$(BIN)/python benchmarks/against_truth.py styles --quick

dist: $(READY)  ## build the wheel and the source archive into dist/, install the wheel, and let it learn and draw
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist
	STYLEDROP_DIST=$(CURDIR)/dist $(BIN)/python -m pytest -q -m 'not network' tests/test_release.py

lock: $(READY)  ## write requirements.lock: every package with its exact version; asks the package index
	mkdir -p build
	$(BIN)/python -m pip install --quiet --dry-run --ignore-installed --report build/lock.json \
		--constraint constraints.txt '.[dev,pocket,svg]'
	$(BIN)/python tools/lock.py build/lock.json requirements.lock

reference: $(READY)  ## write docs/reference from the help of the commands
	$(BIN)/python tools/reference.py docs/reference

screenshots: $(READY)  ## write the pictures of docs/guide/studio.md; needs Chromium, and learns for some minutes first
	PYTHONPATH=benchmarks $(BIN)/python tools/screenshots.py docs/pictures

format: $(READY)  ## put the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove everything that was made here
	rm -rf .venv .venv-parity build dist .pytest_cache .mypy_cache .ruff_cache
