"""A closed-loop client: each of N clients sends its next request when its last one is answered."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from aiohttp import ClientSession, ClientTimeout, TCPConnector


@dataclass(frozen=True)
class Payload:
    """The body of a request."""

    body: bytes
    content_type: str


@dataclass(frozen=True)
class Load:
    """Answers of one run: how many a second, and how long they took."""

    requests: int
    failures: int
    per_second: float
    p50_ms: float
    p99_ms: float
    body_bytes: int


async def _run(url: str, payloads: Sequence[Payload], clients: int, warm_up: float, seconds: float) -> Load:
    latencies: list[float] = []
    failures = sizes = 0
    order = itertools.cycle(payloads)
    begin = time.perf_counter() + warm_up
    end = begin + seconds

    async def client(session: ClientSession) -> None:
        nonlocal failures, sizes
        while (start := time.perf_counter()) < end:
            payload = next(order)
            headers = {"Content-Type": payload.content_type}
            async with session.post(url, data=payload.body, headers=headers) as answer:
                body = await answer.read()
            done = time.perf_counter()
            if not begin <= done <= end:
                continue
            latencies.append(done - start)
            sizes += len(body)
            failures += answer.status != 200

    async with ClientSession(connector=TCPConnector(limit=0), timeout=ClientTimeout(total=120)) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))
    if not latencies:
        raise RuntimeError(f"{url} answered nothing within {seconds} s")
    p50, p99 = np.percentile(latencies, (50, 99)) * 1000
    return Load(
        len(latencies),
        failures,
        round(len(latencies) / seconds, 2),
        round(float(p50), 1),
        round(float(p99), 1),
        sizes // len(latencies),
    )


def measure(url: str, payloads: Sequence[Payload], clients: int, warm_up: float, seconds: float) -> Load:
    """Load `url` with images; what is answered before `warm_up` seconds have gone is not counted."""
    return asyncio.run(_run(url, payloads, clients, warm_up, seconds))
