# What CI runs and what hands run are the same targets. `make help` lists them.
#
#   make demo                       from a fresh clone: environment, install, the whole story on the emulator
#   make plan SPEC=classify         the commands of batchform on this project: validate plan show apply sync status
#   make apply ENV=prod PLAN=plan   ENV= chooses an environment, PLAN= a saved plan, ARGS= adds anything else
#
# PYTHON= chooses the interpreter that the virtual environment is made with (3.11 to 3.13).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
FOREIGN ?= .venv-foreign
BROWSER = $(BATCHFORM_TEST_BROWSER)$(firstword $(foreach b,chromium-headless-shell chrome-headless-shell chromium chromium-browser google-chrome chrome,$(shell command -v $(b))))
SUDO ?= $(shell test "$$(id -u)" = 0 || echo sudo)
SPEC ?=
ENV ?=
PLAN ?=
ARGS ?=

select = $(if $(SPEC),--select $(SPEC))
env = $(if $(ENV),--env $(ENV))
linted = src tests scripts benchmarks
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(1 + (os.cpu_count() or 1))')# tests wait for sockets and processes, too

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# --- environment: a stamp per kind of install, so that a second run starts at once ---

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else f"batchform needs Python 3.11 to 3.13, and $(PYTHON) is {v.major}.{v.minor}: say make PYTHON=python3.12")'
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "installing batchform"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "installing batchform and what its tests need"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: pyproject.toml | $(VENV)/.installed-dev
	@echo "installing what draws charts"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

$(FOREIGN)/.installed-storage: pyproject.toml scripts/test_foreign.py
	@echo "making $(FOREIGN): other people's servers and clients, apart from ours"
	@test -x $(FOREIGN)/bin/python || $(PYTHON) -m venv $(FOREIGN)
	@$(FOREIGN)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' $$($(PYTHON) scripts/test_foreign.py --requirements)
	@touch $@

venv: $(VENV)/.installed  ## make .venv and install batchform into it

# --- the story, the tests, the numbers ---

demo: $(VENV)/.installed  ## plan, apply, deliver, change, plan again: on the emulator, in a copy of this project
	@$(BIN)/python scripts/demo.py

test: $(VENV)/.installed-dev browser  ## the tests
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

explore: $(VENV)/.installed-dev  ## the tests of laws, on examples that chance draws anew
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --hypothesis-profile=explore -m hypothesis $(ARGS)

test-foreign: test-foreign-storage test-foreign-bigquery  ## second opinions on the emulator: servers and clients of others (network)

test-foreign-storage: $(FOREIGN)/.installed-storage  ## another Cloud Storage server, and other clients
	@$(FOREIGN)/bin/python scripts/test_foreign.py $(FOREIGN)/bin/python

test-foreign-bigquery: $(FOREIGN)/.installed-storage  ## another BigQuery; it needs a Python 3.13, FOREIGN_PYTHON=
	@$(FOREIGN)/bin/python scripts/test_foreign_bigquery.py $(FOREIGN)

prove: $(VENV)/.installed-dev  ## the long proofs that nothing is paid twice and no answer lost: crashes, faults, histories
	@$(BIN)/python scripts/prove.py $(ARGS)

lint: $(VENV)/.installed-dev  ## lint, format, strict types, import contracts
	@$(BIN)/ruff check --quiet $(linted)
	@$(BIN)/ruff format --check --quiet $(linted)
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo --config pyproject.toml

browser:  ## a browser for the tests of the report, unless there is one (Debian and Ubuntu)
	@test -n "$(BROWSER)" || { echo "installing chromium, for the tests of the report"; $(SUDO) apt-get update -qq && \
	  for name in chromium-headless-shell chromium; do $(SUDO) apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 $$name >/dev/null && exit 0; done; \
	  echo "install Chromium or Chrome by hand, or name one: BATCHFORM_TEST_BROWSER=/path/of/it make test"; exit 1; }

check: lint test  ## all that a pull request must pass

ledger-fixture: $(VENV)/.installed-dev  ## the ledger of this version's format, when that was raised, for the tests of all later ones
	@$(BIN)/python scripts/make_ledger_fixture.py $(ARGS)

bench: $(VENV)/.installed-dev  ## every scenario with 10,000 and 100,000 rows, beside its baseline (minutes)
	@$(BIN)/python benchmarks/run.py $(ARGS)

bench-full: $(VENV)/.installed-dev  ## the same, to ten million rows (hours; goes on where it was stopped)
	@$(BIN)/python benchmarks/run.py --full $(ARGS)

bench-report: $(VENV)/.installed-bench  ## docs/performance.md and its chart, from what this code was measured with
	@$(BIN)/python benchmarks/report.py --take $(ARGS)

bench-bigquery: $(VENV)/.installed-dev  ## first plan of 100,000 and 1,000,000 rows of the emulator's BigQuery (long)
	@$(BIN)/python benchmarks/bigquery.py $(ARGS)

bench-memory: $(VENV)/.installed-dev  ## peak memory of apply and collect at 100,000 and 1,000,000 rows (long)
	@$(BIN)/python benchmarks/memory.py $(ARGS)

clean:  ## remove what the targets above have made; never the ledger or results of this project
	rm -rf .demo .prove build dist benchmarks/.cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find src tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## clean, and the virtual environments too
	rm -rf $(VENV) $(FOREIGN)

# --- batchform on this project ---

validate: $(VENV)/.installed  ## check all specs, offline
	@$(BIN)/batchform validate $(env) $(ARGS)

plan: $(VENV)/.installed  ## what would be sent, why, and what it costs; PLAN=dir saves it
	@$(BIN)/batchform plan $(env) $(select) $(if $(PLAN),--out $(PLAN)) $(ARGS)

show: $(VENV)/.installed  ## print the saved plan PLAN=dir
	@$(BIN)/batchform show $(env) $(ARGS) $(or $(PLAN),$(error say which: make show PLAN=dir))

apply: $(VENV)/.installed  ## send what the plan says (PLAN=dir: exactly that one), wait, deliver
	@$(BIN)/batchform apply $(env) $(if $(PLAN),,$(select)) $(ARGS) $(PLAN)

sync: $(VENV)/.installed  ## one step for cron: recover, poll, collect, deliver
	@$(BIN)/batchform sync $(env) $(ARGS)

status: $(VENV)/.installed  ## what is at work, what it has cost, what is due
	@$(BIN)/batchform status $(env) $(ARGS)

.PHONY: help venv demo test explore test-foreign test-foreign-storage test-foreign-bigquery prove lint browser check ledger-fixture bench bench-full bench-report bench-bigquery bench-memory clean distclean validate plan show apply sync status
