# Everything a person or CI does with the checkout. `make help` lists it; ARGS passes options on: make test ARGS="-k drift".
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
.DEFAULT_GOAL := help
.PHONY: help setup demo fmt lint types test test-cluster bench docs check clean image envtest

help: ## Show these targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.installed ## Make .venv with the locked dependencies; instant when nothing changed.

.venv/.installed: requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv .venv && $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . && touch $@

demo: setup ## Run a hub with nine simulated clusters until Ctrl-C (ARGS=--once ends by itself).
	$(BIN)/fleet demo $(ARGS)

fmt: setup ## Format the code and fix what can be fixed.
	$(BIN)/ruff check --quiet --fix-only .
	$(BIN)/ruff format .

lint: setup ## Check style, format and the import contracts.
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

types: setup ## Check types, strictly.
	$(BIN)/mypy

test: setup ## Run all tests; those against real API servers run where `make envtest` ran.
	$(BIN)/pytest $(ARGS)

test-cluster: setup envtest ## Run what needs real API servers only.
	$(BIN)/pytest -m cluster $(ARGS)

bench: setup envtest ## Measure the budgets against a real API server.
	$(BIN)/python -m bench $(ARGS)

docs: setup ## Write the generated reference pages, then check every page.
	$(BIN)/python tools/reference.py
	$(BIN)/python tools/docs.py

check: lint types ## What CI runs: style, types, import contracts, docs, all tests.
	$(BIN)/python tools/docs.py
	$(BIN)/pytest $(ARGS)

clean: ## Remove what make made, but no data directory of a hub.
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

image: ## Build the container image.
	docker build --tag fleet:latest .

envtest: ## Build real API servers for tests, once per user; the last line is their directory.
	@$(PYTHON) tools/envtest/build.py $(if $(CI),--optional)
