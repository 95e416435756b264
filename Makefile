# Everything lands in .venv; nothing outside this folder is changed except, for the browser tests,
# Debian's chromium and firefox-esr where they are missing and can be installed; and, for the bench,
# Debian's nginx and h2load likewise, and the caches of Go and npm. What test-clients fetches lands
# in .cache, Debian's Swift in a folder of its own there.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DIST   ?= dist

.DEFAULT_GOAL := help
.PHONY: help setup check test test-clients test-cluster test-swift demo dist bench chaos docs pictures lock clean browser browsers

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## make .venv with everything pinned in constraints.txt

$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Handbell needs Python 3.11 or newer; {sys.executable} is {v.major}.{v.minor}. Name another with: make $(MAKECMDGOALS) PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

check: setup ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Hundreds of processes import the same modules: what is compiled is kept, whatever the caller set.
test test-clients: export PYTHONDONTWRITEBYTECODE =

# Two workers a core: a test waits for disks, timers and other processes half of its time.
test: setup browser ## every test that needs no toolchain but Python's
	$(BIN)/python -m pytest --dist worksteal -m "not clients and not cluster" \
	  --numprocesses $$((2 * $$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)))

test-clients: setup browsers test-swift ## other people's clients and toolchains, and an installed wheel (Go, Java, Kotlin, Node, Rust, curl, Swift, Firefox)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m clients

test-cluster: setup ## several servers and workers on one PostgreSQL, and what can go wrong there
	$(BIN)/python -m pytest -m cluster

test-swift: setup ## the tests of the Swift package, where Swift is or can be had
	HANDBELL_PYTHON=$(CURDIR)/$(BIN)/python clients/ios/test-on-linux.sh

demo: setup ## send a notification to three virtual devices and see it arrive
	$(BIN)/handbell demo

dist: setup ## build a wheel and an sdist into dist/
	$(BIN)/python -m hatchling build -d $(DIST)

bench: setup ## measure Handbell against its peers, side by side
	$(BIN)/python -m bench

chaos: setup ## kill, cut, fill and count what is lost (SEED=1 SECONDS=60 DATABASE=postgresql CLUSTER=1)
	$(BIN)/python -m bench.$(if $(CLUSTER)$(filter postgresql,$(DATABASE)),fleet,chaos) $(if $(CLUSTER),--broker) $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS))

browser:
	@command -v chromium-headless-shell >/dev/null 2>&1 || { \
	  echo "chromium-headless-shell is missing; trying to install Debian's package for the browser tests"; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	    apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium-headless-shell >/dev/null; \
	  else false; fi; } || command -v chromium >/dev/null 2>&1 \
	  || echo "chromium could not be installed: the browser tests will be skipped"

# Chromium's shell, which make test takes, shows no notifications.
browsers:
	@for package in firefox-esr chromium; do \
	  command -v $$package >/dev/null 2>&1 && continue; \
	  echo "$$package is missing; trying to install Debian's package for the tests of Web Push"; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	    apt-get update -qq && apt-get install -y -qq --no-install-recommends $$package >/dev/null; \
	  else false; fi || echo "$$package could not be installed: its tests will be skipped"; done

pictures: setup ## make docs/pictures anew: what the pages look like (needs chromium)
	$(BIN)/python docs/make_pictures.py

docs: setup ## write docs/cli.md from the command itself
	$(BIN)/python docs/write_cli.py

lock: ## write constraints.txt anew (needs uv on PATH)
	uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --quiet --upgrade -o constraints.txt

clean: ## remove what setup and the tools made
	rm -rf $(VENV) dist .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
