# Two commands for a new machine: `make demo` does the main job, `make test` passes the tests.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all check parity clean

# Everything that the demo needs, nothing more: no developer tools.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[train,evaluate,serve]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

# From a starter model to a measured, gated assistant, in a few minutes; then a chat with it.
demo: $(VENV)/.installed
	@$(BIN)/lmwright run src/lmwright/recipes/support.toml || { code=$$?; \
		test $$code -eq 3 || exit $$code; echo; \
		echo "The gate did not let int8 ship: a rule failed or could not be told (see above)."; }
	$(BIN)/lmwright generate runs/support/int8 \
		--prompt "I lost my debit card. What does a new one cost?"
	@echo
	@echo "The report:  runs/support/report/report.html"
	@echo "A chat:      $(BIN)/lmwright chat runs/support/int8"

# The end-to-end tests start programs that use every core: they run alone.
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 tests/unit tests/parity tests/fuzz
	$(BIN)/python -m pytest tests/e2e

# With the proofs that take minutes.
test-all: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m ""

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/pyright
	$(BIN)/lint-imports

# How close we are to transformers, peft and compressed-tensors; the table goes into docs/models.md.
parity: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "" tests/parity
	$(BIN)/python benchmarks/parity.py --write docs/models.md

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache .hypothesis
