"""Work on a batch in which one item's failure costs that item alone."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")

logger = logging.getLogger(__name__)


def together_or_alone(
    items: Sequence[Item], work: Callable[[Sequence[Item]], None], fail: Callable[[Item, Exception], None]
) -> None:
    """Do `work` for all items at once. If that raises, do it for each item alone, and `fail` those that raise again.

    `work` must be safe to repeat.
    """
    if not items:
        return
    try:
        work(items)
    except Exception as error:
        if len(items) == 1:
            fail(items[0], error)
            return
        logger.warning("a batch of %d failed; each of its items is tried alone", len(items), exc_info=error)
        for item in items:
            together_or_alone([item], work, fail)
