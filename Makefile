# Two commands matter: `make demo` and `make test`. Both build what they need in .venv first;
# once that stands, neither needs the network.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

# What a wheel of this package needs at run time, kept so that the wheel can be tried offline.
RUNTIME := msgspec numpy prometheus-client zstandard

FROUROS := .venv-frouros

.PHONY: demo test soak web-soak efficacy judging kills bench bench-store detection asv grafana docs lint build clean help

help:
	@echo "make demo   run the whole story on a real small service (a minute or two)"
	@echo "make test   run every test, then the linter and the type checker"
	@echo "make soak   try the history store for ten minutes: kills, power losses, readers, fuzzing"
	@echo "make web-soak  a web service of two workers under load beside itself unwatched, half an hour"
	@echo "make efficacy  heal every host of the fault corpus, half an hour, and print what came of each"
	@echo "make judging  how often the judge errs, on simulated trials, ten minutes"
	@echo "make kills  kill the healer wherever its life leaves a trace, all points, ten minutes"
	@echo "make bench  measure everything beside its peers, a few minutes; writes docs/performance.md"
	@echo "make bench-store  the same with a history of ten million snapshots (takes 5 GB of disk)"
	@echo "make detection  run lengths and delays of change detectors, ten minutes; writes docs/detection-figures.md"
	@echo "make grafana  write deploy/grafana/dashboard.json anew"
	@echo "make docs   the documentation as a site, in build/site"
	@echo "make asv    the asv suite on this checkout"
	@echo "make clean  remove what these made"

demo: build
	$(BIN)/qigheal demo

# Twice as many as cores: a test that ends processes of a sandbox, or waits for a service, leaves its core idle.
WORKERS := $(shell echo $$((2 * $$(nproc))))

test: build
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not alone"
	$(BIN)/python -m pytest -m alone
	@$(MAKE) --no-print-directory lint

SOAK := --minutes 5 --writers 3 --kills-per-s 3

soak: build
	$(BIN)/python -m tests.soak $(SOAK)
	$(BIN)/python -m tests.soak --kills 500
	QIGHEAL_FUZZ=2000 $(BIN)/python -m pytest -n auto tests/core/test_history_fuzz.py tests/core/test_history_crash.py

web-soak: build
	$(BIN)/python -m tests.web_soak --minutes 30

efficacy: build
	$(BIN)/python -m tests.faults.efficacy

judging: build
	$(BIN)/python -m benchmarks.judging

kills: build
	QIGHEAL_EXHAUSTIVE=1 $(BIN)/python -m pytest -n auto tests/heal/test_killed.py --timeout 1800

lint: build
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/python -m mypy
	$(BIN)/python -m mypy tests/typing_surface.py

bench: build $(VENV)/.bench
	$(BIN)/python -m benchmarks.report

bench-store: build $(VENV)/.bench
	$(BIN)/python -m benchmarks.report --rows 10_000_000

detection: build $(VENV)/.bench $(FROUROS)/.installed
	$(BIN)/python -m benchmarks.detection --frouros-python $(FROUROS)/bin/python --out docs/detection-figures.md

asv: build $(VENV)/.bench
	$(BIN)/asv --config benchmarks/asv.conf.json machine --yes
	$(BIN)/asv --config benchmarks/asv.conf.json run --python=same --set-commit-hash $$(git rev-parse HEAD)

grafana: build
	$(BIN)/python deploy/grafana/generate.py

docs: build
	$(BIN)/python -m zensical build --strict

build: $(VENV)/.installed $(VENV)/.compiled

$(VENV)/.installed: pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "qigheal needs Python 3.11 or later; say which with: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Setting up $(VENV) (once; needs the network)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install "setuptools>=77" wheel "cython>=3.1" "numpy>=2.0"
	$(PIP) install --no-build-isolation -e ".[test]"
	$(PIP) download -d $(VENV)/wheelhouse $(RUNTIME)
	touch $@ $(VENV)/.compiled

$(VENV)/.compiled: $(VENV)/.installed $(wildcard ext/*)
	$(BIN)/python setup.py -q build_ext --inplace
	touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(PIP) install --no-build-isolation -e ".[bench]"
	touch $@

# frouros asks for an old numpy, so it is measured in an environment of its own.
$(FROUROS)/.installed:
	$(PYTHON) -m venv $(FROUROS)
	$(FROUROS)/bin/python -m pip --disable-pip-version-check -q install frouros
	touch $@

clean:
	rm -rf $(VENV) $(FROUROS) .cache build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name '*.so' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
