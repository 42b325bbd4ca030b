# Everything a developer or an operator of a checkout types. `make help` lists it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help install extras run test chaos fuzz check format bench lock sbom clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.runtime ## build .venv from the hashed lock

$(VENV)/.runtime: requirements.lock requirements-build.lock pyproject.toml
	@echo "building $(VENV) from requirements.lock (about a minute the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tierway needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes -r requirements-build.lock
	@$(PIP) install --require-hashes --no-deps -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	@echo "adding what the tests need from requirements-dev.lock"
	@$(PIP) install --require-hashes --no-deps -r requirements-dev.lock
	@touch $@

extras: $(VENV)/.runtime ## add what traces and flag services need
	@$(PIP) install --require-hashes --no-deps -r requirements-extras.lock

run: $(VENV)/.runtime ## start the gateway on http://127.0.0.1:8080
	@$(BIN)/tierway serve

test: $(VENV)/.dev ## run every test, real services included
	@$(BIN)/python -m pytest -n auto --dist loadfile

chaos: $(VENV)/.dev ## thirty thousand requests while gateways and store are killed: is every cent where it belongs?
	@CHAOS_REQUESTS=30000 $(BIN)/python -m pytest -q tests/chaos

fuzz: $(VENV)/.dev ## ten minutes (FUZZ_SECONDS) for the interface and for each parser: does anything break them?
	@FUZZ_SECONDS=$${FUZZ_SECONDS:-600} $(BIN)/python -m pytest -n auto -rP tests/fuzz

check: $(VENV)/.dev ## format, lint, types, layout, dead links, coverage
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/layout
	@$(BIN)/python -m tests.coverage_gate

format: $(VENV)/.dev ## put the code into its shape
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(VENV)/.dev ## the benchmarks of bench/, as a table and a JSON file
	@$(BIN)/python -m bench.compare

lock: $(VENV)/.dev ## resolve the dependencies again
	@$(BIN)/uv pip compile -q --universal --upgrade --generate-hashes --no-annotate --no-header --python-version 3.11 pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile -q --universal --upgrade --generate-hashes --no-annotate --no-header --python-version 3.11 --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock
	@$(BIN)/uv pip compile -q --universal --upgrade --generate-hashes --no-annotate --no-header --python-version 3.11 --extra otel --extra openfeature -c requirements-dev.lock pyproject.toml -o requirements-extras.lock
	@echo setuptools | $(BIN)/uv pip compile -q --universal --upgrade --generate-hashes --no-annotate --no-header --python-version 3.11 - -o requirements-build.lock

sbom: ## what Tierway is made of, as CycloneDX JSON in sbom.cdx.json
	@$(PYTHON) -m deploy.sbom

clean: ## remove everything that can be built again
	@rm -rf $(VENV) .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
