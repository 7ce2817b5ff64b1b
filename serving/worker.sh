#!/bin/sh
# The program that TorchServe runs as Python for its workers. Without site-packages it takes 8 MB.
exec "$PATHMNIST_PYTHON" -IS "${0%/*}/worker_proxy.py" "$@"
