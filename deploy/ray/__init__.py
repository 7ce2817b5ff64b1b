"""The core of `handler/` on a Ray cluster: an HTTP server, and bulk classification."""

import os

# Ray reads these when it is imported: it reports to nobody, and one that is started here listens on loopback alone.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if "RAY_ADDRESS" not in os.environ:
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
