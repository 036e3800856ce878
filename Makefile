# Eight words: install run test check leak-suite bench fmt help; and stop.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
ROOMS := policies index ingest deployments cluster

.DEFAULT_GOAL := help
.PHONY: help install run stop test check servers unit leak-suite e2e bench fmt lock

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

install: .venv/installed-cpu ## .venv with the locked CPU dependencies and the rayrag command

.venv/installed-cpu: requirements/cpu.txt pyproject.toml
	@sh cluster/install.sh "$(PYTHON)" requirements/cpu.txt
	@touch .venv/installed-cpu

.venv/installed-test: requirements/test.txt pyproject.toml
	@sh cluster/install.sh "$(PYTHON)" requirements/test.txt
	@touch .venv/installed-test .venv/installed-cpu

run: install ## start everything, ingest examples/ through ray job submit, ask three questions as two people
	@$(BIN)/python -m examples.demo

stop: ## stop what run started, nothing else
	@$(BIN)/rayrag down

test: .venv/installed-test servers check unit leak-suite e2e ## everything CI runs: lint, types, architecture, unit, leaks, end to end

servers: # what unit tests start and pip has not; where it may not install, it says what is left out
	@sh tests/install_system.sh

check: .venv/installed-test ## lint, types, architecture, known holes in dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python requirements/audit.py

unit: .venv/installed-test
	$(BIN)/python -m pytest tests/unit -q -n 2 --dist loadfile # many of them wait for servers

leak-suite: .venv/installed-test ## try to see what one may not; LEAKS=--full: the nightly size (docs/leak-suite.md)
	$(BIN)/python -m tests.leaks $(LEAKS)

e2e: .venv/installed-test
	$(BIN)/python -m pytest tests/e2e -q

bench: .venv/installed-test ## measure; prints a table and writes bench/results/*.json
	$(BIN)/python -m bench

fmt: .venv/installed-test ## format and fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## resolve requirements/*.txt anew (needs uv)
	@sh requirements/lock.sh
