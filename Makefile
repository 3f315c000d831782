# What a contributor types. `make` lists it; CONTRIBUTING.md says when.
VENV ?= .venv
export VENV
SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help test slow lint docs hooks quickstart wheel

help:  ## this list
	@awk -F ':  ## ' '/^[a-z]+:  ## / {printf "make %-12s%s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

test:  ## the environment, ruff, mypy and the default tests; minutes on two cores
	scripts/test.sh

slow:  ## the tests that train and predict end to end; an hour
	scripts/test.sh -m slow -n 0

lint:  ## ruff and mypy alone, and the blocks that bundles share
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy
	$(VENV)/bin/python scripts/sync_bundles.py --check

docs:  ## the site, strictly: build/site/index.html
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt mkdocs mkdocs-material "mkdocstrings[python]"
	$(VENV)/bin/python -m mkdocs build --strict

hooks:  ## run ruff before each commit
	$(VENV)/bin/python -m pip install --quiet pre-commit && $(VENV)/bin/pre-commit install

quickstart:  ## synthetic subjects, a training, predictions with pages; 10 minutes
	scripts/quickstart.sh

wheel:  ## a wheel with the bundles, in dist/
	$(VENV)/bin/python -m pip wheel . --no-deps --wheel-dir dist
