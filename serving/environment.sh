#!/bin/sh
# Creates a virtual environment: serving/environment.sh FOLDER
# Uses the first Python 3.11, 3.12 or 3.13 that has venv (PYTHON names another one), or else uv.
set -eu
folder=$1

# Runs each candidate, because a name can exist without an interpreter (pyenv) or without venv (Debian).
suitable() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2> /dev/null
}

for python in ${PYTHON:-python3.11 python3.12 python3.13 python3 python}; do
    if suitable "$python"; then
        "$python" -m venv "$folder"
        created=yes
        break
    fi
done
if [ -z "${created:-}" ]; then
    lacking="no Python 3.11, 3.12 or 3.13 with venv was found${PYTHON:+ under the name $PYTHON}"
    if ! command -v uv > /dev/null; then
        echo "$lacking, nor uv: install one of them (on Debian and Ubuntu: apt install python3-venv)" >&2
        exit 1
    fi
    echo "$lacking: uv provides one"
    uv venv --quiet --seed --python "${PYTHON:->=3.11,<3.14}" "$folder"
fi
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check pip==26.3
