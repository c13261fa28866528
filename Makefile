PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
# Compiling everything that is installed takes as long as installing it; Python compiles what it imports.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --constraint $(CONSTRAINTS) --editable

# One process a core, each with one thread.
JOBS ?= 2
TESTS = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

.PHONY: demo check test test-cluster test-lowest lint clean

demo: $(VENV)/installed
	$(BIN)/bench run --methods efficientad_s,patchcore,fastflow --datasets demo/coins,demo/gravel --out runs/demo

check: $(VENV)/installed-dev lint
	$(TESTS) -m "not slow and not cluster"

test: $(VENV)/installed-dev lint
	$(TESTS) -m "not cluster"

# A Ray cluster of two nodes and a Slurm of one, both on this machine; the latter needs root.
test-cluster: $(VENV)/installed-dev
	$(INSTALL) ".[cpu,dev,ray,slurm]"
	OMP_NUM_THREADS=1 tests/cluster/slurm_node.sh with "$$(mktemp -d)" $(BIN)/python -m pytest -m cluster tests/cluster

# With the oldest versions allowed; newer packages beneath them warn.
test-lowest:
	$(MAKE) VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt .venv-lowest/installed-dev
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -n $(JOBS) -W default

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) ".[cpu]"
	touch $@

# The tests turn warnings into errors, those of compiling other people's code too: it is compiled here. Some packages
# carry files for other versions of Python. The kernels of the metrics and the types of packages are kept in caches.
$(VENV)/installed-dev: $(VENV)/installed
	$(INSTALL) ".[cpu,dev]"
	$(BIN)/python -W ignore -m compileall -qq -j 0 $(VENV)/lib || true
	$(BIN)/python -c "import metrics; metrics.warm_up()"
	$(BIN)/mypy > /dev/null || true
	touch $@

clean:
	rm -rf $(VENV) .venv-lowest
