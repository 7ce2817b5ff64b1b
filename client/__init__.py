"""A Python client of the server. It speaks HTTP and needs requests and NumPy."""

from client.client import Answer, Client, Explanation, Field, Fit, ServerError

__all__ = ["Answer", "Client", "Explanation", "Field", "Fit", "ServerError"]
