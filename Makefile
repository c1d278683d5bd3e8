# make install | train | test | soak | lint | bench | replication | wheel        see README.md

PYTHON ?= python3
# Any torch from 2.6 on will do; the README says how to choose another build.
TORCH ?= torch==2.13.0
RANKS ?= $(shell echo $$(( $$(nproc) + 1 )))
BIN := .venv/bin

.PHONY: install train test soak lint bench replication wheel clean

install: $(BIN)/.installed

$(BIN)/python:
	$(PYTHON) -m venv .venv

# torch comes first and alone, so that no other package can choose a build of several gigabytes.
$(BIN)/.installed: pyproject.toml | $(BIN)/python
	@echo "install, 1 of 2: $(firstword $(TORCH)), unless .venv sees a torch: a minute, or as long as 3 GB take"
	@$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/pip install --quiet $(TORCH)
	@echo "install, 2 of 2: epg, in place, and what it needs: one to three minutes"
	@$(BIN)/pip install --quiet --editable '.[mpich,tensorboard]'
	@touch $@

$(BIN)/.installed-dev: $(BIN)/.installed
	@echo "install, for tests: what they need besides: a minute"
	@$(BIN)/pip install --quiet --editable '.[mpich,dev]'
	@touch $@

# One rank for each core, and one for the master, which is idle.
train: install
	$(BIN)/epg train configs/quickstart.yaml --run runs/quickstart --ranks $(RANKS)
	$(BIN)/epg evaluate runs/quickstart/best.safetensors --lifetimes 64 \
		--methods ppo,random,blind --out runs/quickstart/evaluation --ranks $(RANKS)

test: $(BIN)/.installed-dev
	$(BIN)/python -m pytest --quiet -n 3 --dist loadgroup

# Accidents at random moments, and each at every place: more than an hour.
soak: $(BIN)/.installed-dev
	$(BIN)/python -m pytest --quiet -n 2 --dist loadgroup -m soak

lint: $(BIN)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/epg bench
	$(BIN)/epg bench --task half-cheetah --lifetimes 64
	$(BIN)/epg bench --farm

# A2C with a learned γ: figures and tables in results/replication, in a few minutes.
replication: install
	OMP_NUM_THREADS=1 $(BIN)/python results/replication/run.py

# dist/epg-VERSION-py3-none-any.whl, for machines without a clone.
wheel: $(BIN)/.installed-dev
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

clean:
	rm -rf .venv
