"""The web page: a client of the HTTP API that holds no model."""
