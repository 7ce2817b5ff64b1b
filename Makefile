PYTHON ?= python3.11
DATA ?= medmnist
TEACHER ?= runs/teacher/teacher.safetensors
BIN := .venv/bin
DEMO_BIN := .venv-demo/bin
CHECKPOINT := $(wildcard training/checkpoints/*)
SOURCES := $(wildcard handler/*.py handler/*/*.py export/*.py export/*.yaml)

.PHONY: serve stop demo screenshots test check train evaluate report export loadtest bench lock audit sbom clean

## serve: build what is missing, start TorchServe, print ready after a real prediction; Ctrl-C ends it
serve: .venv/serve.stamp model_store/manifest.json
	$(BIN)/python -m serving start

## stop: end the server that `make serve` started
stop:
	$(BIN)/python -m serving stop

## demo: the web page at http://127.0.0.1:7860, for the server of `make serve` (ARGS, see python -m demo --help)
demo: .venv-demo/demo.stamp
	$(DEMO_BIN)/python -m demo $(ARGS)

## screenshots: docs/demo/, made anew in a real browser against a real server
screenshots: .venv/test.stamp .venv-demo/demo.stamp
	SCREENSHOTS=docs/demo $(BIN)/pytest tests/demo/test_tabs.py

## test: style, types, then every test
test: .venv/test.stamp .venv-demo/demo.stamp check
	$(BIN)/pytest

check: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

## train: a teacher if there is none, then the recipe of the shipped weights (DATA=FILE.npz, TEACHER=FILE, ARGS)
train: .venv/test.stamp $(TEACHER)
	$(BIN)/python -m training.train --data $(DATA) --recipe scratch --teacher $(TEACHER) $(ARGS)

runs/teacher/teacher.safetensors: | .venv/test.stamp
	$(BIN)/python -m training.train --data $(DATA) --recipe teacher --output $(@D)

## evaluate: the shipped checkpoint on the official test split (DATA, ARGS)
evaluate: .venv/test.stamp
	$(BIN)/python -m evaluation.classification --data $(DATA) $(ARGS)

## report: every figure of MODEL_CARD.md and docs/evaluation, from the shipped checkpoint (DATA=FILE.npz)
report: .venv/test.stamp
	$(BIN)/python -m evaluation.calibrate --data $(DATA) --output docs/evaluation
	$(BIN)/python -m evaluation.classification --data $(DATA) --output docs/evaluation
	$(BIN)/python -m evaluation.robustness --data $(DATA) --output docs/evaluation
	$(BIN)/python -m evaluation.card --reports docs/evaluation --output MODEL_CARD.md

## export: rebuild model_store/ from the shipped checkpoint
export: .venv/serve.stamp
	$(BIN)/python -m export $(ARGS)

## loadtest: a minute of load on a server of its own, reports in runs/loadtest (ARGS, see docs/load.md)
loadtest: .venv/serve.stamp .venv/loadtest.stamp model_store/manifest.json
	$(BIN)/python -m loadtest $(ARGS)

## bench: this server beside TorchServe's own handler, FastAPI, LitServe and BentoML; a quarter of an hour (ARGS)
bench: .venv/test.stamp .venv-bench/bench.stamp model_store/manifest.json
	$(BIN)/python -m bench $(ARGS)

## audit: known vulnerabilities of every pinned package; fails too where one could not be looked up
audit: .venv/audit.stamp
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement serve.lock
	$(BIN)/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt --requirement demo/constraints.txt

## sbom: what the server is made of, in CycloneDX, with a digest for every file that pip may install
sbom: .venv/audit.stamp
	mkdir -p runs
	$(BIN)/cyclonedx-py requirements serve.lock --pyproject pyproject.toml --output-reproducible --output-file runs/sbom.json

model_store/manifest.json: .venv/serve.stamp $(SOURCES) $(CHECKPOINT)
	$(BIN)/python -m export

.venv/bin/pip:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip==26.3

# Nothing is installed for the server whose digest is not in the lock.
.venv/serve.stamp: serve.lock | .venv/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement serve.lock
	touch $@

.venv/%.stamp: pyproject.toml constraints.txt | .venv/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --group $* --constraint constraints.txt
	touch $@

# Gradio does not allow the project's Pillow, so the page has an environment of its own.
.venv-demo/bin/pip:
	$(PYTHON) -m venv .venv-demo
	$(DEMO_BIN)/python -m pip install --quiet --disable-pip-version-check pip==26.3

# Servers to compare with, which pin what they like.
.venv-bench/bench.stamp: pyproject.toml bench/constraints.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --disable-pip-version-check pip==26.3
	.venv-bench/bin/pip install --quiet --disable-pip-version-check --group bench --constraint bench/constraints.txt
	touch $@

.venv-demo/demo.stamp: pyproject.toml demo/constraints.txt | .venv-demo/bin/pip
	$(DEMO_BIN)/pip install --quiet --disable-pip-version-check --group demo --constraint demo/constraints.txt
	touch $@

## lock: pin what the direct dependencies pull in
lock: .venv/bin/pip .venv-demo/bin/pip
	$(BIN)/pip install --group test
	$(BIN)/pip freeze > constraints.txt
	$(BIN)/uv pip compile --quiet --group serve --constraint constraints.txt --universal --python-version 3.11 \
		--generate-hashes --no-header --no-annotate --output-file serve.lock
	$(DEMO_BIN)/pip install --group demo
	$(DEMO_BIN)/pip freeze > demo/constraints.txt

clean:
	rm -rf .venv .venv-demo .run runs model_store/*.onnx model_store/*.mar model_store/manifest.json
