# make install: a virtual environment in .venv with faaslite and what its development needs.
# make demo:    installs, then runs the main job from deploy to scale to zero, and leaves nothing running.
# make test:    installs, then lint, types, import contracts and every test.
SHELL := /bin/bash
BIN := .venv/bin

.PHONY: install demo test lint types contracts clean

install: .venv/.installed

.venv/.installed: pyproject.toml tools/install.sh
	bash tools/install.sh
	touch $@

demo: install
	$(BIN)/python -P tools/demo.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

contracts: install
	$(BIN)/lint-imports

test: install
	+$(MAKE) --no-print-directory --jobs --output-sync=target lint types contracts
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder  # as collected: the long files come first

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
