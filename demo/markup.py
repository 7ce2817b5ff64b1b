"""Pieces of HTML that several tabs use. Everything that is not ours is escaped here."""

from collections.abc import Iterable, Sequence
from html import escape


def picture(data: str, kind: str, alt: str, style: str = "") -> str:
    """An image inside the page itself: no file, and no address that another visitor could open."""
    return f'<img class="{style}" src="data:image/{kind};base64,{escape(data)}" alt="{escape(alt)}">'


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column heads its rows."""
    titles = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    # Wide tables scroll by themselves, also by keyboard.
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def alert(message: str) -> str:
    """A failure, read out by screen readers at once."""
    return f'<p class="notice bad" role="alert">{escape(message)}</p>'


def hint(message: str) -> str:
    return f'<p class="hint">{escape(message)}</p>'


def percent(share: float) -> str:
    """A share of 1 in percent; what is nearly nothing or nearly certain is not rounded to it."""
    if share < 0.001:
        return "under 0.1 %"
    return "over 99.9 %" if share > 0.999 else f"{100 * share:.1f} %"
