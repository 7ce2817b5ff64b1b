PYTHON ?= python3.11
DATA ?= medmnist
BIN := .venv/bin
CHECKPOINT := $(wildcard training/checkpoints/*)
SOURCES := $(wildcard handler/*.py handler/explain/*.py export/*.py export/*.yaml)

.PHONY: serve stop test check train evaluate report export lock clean

## serve: build what is missing, start TorchServe, print ready after a real prediction; Ctrl-C ends it
serve: .venv/serve.stamp model_store/manifest.json
	$(BIN)/python -m serving start

## stop: end the server that `make serve` started
stop:
	$(BIN)/python -m serving stop

## test: style, types, then every test
test: .venv/test.stamp check
	$(BIN)/pytest

check: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

## train: the classic recipe on the official data (DATA=FILE.npz, ARGS adds options: python -m training.train --help)
train: .venv/test.stamp
	$(BIN)/python -m training.train --data $(DATA) $(ARGS)

## evaluate: the shipped checkpoint on the official test split (DATA, ARGS)
evaluate: .venv/test.stamp
	$(BIN)/python -m training.evaluate --data $(DATA) $(ARGS)

## report: every figure of MODEL_CARD.md and docs/evaluation, from the shipped checkpoint (DATA=FILE.npz)
report: .venv/test.stamp
	$(BIN)/python -m training.calibrate --data $(DATA) --output docs/evaluation
	$(BIN)/python -m training.evaluate --data $(DATA) --output docs/evaluation
	$(BIN)/python -m training.robustness --data $(DATA) --output docs/evaluation
	$(BIN)/python -m training.card --reports docs/evaluation --output MODEL_CARD.md

## export: rebuild model_store/ from the shipped checkpoint
export: .venv/serve.stamp
	$(BIN)/python -m export $(ARGS)

model_store/manifest.json: .venv/serve.stamp $(SOURCES) $(CHECKPOINT)
	$(BIN)/python -m export

.venv/bin/pip:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip==26.3

.venv/%.stamp: pyproject.toml constraints.txt | .venv/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --group $* --constraint constraints.txt
	touch $@

## lock: pin what the direct dependencies pull in
lock: .venv/bin/pip
	$(BIN)/pip install --group test
	$(BIN)/pip freeze > constraints.txt

clean:
	rm -rf .venv .run runs model_store/*.onnx model_store/*.mar model_store/manifest.json
