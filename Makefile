# gansweep: `make sweep` and `make test` need python3 and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
SWEEP ?= --time-budget 10m
INSTALL ?= $(BIN)/python -m pip install --quiet --constraint constraints.txt
TESTS ?= tests

.DEFAULT_GOAL := help
.PHONY: help setup sweep test check docs coverage release bench chaos clean

help:  ## this list
	@awk -F ':.*## *' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## ./.venv with everything that the other targets need

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) --editable '.[dev,docs,hf,images,onnx,samplers]'
	touch $(READY)

sweep: $(READY)  ## the default search: ten minutes on two cores; SWEEP='--space photos' for other options
	$(BIN)/gansweep run $(SWEEP)

test: $(READY)  ## every test that needs no GPU, and the ten slowest of each part
	$(BIN)/python -m pytest --durations=10 --numprocesses 2 --dist loadfile -m "not ray"
	$(BIN)/python -m pytest --durations=10 -m ray  # these have the machine to themselves

check: $(READY)  ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)  ## the reference from the code, then the site, in build/site
	$(BIN)/python -m tools.reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

coverage: $(READY)  ## lines run by the tests that need no Ray, in build/coverage
	rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not ray" --cov --cov-report html $(TESTS)
	$(BIN)/coverage report --sort cover > build/coverage/report.txt
	@echo "the ten least covered files, and the total; every line: build/coverage/html/index.html"
	@head -n 12 build/coverage/report.txt; tail -n 1 build/coverage/report.txt

release: $(READY)  ## sdist and wheel in build/dist, tried in an empty environment
	$(BIN)/python -m tools.release

bench: $(READY)  ## the published numbers; an idle machine and four hours
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/fid.py
	$(BIN)/python benchmarks/interval_coverage.py
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/recipes.py
	$(BIN)/python benchmarks/peer_ray_dcgan.py
	$(BIN)/python tests/support/icons.py build/icons
	$(BIN)/python benchmarks/rank_agreement.py --data mnist5k folder:build/icons
	$(BIN)/python benchmarks/limited_data.py --data folder:build/icons
	$(BIN)/python benchmarks/colour_search.py --data folder:build/icons --out build/colour_search

chaos: $(READY)  ## faults planted in real sweeps, and what holds: eighty minutes on two idle cores
	$(BIN)/python benchmarks/chaos.py

clean:  ## remove what was built
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache
