# Two commands do everything on a fresh machine with Python 3.11 to 3.13: `make demo` and `make test`.
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint lock clean
SHELL := /bin/bash
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$python && break; done)
VENV := .venv
STUDIO := .venv-label-studio
TOOLS := .venv-tools
# Testing processes: tests wait for servers that they start, but those need the cores, too.
TESTERS ?= 3
export PYTHON TOOLS

help:
	@echo "make demo    the whole product on this machine, with a real Label Studio (ONCE=1: verify and end)"
	@echo "make test    all tests (ARGS=... goes to pytest; TESTERS=0 for one process)"
	@echo "make lint    ruff and mypy"
	@echo "make setup   both environments: $(VENV) (ours) and $(STUDIO)"
	@echo "make lock    compile requirements/*.txt anew"
	@echo "make clean   remove the environments and everything else that was made"

setup: $(VENV)/.synced $(STUDIO)/.synced $(STUDIO)/empty.sqlite3

# The stamps make a second call instant; a lock that changed is newer than its stamp.
$(VENV)/.synced: requirements/dev.txt requirements/tools.txt pyproject.toml scripts/environment.sh
	@scripts/environment.sh $(VENV) requirements/dev.txt
	@scripts/environment.sh $(VENV) --project
	@touch $@

$(STUDIO)/.synced: requirements/label-studio.txt requirements/tools.txt scripts/environment.sh
	@scripts/environment.sh $(STUDIO) requirements/label-studio.txt
	@touch $@

# A database with all of Label Studio's migrations: with a copy of it every start takes seconds.
$(STUDIO)/empty.sqlite3: $(STUDIO)/.synced
	@echo "Preparing Label Studio's database"
	@rm -rf $(STUDIO)/empty && LABEL_STUDIO_BASE_DATA_DIR=$(STUDIO)/empty LABEL_STUDIO_LATEST_VERSION_CHECK=false \
		LABEL_STUDIO_SENTRY_DSN= LABEL_STUDIO_COLLECT_ANALYTICS=false $(STUDIO)/bin/label-studio version \
		>$(STUDIO)/empty.log 2>&1 || { cat $(STUDIO)/empty.log; exit 1; }
	@mv $(STUDIO)/empty/label_studio.sqlite3 $@ && rm -rf $(STUDIO)/empty $(STUDIO)/empty.log

demo: setup
	@$(VENV)/bin/boxlift demo $(if $(filter-out 0,$(ONCE)),--once) $(ARGS)

test: setup
	@$(VENV)/bin/python -m pytest -n $(TESTERS) --dist loadscope --no-loadscope-reorder $(ARGS)

lint: $(VENV)/.synced
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

COMPILE = scripts/environment.sh --uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header
lock:
	$(COMPILE) --override requirements/overrides.txt --all-extras --group dev pyproject.toml -o requirements/dev.txt
	$(COMPILE) --override requirements/overrides.txt -c requirements/dev.txt pyproject.toml -o requirements/backend.txt
	$(COMPILE) --override requirements/overrides.txt -c requirements/dev.txt --extra worker pyproject.toml -o requirements/worker.txt
	$(COMPILE) requirements/label-studio.in -o requirements/label-studio.txt
	$(COMPILE) requirements/tools.in -o requirements/tools.txt

clean:
	rm -rf $(VENV) $(STUDIO) $(TOOLS) .boxlift artifacts dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
