# `make demo` and `make test` do all their set-up themselves. Only make, git and a Python 3.11 or newer must be there.
# Standard output belongs to the program that is run (`make demo ARGS="--output json"`); set-up speaks on standard error.

VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=
MAKEFLAGS += --no-print-directory
# The first that runs and is new enough: a name on PATH alone proves neither.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3.14 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)

.PHONY: demo plan test bench bench-serve screens soak lint format venv clean help

help:
	@echo "make demo [ARGS=...]   set up, then replay a year of flights on local servers (ARGS=--help for its options)"
	@echo "make plan [ARGS=...]   the demo's year (replayed first, if it was not) under five schedules: which one pays?"
	@echo "make test [ARGS=...]   set up, then run every test, on three processes (ARGS are pytest's)"
	@echo "make bench [ARGS=...]  set up, then measure headrace beside its peers (ARGS=--quick: minutes, not an hour)"
	@echo "make bench-serve       set up, then measure headrace serve beside MLServer, BentoML and LitServe (needs wrk and cargo)"
	@echo "make screens           the console's pages on four months of flights, as pictures in docs/console (needs chromium)"
	@echo "make soak              500 promotions and rollbacks under load with kills, and how soon versions are live (15 minutes)"
	@echo "make lint | format     ruff, mypy, import-linter | let ruff format"
	@echo "make clean             remove the virtual environment, caches and local servers' data"

demo: $(VENV)/.stamp-demo
	@exec $(BIN)/headrace demo $(ARGS)

PAST := .headrace/flights-past

plan: $(VENV)/.stamp-demo
	@ls $(PAST)/served*.arrow >/dev/null 2>&1 || $(BIN)/headrace demo --keep-past $(PAST)
	@exec $(BIN)/headrace plan infra/demo/flights.py --past $(PAST) --from 2013-02-01T05:00:00Z --html .headrace/plan.html \
		--schedule never --schedule declared --schedule "0 3 * * *" --schedule drift --schedule labels:20000 $(ARGS)

test: $(VENV)/.stamp-dev
	@exec $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: $(VENV)/.stamp-bench
	@exec $(BIN)/headrace dev bench --install-peers $(ARGS)

bench-serve: $(VENV)/.stamp-bench
	@exec $(BIN)/headrace dev bench --install-peers --only 'serve_*' $(ARGS)

screens: $(VENV)/.stamp-dev
	@HEADRACE_SCREENS=$(CURDIR)/docs/console $(BIN)/python -m pytest -s tests/system/test_console_screens.py $(ARGS)

soak: $(VENV)/.stamp-dev
	@HEADRACE_SOAK=25 $(BIN)/python -m pytest -s tests/system/test_moves_soak.py $(ARGS)

lint: $(VENV)/.stamp-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict -p headrace
	@$(BIN)/lint-imports

format: $(VENV)/.stamp-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

venv: $(VENV)/.stamp-dev

# One environment; a stamp for each set of extras says whether pyproject.toml changed since. dev holds all of demo and bench.
$(VENV)/.stamp-dev: pyproject.toml
	$(call install,dev)
	@touch $(VENV)/.stamp-demo $(VENV)/.stamp-bench $@

$(VENV)/.stamp-demo: pyproject.toml
	$(call install,demo)
	@touch $@

$(VENV)/.stamp-bench: pyproject.toml
	$(call install,bench)
	@touch $(VENV)/.stamp-demo $@

define install
	@test -n "$(PYTHON)" || { echo "headrace: expected Python 3.11 or newer on PATH, found none. Install one (https://www.python.org/downloads), or run: make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "headrace: installing .[$(1)] into $(VENV) (several minutes the first time: torch is large)" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(1)]' >&2
endef

# The servers first: without their state file nobody could stop them any more.
clean:
	@if [ -x $(BIN)/headrace ] && [ -d .headrace ]; then $(BIN)/headrace down >&2; fi
	rm -rf $(VENV) .headrace build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
