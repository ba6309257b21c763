# Needs Python 3.11, git and make. `make` alone lists the targets.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done

.DEFAULT_GOAL := help
.PHONY: lerobot-check rerun-check help setup demo test test-slow check bench bench-peers bench-reverb soak

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with everything in it; done once, again when pyproject.toml changes

$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
		echo "make: $(PYTHON) not found. PyBullet has wheels up to Python 3.11; install it, or say make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --no-input --progress-bar off -e '.[fleet,sim,train,scale,dev]'
	@touch $@

demo: $(STAMP) ## the whole job end to end in less than 8 minutes; prints where its report is
	@$(BIN)/flexor demo

test: $(STAMP) ## the tests; the last line is pytest's
	@$(BIN)/pytest -m "not slow and not hardware"

test-slow: $(STAMP) ## minutes of training and soaking
	@$(BIN)/pytest -m "slow and not hardware"

soak: $(STAMP) ## 10 million records through 1,000 faults, counted by an oracle; goes on where it was cut off
	@$(BIN)/python tests/fleet_soak.py --resume

check: $(STAMP) ## linter, formatter and type checker
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(STAMP) ## the figures this project quotes, measured on this machine
	@$(BIN)/flexor bench sim

bench-peers: ## the peers' environment, for `flexor bench sim --peers`
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --disable-pip-version-check -q gymnasium-robotics "gymnasium[mujoco]" "mujoco<3.4"

# What reading a dataset needs of lerobot, without its robots, simulators and video; torch as this project pins it.
LEROBOT := lerobot==0.4.4
LEROBOT_NEEDS := torch==2.13.0 torchvision==0.28.0 "datasets>=4,<5" "huggingface-hub>=0.34.2,<0.36" "av>=15,<16" "draccus==0.10.0" \
	accelerate deepdiff einops fsspec jsonlines packaging pandas pillow termcolor

lerobot-check: $(STAMP) ## the real lerobot, in an environment of its own (1.5 GB), reads an exported dataset
	test -x .venv-lerobot/bin/python || $(PYTHON) -m venv .venv-lerobot
	.venv-lerobot/bin/pip install --disable-pip-version-check -q --no-deps $(LEROBOT)
	.venv-lerobot/bin/pip install --disable-pip-version-check -q $(LEROBOT_NEEDS)
	@$(BIN)/pytest -m slow tests/test_fleet_exports.py

rerun-check: $(STAMP) ## the real Rerun, in an environment of its own (790 MB), reads a flight recording
	test -x .venv-rerun/bin/python || $(PYTHON) -m venv .venv-rerun
	.venv-rerun/bin/pip install --disable-pip-version-check -q "rerun-sdk==0.41.*"
	@$(BIN)/pytest -m slow tests/test_flight.py

bench-reverb: ## Reverb's environment (1.2 GB), for `flexor bench fleet --peers`; it needs Python 3.11 or older
	$(PYTHON) -m venv .venv-reverb
	.venv-reverb/bin/pip install --disable-pip-version-check -q tensorflow-cpu==2.15.1 dm-tree portpicker "setuptools<81"
	.venv-reverb/bin/pip install --disable-pip-version-check -q --no-deps dm-reverb==0.14.0
