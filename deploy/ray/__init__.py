"""The core of `handler/` on a Ray cluster: an HTTP server, and bulk classification."""

import os

# Ray reads these at import: no usage reports, and a Ray started here listens only on loopback.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if "RAY_ADDRESS" not in os.environ:
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
