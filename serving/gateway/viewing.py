"""Pixels of regions and slides for the page, from `python -m regions.viewing`.

That is a process of its own, because a damaged file can crash what decodes it. It gets a line of JSON for each picture,
and answers with a line of JSON that says how many bytes follow.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from serving.gateway.policy import RefusedError
from serving.gateway.settings import ROOT

# Seconds for one picture.
PATIENCE = 30


class Viewing:
    """Asks one process at a time, and starts another if it has ended. An async context manager."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> "Viewing":
        return self

    async def __aexit__(self, *_: object) -> None:
        async with self._turn:
            await self._end()

    async def ask(self, question: Mapping[str, Any]) -> bytes:
        """What the process answers; raises `RefusedError` with its error, or if it ends or takes too long."""
        async with self._turn:
            try:
                async with asyncio.timeout(PATIENCE):
                    return await self._ask(await self._running(), question)
            except TimeoutError as error:
                await self._end()
                raise RefusedError(504, "The picture took too long.") from error
            except (OSError, ValueError, asyncio.IncompleteReadError) as error:
                await self._end()
                raise RefusedError(400, "The picture cannot be read.", "file_unreadable") from error
            except asyncio.CancelledError:
                # Half an answer may be left to read.
                await self._end()
                raise

    async def _ask(self, process: asyncio.subprocess.Process, question: Mapping[str, Any]) -> bytes:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(question).encode() + b"\n")
        await process.stdin.drain()
        head = json.loads(await process.stdout.readline())
        if error := head.get("error"):
            raise RefusedError(error["status"], error["message"], error["code"], error["field"])
        return await process.stdout.readexactly(head["bytes"])

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            # The token is the edge's own.
            environment = {name: value for name, value in os.environ.items() if name != "PATHMNIST_TOKEN"}
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "regions.viewing"),
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        return self._process

    async def _end(self) -> None:
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        self._process = None
