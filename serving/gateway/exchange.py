"""How a request went, as every place that writes it down gets it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class Exchange:
    """A request and its answer. `facts` are the handler's about the answer, or the `outcome` of an error."""

    request_id: str
    method: str
    verb: str
    traceparent: str
    status: int
    seconds: float
    request_bytes: int | None
    body: bytes
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A line of the log."""
        return {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": self.request_id,
            "verb": self.verb,
            "status": self.status,
            "seconds": round(self.seconds, 4),
            "request_bytes": self.request_bytes,
            "response_bytes": len(self.body),
            **self.facts,
        }
