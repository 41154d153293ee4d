# Two commands do all set-up on a fresh machine: `make demo` and `make test`. `make ui` opens Dagster.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HOME_FOLDER ?= data
# a few thousand of its 30,000 modules are ever imported: compiling all of them takes nearly half of an installation. `install` compiles those
# that its processes import, also where the shell says PYTHONDONTWRITEBYTECODE, as many containers do: each process would compile them again
PIP_OPTIONS := --quiet --disable-pip-version-check --no-compile
IMPORTED := extraction_assets.definitions, extraction_assets.training.run, extraction_assets.serving.server, extraction_assets.documents.worker, peft, dagster_webserver.cli
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test check ui install clean

install: $(VENV)/installed

# torch first and by its exact version: a range would bring gigabytes of CUDA packages
$(VENV)/installed: constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(PIP_OPTIONS) "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(BIN)/pip install $(PIP_OPTIONS) --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -c "import $(IMPORTED)"
	touch $@

demo: install
	$(BIN)/extraction demo

ui: install
	$(BIN)/extraction --home $(HOME_FOLDER) ui

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers 2
	$(BIN)/lint-imports

# half of the tests wait for processes that they start, so three workers keep two cores busy; the tiny models are faster on one thread each.
# A file stays with one worker: clusters, servers and trained homes that its tests share are made once
test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder --durations 25

clean:
	rm -rf $(VENV) demo_home
