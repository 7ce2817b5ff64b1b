"""The answer to one image, and the joined answers to several images of one request."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from serving.gateway.payload import Payload
from serving.gateway.policy import JSON, RefusedError


@dataclass(frozen=True)
class Question:
    """One image for one verb, `predictions` or `explanations`."""

    verb: str
    payload: Payload


@dataclass(frozen=True)
class Answer:
    """An HTTP answer of the model, and the handler's facts about it."""

    status: int
    content_type: str
    body: bytes
    facts: Mapping[str, Any] = field(default_factory=dict)


async def answer_each(questions: Sequence[Question], ask: Callable[[Question], Awaitable[Answer]]) -> list[Answer]:
    """The answer to each question, in order. An error concerns its own question only."""

    async def answer(question: Question) -> Answer:
        try:
            return await ask(question)
        except RefusedError as error:
            return refusal(error)

    return await asyncio.gather(*(answer(question) for question in questions))


def refusal(error: RefusedError) -> Answer:
    """The answer that an error is."""
    return Answer(error.status, JSON, error.body, {"outcome": error.code})


def common_error(answers: Sequence[Answer]) -> Answer | None:
    """The error that is the answer to every question, such as a wrong option."""
    first = answers[0]
    same = first.status != HTTPStatus.OK and all(answer.body == first.body for answer in answers)
    return first if same else None


def join(answers: Sequence[Answer]) -> bytes:
    """The JSON `{"results": [...]}` from JSON answers."""
    return b'{"results":[' + b",".join(answer.body for answer in answers) + b"]}"
