"""The model in a browser, as a folder of static files."""
