# The same targets for people and CI. A fresh machine needs Python 3.10 or newer, and make.
#
#   make demo          the whole way through, on a real application
#   make test          unit and conformance tests
#   make lint          ruff, mypy --strict
#   make bench         benchmarks, each against a peer or the bare limit in the same run
#   make s3            the archive on a real S3-compatible store, which it installs and starts
#   make postgres      the archive and its coordinator with a real PostgreSQL server, which the tests start
#   make proof         the long forms of what the guarantees claim
#   make integration   through a real proxy, in containers
#   make proxies       through nginx and Caddy as plain processes, with the configurations of deploy/
#   make pythons       unit tests and counting on every other Python that is found here
#   make ci            all of it, as CI runs it

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PACKAGES := packages/shared packages/client packages/server
MANIFESTS := $(wildcard packages/*/pyproject.toml) requirements/dev.txt

# What needs Python and nothing else, and not long.
UNIT := -m "not system and not long and not s3 and not postgres"

.PHONY: setup
setup: $(READY)

$(READY): $(MANIFESTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation $(PACKAGES:%=--editable %)
	@touch $@

# COVERAGE=1 measures what the tests reach, on the way.
.PHONY: test
ifdef COVERAGE
test: coverage
else
test: $(READY)
	$(BIN)/python -m pytest $(UNIT) --numprocesses 2 --dist loadfile
endif

.PHONY: coverage
coverage: $(READY)
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest $(UNIT) packages/server & server=$$!; \
	  $(BIN)/python -m coverage run -m pytest $(UNIT) packages/client packages/shared tests; \
	  others=$$?; wait $$server && exit $$others
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --skip-covered --precision 1 | tail -40

.PHONY: long
long: $(READY)
	$(BIN)/python -m pytest -m "long and not s3 and not postgres" --numprocesses 2 --dist loadfile

# A program that is hundreds of megabytes large, which nothing but this target needs.
$(VENV)/.s3-ready: $(READY) requirements/s3.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements/s3.txt
	@touch $@

.PHONY: s3
s3: $(VENV)/.s3-ready
	$(BIN)/python -m pytest -m s3 packages/server/tests/archive

# LONG=1 runs the long ones too.
.PHONY: postgres
postgres: $(READY)
	$(BIN)/python -m pytest -m "postgres$(if $(LONG),, and not long)" --numprocesses 2 --dist loadfile packages/server/tests

.PHONY: demo
demo: $(READY)
	$(BIN)/python scripts/demo.py

.PHONY: integration
integration: $(READY)
	$(BIN)/python scripts/integration.py

.PHONY: proxies
proxies: $(READY)
	$(BIN)/python -m pytest -m "system" --numprocesses 2 tests/test_proxies.py

.PHONY: bench
bench: $(READY)
	$(BIN)/python -m benchmarks --json results/bench.json

# How long each proof runs; seconds.
PROOF_SECONDS ?= 600

.PHONY: proof
proof: $(READY)
	$(BIN)/python -m tests.proof --seconds $(PROOF_SECONDS)

.PHONY: pythons
pythons: $(READY)
	$(BIN)/python scripts/pythons.py

# nginx, caddy, rsync, promtool or PostgreSQL missing is a failure there, not a reason to skip.
.PHONY: ci
ci: export TALLYPOST_TOOLS = required
ci: lint $(if $(COVERAGE),,coverage) long s3 postgres
	$(MAKE) proxies
	$(MAKE) pythons
	$(MAKE) demo
	$(MAKE) proof PROOF_SECONDS=45
	$(BIN)/python -m benchmarks --quick --json results/bench.json
	$(MAKE) integration

.PHONY: lint
lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.PHONY: format
format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: clean
clean:
	rm -rf $(VENV) demo results .coverage* .mypy_cache .ruff_cache .hypothesis
