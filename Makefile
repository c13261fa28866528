PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
# Compiling everything that is installed takes as long as installing it; Python compiles what it imports.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --constraint $(CONSTRAINTS) --editable

.PHONY: demo check check-numbers check-runner test test-lowest lint clean

# Training lengths that two CPU cores finish in minutes; the rows say how many steps of the paper's they are.
demo: $(VENV)/installed
	$(BIN)/bench run --methods efficientad_s,patchcore,fastflow --datasets demo/coins,demo/gravel --out runs/demo \
		--set efficientad_s.training_steps=40 --set fastflow.training_steps=15

# Three parts, two at a time.
check: $(VENV)/installed-dev
	$(MAKE) --jobs=2 --output-sync=target lint check-runner check-numbers

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

NUMBERS := tests/metrics tests/reports tests/results
FAST_TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow"

check-numbers: $(VENV)/installed-dev
	$(FAST_TESTS) $(NUMBERS)

check-runner: $(VENV)/installed-dev
	$(FAST_TESTS) $(NUMBERS:%=--ignore=%)

$(VENV)/installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) ".[cpu]"
	touch $@

# The tests turn warnings into errors, those of compiling other people's code too: it is compiled here. Some packages
# carry files for other versions of Python.
$(VENV)/installed-dev: $(VENV)/installed
	$(INSTALL) ".[cpu,dev]"
	$(BIN)/python -W ignore -m compileall -qq -j 0 $(VENV)/lib || true
	touch $@

clean:
	rm -rf $(VENV) .venv-lowest
