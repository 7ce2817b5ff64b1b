"""Load on a running server, over HTTP alone."""
