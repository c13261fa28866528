PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin

.PHONY: demo test test-lowest lint clean

# Training lengths that two CPU cores finish in minutes; the rows say how many steps of the paper's they are.
demo: $(VENV)/installed
	$(BIN)/bench run --methods efficientad_s,patchcore,fastflow --datasets demo --out runs/demo \
		--set efficientad_s.training_steps=80 --set fastflow.training_steps=30

test: $(VENV)/installed lint
	$(BIN)/python -m pytest

# With the oldest versions allowed; newer packages beneath them warn.
test-lowest:
	$(MAKE) VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt .venv-lowest/installed
	.venv-lowest/bin/python -m pytest -W default

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[cpu,dev]"
	touch $@

clean:
	rm -rf $(VENV) .venv-lowest
