# Every target sets up .venv first, once: it is rebuilt when pyproject.toml or the constraints change.
SHELL := /bin/bash
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
PIP_ARGS ?=
ARGS ?=
VENV := .venv
RUN := $(VENV)/bin/python -m customresnet
STAMP := $(VENV)/.installed
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup fit demo lr-find report tensorboard bench faults test lint format lock

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  ARGS='...' adds flags (make fit ARGS='--trainer.max_epochs 6'), PIP_ARGS='...' adds flags of pip, PYTHON=... chooses Python"

setup: $(STAMP) ## Create .venv with all dependencies (the other targets do this when needed)

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is required; $(PYTHON) is $$($(PYTHON) --version 2>&1). Choose another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@echo "Setting up $(VENV). On Linux this downloads about 3 GB (PyTorch with CUDA) and needs 6 GB of disk space."
	@echo "Without a GPU, the much smaller CPU build is enough: PIP_ARGS='--extra-index-url URL', with the CPU index given on pytorch.org's installation page."
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP_INSTALL) --constraint $(CONSTRAINTS) $(PIP_ARGS) --editable '.[dev]'
	@touch $(STAMP)

fit: $(STAMP) ## Find the learning rates, then train CustomResNet on CIFAR-10 for 24 epochs
	$(RUN) fit $(ARGS)

demo: $(STAMP) ## Run everything on scikit-learn's digits in a minute or two: no data to download, no GPU needed
	$(RUN) fit --config demo $(ARGS)

lr-find: $(STAMP) ## Run only the LR range test: lr_find.png and lr_find.json
	$(RUN) lr-find $(ARGS)

report: $(STAMP) ## Explain the newest run on one page (for another run: ARGS='--ckpt_path RUN')
	$(RUN) report --ckpt_path last $(ARGS)

tensorboard: $(STAMP) ## Show the curves of all runs in TensorBoard
	$(VENV)/bin/tensorboard --logdir lightning_logs $(ARGS)

bench: $(STAMP) ## Compare training speed with other loops and the machine's limit (QUICK=1 for a short run)
	$(VENV)/bin/python -m benchmarks.run $(if $(QUICK),--quick) $(ARGS)

faults: $(STAMP) ## Kill short runs at random instants, and check that they resume to the same end
	$(VENV)/bin/python -m experiments.faults $(ARGS)

test: $(STAMP) ## Run the test suite
	$(VENV)/bin/python -m pytest $(ARGS)

lint: $(STAMP) ## Check style, types and the direction of imports
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(STAMP) ## Format the code
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# Run `make lock` with the oldest supported Python, so that the versions install on all. It omits the packages that
# torch needs on one platform only (CUDA, Triton), and the tag of a CPU build.
TORCH := 2.14.1
lock: ## Update constraints.txt to the newest versions, and constraints-oldest.txt to the lower bounds of pyproject.toml
	venv=$$(mktemp -d) && trap "rm -r $$venv" EXIT && \
	$(PYTHON) -m venv $$venv && $$venv/bin/python $(PIP_INSTALL) $(PIP_ARGS) '.[dev]' 'torch<=$(TORCH)' && \
	$$venv/bin/python -m pip freeze --exclude customresnet > $$venv/frozen && \
	{ echo "# Versions tested together (make lock). pyproject.toml gives lower bounds only, so an installed torch can stay."; \
	grep -vE '^(nvidia-|cuda-|triton)' $$venv/frozen | sed 's/+.*//'; } > constraints.txt
	{ echo "# The lower bounds of pyproject.toml (make lock)."; \
	sed -nE 's/^ +"([A-Za-z0-9-]+)(\[.*\])?[>=]=([^",]+).*/\1==\3/p' pyproject.toml; } > constraints-oldest.txt
