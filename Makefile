# Every target that needs the environment makes it first, once: .venv is rebuilt only when its inputs change.
SHELL := /bin/bash
PYTHON ?= python3
PIP_ARGS ?=
ARGS ?=
VENV := .venv
RUN := $(VENV)/bin/python -m customresnet
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup fit demo lr-find report tensorboard bench test lint format

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  ARGS='...' goes to the command (make fit ARGS='--trainer.max_epochs 6'), PIP_ARGS='...' to pip, PYTHON=... picks Python"

setup: $(STAMP) ## Create .venv with everything (done by the other targets as needed)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@echo "Setting up $(VENV): on Linux this downloads about 3 GB (PyTorch with CUDA) and takes 6 GB on disk."
	@echo "Without a GPU a fraction of it is enough: pass PIP_ARGS='--extra-index-url URL' with the CPU index that pytorch.org's installation page names."
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_ARGS) --editable '.[dev]'
	@touch $(STAMP)

fit: $(STAMP) ## Find the learning rates and train CustomResNet on CIFAR-10 for 24 epochs
	$(RUN) fit $(ARGS)

demo: $(STAMP) ## See the whole path in a minute or two on scikit-learn's digits: no data to download, no GPU
	$(RUN) fit --config demo $(ARGS)

lr-find: $(STAMP) ## Run the LR range test alone: lr_find.png and lr_find.json
	$(RUN) lr-find $(ARGS)

report: $(STAMP) ## Explain the newest run on one page (another one: ARGS='--ckpt_path RUN')
	$(RUN) report --ckpt_path last $(ARGS)

tensorboard: $(STAMP) ## Show the curves of all runs in TensorBoard
	$(VENV)/bin/tensorboard --logdir lightning_logs $(ARGS)

bench: $(STAMP) ## Measure speed beside other loops and the machine's limit (QUICK=1: a short look)
	$(VENV)/bin/python -m benchmarks.run $(if $(QUICK),--quick) $(ARGS)

test: $(STAMP) ## Run the test suite
	$(VENV)/bin/python -m pytest $(ARGS)

lint: $(STAMP) ## Check style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(STAMP) ## Format the code
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
