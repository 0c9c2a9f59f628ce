# `make demo`, `make test`, `make space`, `make lint`: each installs into .venv first; nothing else is needed.
# With TORCH=cpu, uv installs PyTorch's CPU wheels; .venv must not exist yet.
PYTHON ?= python3
TORCH ?= default
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOWEST := .venv-lowest

.PHONY: demo test test-cluster test-lowest soak bench lint space licences audit clean

# One thread: with networks this small, two threads on a busy machine wait for each other longer than they work.
demo: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/ecgdan demo --output-dir runs/demo --overwrite

# Two workers of one thread each: the tests are many small networks.
test: $(STAMP)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# Two machines of a Ray cluster, of which one is lost. A cluster on a busy machine takes a minute to start.
test-cluster: $(STAMP)
	ECGDAN_CLUSTER=1 OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests/inference/test_on_ray.py

# The same with the lowest versions that pyproject.toml allows, on Python 3.11, in an environment of its own.
test-lowest: $(LOWEST)/.installed
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(LOWEST)/bin/python -m pytest -n 2 --dist worksteal

$(LOWEST)/.installed: pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet "uv>=0.8"
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct \
		$(if $(filter cpu,$(TORCH)),--torch-backend cpu) -e ".[dev]"
	touch $@

# Twenty thousand mutated files, eighty thousand other fuzzed inputs, and a thousand kills of all verbs; hours.
soak: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/bench_mutations.py --files 20000
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python tests/benchmarks/bench_fuzz.py --cases 80000
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python tests/benchmarks/bench_kills.py --kills 1000

# Ratios of speed against named alternatives, and against this machine's own; minutes, on a machine that does nothing else.
bench: $(STAMP)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python tests/benchmarks/bench_all.py --out docs/benchmarks.md

# The page for trying a checkpoint in a browser, as it runs on the Hub.
space: $(STAMP)
	$(BIN)/python hub_scripts/space/app.py

# The licence of every package that this one needs, as installed.
licences: $(STAMP)
	$(BIN)/python hub_scripts/licences.py

# Known vulnerabilities of the installed packages. Needs a network: it asks PyPI's advisory database.
audit: $(STAMP)
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet pip-audit
	PIPAPI_PYTHON_LOCATION=$(CURDIR)/$(BIN)/python $(VENV)-audit/bin/pip-audit --skip-editable

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed") if sys.version_info < (3, 11) else None'
ifeq ($(TORCH),cpu)
	@echo "Installing into $(VENV): PyTorch for CPU."
else
	@echo "Installing into $(VENV): on Linux about 7 GB on disk, 5 GB of it CUDA; TORCH=cpu leaves CUDA out."
endif
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
ifeq ($(TORCH),cpu)
	$(BIN)/python -m pip install --quiet "uv>=0.8"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend cpu -e ".[dev]"
else
	$(BIN)/python -m pip install --quiet -e ".[dev]"
endif
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-audit $(LOWEST) build dist runs *.egg-info
