# Two commands do everything on a fresh machine with Python 3.11 to 3.13: `make demo` and `make test`.
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint lock clean
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
STUDIO := .venv-label-studio
UV := $(shell command -v uv 2>/dev/null || echo $(VENV)/tools/bin/uv)

help:
	@echo "make demo    the whole product on this machine, with a real Label Studio (ONCE=1: verify and end)"
	@echo "make test    all tests"
	@echo "make lint    ruff and mypy"
	@echo "make lock    compile requirements/*.txt anew"

COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header
lock:
	$(COMPILE) --override requirements/overrides.txt --all-extras --group dev pyproject.toml -o requirements/dev.txt
	$(COMPILE) --override requirements/overrides.txt -c requirements/dev.txt pyproject.toml -o requirements/backend.txt
	$(COMPILE) --override requirements/overrides.txt -c requirements/dev.txt --extra worker pyproject.toml -o requirements/worker.txt
	$(COMPILE) requirements/label-studio.in -o requirements/label-studio.txt
