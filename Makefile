# make install | train | test | soak | lint | bench        see README.md

PYTHON ?= python3
# Any torch from 2.6 on will do; the README says how to choose another build.
TORCH ?= torch==2.13.0
RANKS ?= $(shell echo $$(( $$(nproc) + 1 )))
BIN := .venv/bin

.PHONY: install train test soak lint bench clean

install: $(BIN)/.installed

$(BIN)/python:
	$(PYTHON) -m venv .venv

# torch comes first and alone, so that no other package can choose a build of several gigabytes.
$(BIN)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --editable '.[mpich]'
	touch $@

$(BIN)/.installed-dev: $(BIN)/.installed
	$(BIN)/pip install --quiet --editable '.[mpich,dev]'
	touch $@

# One rank for each core, and one for the master, which is idle.
train: install
	$(BIN)/epg train configs/quickstart.yaml --run runs/quickstart --ranks $(RANKS)
	$(BIN)/epg evaluate runs/quickstart/best.safetensors --task random-cart-pole \
		--lifetimes 64 --baselines ppo,random --out runs/quickstart/evaluation

test: $(BIN)/.installed-dev
	$(BIN)/python -m pytest --quiet -n 2

# Accidents at random moments: half an hour.
soak: $(BIN)/.installed-dev
	$(BIN)/python -m pytest --quiet -n 2 -m soak

lint: $(BIN)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/epg bench
	$(BIN)/epg bench --task half-cheetah --lifetimes 64
	$(BIN)/epg bench --farm

clean:
	rm -rf .venv
