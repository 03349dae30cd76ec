# gansweep: `make sweep` and `make test` need python3 and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup sweep test check bench chaos clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs,hf,images,onnx,samplers]'
	touch $(READY)

sweep: $(READY)  ## the default search: ten minutes on two cores, to a registered champion
	$(BIN)/gansweep run --time-budget 10m

test: $(READY)  ## every test that needs no GPU
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not ray"
	$(BIN)/python -m pytest -m ray  # these have the machine to themselves

check: $(READY)  ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## the published numbers; an idle machine and four hours
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/fid.py
	$(BIN)/python benchmarks/coverage.py
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

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache
