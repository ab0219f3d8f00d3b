# Two commands do all set-up on a fresh machine: `make study` runs the main job, `make test` passes the tests.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= study-laptop
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: study study-smoke test test-slow parity-c4 check bench chaos clean

study: $(VENV)/installed
	$(BIN)/t5study study rounds --scale laptop --out $(OUT)

# Every row of every table at the smallest scale, from text to report. Nightly; three to five minutes on two free cores.
study-smoke: $(VENV)/installed-dev
	$(BIN)/python -m pytest tests/study/test_every_row.py -s -m ""

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m slow

# The official C4 functions of four releases, as an oracle: their wheels alone, without TensorFlow. About ten minutes.
WHEELS := $(VENV)/c4-wheels
parity-c4: $(WHEELS)/installed
	T5STUDY_C4_WHEELS=$(WHEELS) $(BIN)/python -m pytest tests/parity_c4 -s -m ""

$(WHEELS)/installed: $(VENV)/installed-dev
	for version in 1.3.0 2.0.0 4.3.0 4.9.10; do \
	  $(BIN)/pip install --quiet --no-deps --target $(WHEELS)/tfds-$$version tensorflow_datasets==$$version || exit 1; done
	for version in 3.5 3.9.1; do $(BIN)/pip install --quiet --no-deps --target $(WHEELS)/nltk-$$version nltk==$$version || exit 1; done
	touch $@

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

# All but bench/gpu.py, which needs one.
bench: $(VENV)/installed-dev
	for file in $(filter-out bench/gpu.py,$(wildcard bench/*.py)); do echo "== $$file"; $(BIN)/python $$file || exit 1; done

# The reliability sets in full, two hours or more: the table of docs/reliability.md.
chaos: $(VENV)/installed-dev
	PYTHONPATH=. $(BIN)/python tests/chaos.py
	$(BIN)/python -m pytest -m slow tests/study/test_runner.py tests/study/test_jobs.py tests/study/test_ranked.py -k "kill or jobs or two"

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "t5study needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
