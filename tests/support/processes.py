"""The processes of a server."""

from serving.frontend import FORKS

# By the first word of their names in reports, sorted.
PROCESSES = sorted(["edge", "frontend", "worker", "worker"] + ["forkserver", "proxy", "proxy"] * FORKS)
