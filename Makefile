# A name or path; by default the first Python 3.11, 3.12 or 3.13 that is found.
PYTHON ?=
# The build of PyTorch: cpu, cuda, or auto, which takes cpu if there is no NVIDIA GPU and PyTorch's index can be reached.
TORCH ?= auto
DATA ?= medmnist
TEACHER ?= runs/teacher/teacher.safetensors
SCRATCH ?= runs/scratch
FINISH ?= runs/finish
BIN := .venv/bin
CHECKPOINT := $(wildcard training/checkpoints/*)
SOURCES := $(wildcard handler/*.py handler/*/*.py export/*.py export/*.yaml)

.PHONY: help serve stop demo screenshots test test-quick check train evaluate report export contract loadtest bench lock audit sbom clean

## help: list the targets
help:
	@sed -n 's/^## \([a-z-]*\): /\1\t/p' Makefile | awk -F '\t' '{ printf "%-12s %s\n", $$1, $$2 }'

## serve: install, export and start the server; prints ready after a real prediction; Ctrl-C stops it (ARGS)
serve: .venv/serve.stamp model_store/manifest.json serving/viewer/node_modules
	$(BIN)/python -m serving start $(ARGS)

## stop: stop the server that `make serve` started
stop:
	$(BIN)/python -m serving stop

## demo: open the web page of the running server
demo: .venv/serve.stamp
	$(BIN)/python -m serving page

## screenshots: take the screenshots of docs/page/, and of every screen in runs/screens/, in a real browser
screenshots: .venv/test.stamp
	SCREENSHOTS=1 $(BIN)/pytest -q tests/web/test_screens.py

## test-quick: run the tests that need no server, browser, cluster or training; under a minute
test-quick: .venv/test.stamp
	$(BIN)/pytest -m "not (server or browser or ray or slow)"

# Threads that wait for others do not spin, because the two processes share the cores.
## test: check style, types and import rules, then run every test, in two processes
test: .venv/test.stamp .venv/alone.stamp .venv-clients/clients.stamp .venv-mlserver/mlserver.stamp \
		.venv-wsinfer/wsinfer.stamp check
	OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest --numprocesses 2 --no-loadscope-reorder

## check: check style, types and import rules
check: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

## train: train a teacher if none exists, then the three recipes of the shipped weights (DATA=FILE.npz, TEACHER=FILE, ARGS)
train: .venv/test.stamp $(TEACHER)
	$(BIN)/python -m training.train --data $(DATA) --recipe scratch --teacher $(TEACHER) $(ARGS) --output $(SCRATCH)
	$(BIN)/python -m training.train --data $(DATA) --recipe finish --teacher $(TEACHER) \
		--init $(SCRATCH)/pathmnist_resnet18.safetensors $(ARGS) --output $(FINISH)
	$(BIN)/python -m training.train --data $(DATA) --recipe refine \
		--init $(FINISH)/pathmnist_resnet18.safetensors $(ARGS)

runs/teacher/teacher.safetensors: | .venv/test.stamp
	$(BIN)/python -m training.train --data $(DATA) --recipe teacher --output $(@D)

## evaluate: evaluate the shipped checkpoint on the official test split (DATA, ARGS)
evaluate: .venv/test.stamp
	$(BIN)/python -m evaluation.classification --data $(DATA) $(ARGS)

## report: docs/evaluation, MODEL_CARD.md and the README's table, from the shipped checkpoint (DATA=FILE.npz)
report: .venv/test.stamp
	$(BIN)/python -m export.ranges --data $(DATA)
	$(BIN)/python -m evaluation.calibrate --data $(DATA) --output docs/evaluation
	$(BIN)/python -m evaluation.verdict --data $(DATA) --output docs/evaluation
	$(BIN)/python -m evaluation.fit --data $(DATA) --output docs/evaluation
	$(BIN)/python -m evaluation.classification --data $(DATA) --output docs/evaluation
	$(BIN)/python -m evaluation.robustness --data $(DATA) --output docs/evaluation
	$(BIN)/python -m evaluation.card --reports docs/evaluation --output MODEL_CARD.md
	$(BIN)/python -m evaluation.readme --reports docs/evaluation --readme README.md

## export: rebuild model_store/ from the shipped checkpoint
export: .venv/serve.stamp
	$(BIN)/python -m export $(ARGS)

## contract: rewrite docs/openapi.json, the description of the API, and web/contract.json from the code
contract: .venv/serve.stamp
	$(BIN)/python -m export.contract --output docs/openapi.json

## loadtest: load a separate server for a minute; reports in runs/loadtest (ARGS, see docs/load.md)
loadtest: .venv/serve.stamp .venv/loadtest.stamp model_store/manifest.json
	$(BIN)/python -m loadtest $(ARGS)

## bench: compare this server with TorchServe's own handler, FastAPI, LitServe and BentoML; a quarter of an hour (ARGS)
bench: .venv/test.stamp .venv-bench/bench.stamp model_store/manifest.json
	$(BIN)/python -m bench $(ARGS)

## audit: report known vulnerabilities of every pinned package; fails if one could not be looked up
audit: .venv/audit.stamp
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement serve.lock
	$(BIN)/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

## sbom: write the server's bill of materials in CycloneDX, with a digest for every file that pip may install
sbom: .venv/audit.stamp
	mkdir -p runs
	$(BIN)/cyclonedx-py requirements serve.lock --pyproject pyproject.toml --output-reproducible --output-file runs/sbom.json

model_store/manifest.json: .venv/serve.stamp $(SOURCES) $(CHECKPOINT)
	$(BIN)/python -m export

# OpenSeadragon, by digest. Without it the page's Region screen shows the map, but no picture below it.
serving/viewer/node_modules: serving/viewer/package-lock.json
	npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund --loglevel error && touch $@ || \
		echo "OpenSeadragon is not installed (it needs npm): the page shows regions without their picture"

.venv/bin/pip:
	PYTHON="$(PYTHON)" serving/environment.sh .venv

# For the server, pip installs only files whose digest is in the lock.
.venv/serve.stamp: serve.lock | .venv/bin/pip
	$(BIN)/python -m serving.install --torch $(TORCH)
	touch $@

.venv/%.stamp: pyproject.toml constraints.txt | .venv/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --group $* --constraint constraints.txt
	touch $@

.venv/alone.stamp: pyproject.toml .venv/test.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --group alone
	touch $@

# The servers in the comparison pin other versions.
.venv-bench/bench.stamp: pyproject.toml bench/constraints.txt
	PYTHON="$(PYTHON)" serving/environment.sh .venv-bench
	.venv-bench/bin/pip install --quiet --disable-pip-version-check --group bench --constraint bench/constraints.txt
	touch $@

# Unmodified clients, which need other versions than the server.
.venv-clients/clients.stamp: pyproject.toml tests/serving/clients/constraints.txt
	PYTHON="$(PYTHON)" serving/environment.sh .venv-clients
	.venv-clients/bin/pip install --quiet --disable-pip-version-check --group clients --constraint tests/serving/clients/constraints.txt
	touch $@

.venv-mlserver/mlserver.stamp: pyproject.toml tests/serving/clients/mlserver-constraints.txt
	PYTHON="$(PYTHON)" serving/environment.sh .venv-mlserver
	.venv-mlserver/bin/pip install --quiet --disable-pip-version-check --group mlserver --constraint tests/serving/clients/mlserver-constraints.txt
	touch $@

# WSInfer needs an older zarr than others. PyTorch and whatever else fits it takes from .venv.
.venv-wsinfer/wsinfer.stamp: pyproject.toml tests/export/bundles/constraints.txt | .venv/test.stamp
	PYTHON="$(PYTHON)" serving/environment.sh .venv-wsinfer
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > \
		$$(.venv-wsinfer/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/shared.pth
	.venv-wsinfer/bin/pip install --quiet --disable-pip-version-check --group wsinfer --constraint tests/export/bundles/constraints.txt
	touch $@

## lock: pin the packages that the direct dependencies pull in
lock: .venv/bin/pip
	$(BIN)/pip install --group test
	$(BIN)/pip freeze > constraints.txt
	$(BIN)/uv pip compile --quiet --group serve --constraint constraints.txt --universal --python-version 3.11 \
		--generate-hashes --no-header --no-annotate --output-file serve.lock

## clean: remove environments, caches and build outputs
clean:
	rm -rf .venv .venv-bench .venv-clients .venv-mlserver .venv-wsinfer .run runs model_store/*.onnx model_store/*.mar model_store/manifest.json model_store/model.sig model_store/engines-*.json
