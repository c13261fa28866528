PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
# Compiling everything that is installed takes as long as installing it; Python compiles what it imports.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --constraint $(CONSTRAINTS) --editable

.PHONY: demo check check-half check-other-half test test-lowest lint clean

# Training lengths that two CPU cores finish in minutes; the rows say how many steps of the paper's they are.
demo: $(VENV)/installed
	$(BIN)/bench run --methods efficientad_s,patchcore,fastflow --datasets demo/coins,demo/gravel --out runs/demo \
		--set efficientad_s.training_steps=40 --set fastflow.training_steps=15

# Half of the fast tests on one core; static checks, then the other half, on another.
check: $(VENV)/installed-dev
	$(MAKE) --jobs=2 --output-sync=target check-half lint check-other-half

test: $(VENV)/installed-dev lint
	$(BIN)/python -m pytest

# With the oldest versions allowed; newer packages beneath them warn.
test-lowest:
	$(MAKE) VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt .venv-lowest/installed-dev
	.venv-lowest/bin/python -m pytest -W default

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

HALF := tests/methods tests/reports tests/results
FAST_TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow"

check-half: $(VENV)/installed-dev
	$(FAST_TESTS) $(HALF)

check-other-half: $(VENV)/installed-dev
	$(FAST_TESTS) $(HALF:%=--ignore=%)

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
