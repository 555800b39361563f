# Every target works from a fresh clone: it makes .venv and installs the project with the extra of
# pyproject.toml that it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NAME ?= an4
ARGS ?=
# Tests and benchmarks start Python many times. Where this variable is set, each start compiles all
# modules again; torch then loads in 3.9 s instead of 2.0 s (processor time, 2026-11-28).
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test slow lint bench gpu recipe clean

demo: $(VENV)/.demo
	$(BIN)/asr demo $(ARGS)

# Processes that each run whole files, since files share what their tests prepare. Three for two
# cores, since many tests wait for processes, servers and browsers. In alphabetical order: by default,
# files with few tests come last, and these take longest.
PYTEST := $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder
test: $(VENV)/.dev
	$(PYTEST) -m 'not slow' $(ARGS)

# The tests that take many seconds each: kernels in Triton's interpreter, trainings that are killed.
slow: $(VENV)/.dev
	$(PYTEST) -m slow $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The peers that only the benchmarks need are optional: without one, its race is left out.
bench: $(VENV)/.dev
	$(BIN)/pip install --quiet --editable '.[bench]' || true
	$(BIN)/python -m tests.bench $(ARGS)

# What only a machine with a GPU can tell: the tests of its kernels, and the benchmarks, in one table and
# exp/bench/gpu.json. If tests fail, the benchmarks still run. Without a GPU, all say so.
gpu: $(VENV)/.dev
	$(BIN)/python -m pytest -m gpu $(ARGS); tested=$$?; \
	$(BIN)/python -m tests.bench gpu batch_norm step recognition && exit $$tested

# For example: make recipe NAME=an4 ARGS="--source ../shared/data/an4"
recipe: $(VENV)/.recipes
	$(BIN)/python recipes/$(NAME)/run.py $(ARGS)

# .venv/.NAME says that the extra NAME is installed. uv installs many times faster than pip; where it
# cannot be had, pip does the same.
$(VENV)/.%: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "expected Python 3.11 or newer, got $$($(PYTHON) --version): make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	command -v uv >/dev/null || $(BIN)/pip install --quiet uv || true
	PATH="$(CURDIR)/$(BIN):$$PATH"; \
	if command -v uv >/dev/null; then uv pip install --python $(BIN)/python --editable '.[$*]'; \
	else $(BIN)/pip install --editable '.[$*]'; fi
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
