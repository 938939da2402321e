# What people and CI run, and nothing else. Every target makes the environment it needs.
#   PYTHON=/path/to/python3.11 make test      with another interpreter
#   PIP_EXTRA_INDEX_URL=... make test         with a further package index, such as PyTorch's CPU builds

PYTHON ?= python3.11
VENV ?= .venv
export PYTHON VENV

.DEFAULT_GOAL := help
.PHONY: help install demo test lint docs clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: ## Make or renew the environment
	@scripts/install.sh

demo: install ## Run the life of a workspace on the pocket model, in a few minutes
	@PATH="$(abspath $(VENV))/bin:$$PATH" scripts/demo.sh

test: lint ## Run everything that has to pass: linters, types, documentation, tests
	@OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses=2 --dist=loadfile --quiet

lint: install ## Check style, types and the generated documentation
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/python scripts/generate_cli_docs.py --check
	@$(VENV)/bin/python scripts/embed_workspace.py --check

docs: install ## Write docs/cli.md and the repository's own workspace anew
	@$(VENV)/bin/python scripts/generate_cli_docs.py
	@$(VENV)/bin/python scripts/embed_workspace.py

clean: ## Remove the environment, the caches and the demo
	rm -rf "$(VENV)" demo build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
