"""What the steps of a request leave in it: its id, what it asked of the model, and the answers, for the log."""

from collections.abc import Sequence

from aiohttp import web

from serving.gateway.answer import Answer

IDENTITY = web.RequestKey("identity", str)
VERB = web.RequestKey("verb", str)
ANSWERS = web.RequestKey("answers", Sequence[Answer])
