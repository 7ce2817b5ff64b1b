"""This server's own engine and answers behind FastAPI: what leaving TorchServe would give.

Run as `python -m bench.fastapi_engine PORT MODEL_STORE`. All requests that wait form the next batch, of up to eight.
"""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI, Request, Response

from handler.api.image import ImageLimits
from handler.api.request import RawRequest
from handler.api.service import Service
from handler.archive import open_engine, unpack
from handler.classifier import Classifier

BATCH = 8
Queue = asyncio.Queue[tuple[bytes, asyncio.Future[bytes]]]


def open_service(model_store: Path, folder: Path) -> Service:
    """The service of the exported archive, unpacked in `folder`, with the engine that this machine selects."""
    settings = unpack(model_store / "pathmnist.mar", folder)
    engine = open_engine(folder, settings, torch.device("cpu"), model_store)
    return Service(Classifier(engine), ImageLimits(**settings.get("image_limits", {})))


async def answer(queue: Queue, service: Service) -> None:
    """Answer batch after batch."""
    while True:
        waiting = [await queue.get()]
        while len(waiting) < BATCH and not queue.empty():
            waiting.append(queue.get_nowait())
        requests = [RawRequest({"body": body}) for body, _ in waiting]
        for response, (_, future) in zip(await asyncio.to_thread(service.respond, requests), waiting, strict=True):
            future.set_result(response.body)


def application(service: Service) -> FastAPI:
    queue: Queue = asyncio.Queue()

    @asynccontextmanager
    async def lifetime(_: FastAPI) -> AsyncIterator[None]:
        worker = asyncio.create_task(answer(queue, service))
        yield
        worker.cancel()

    app = FastAPI(lifespan=lifetime)

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        queue.put_nowait((await request.body(), future))
        return Response(await future, media_type="application/json")

    return app


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        app = application(open_service(Path(sys.argv[2]), Path(folder)))
        uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
