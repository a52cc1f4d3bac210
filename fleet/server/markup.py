"""HTML as values: whatever is not markup already is escaped. Pure."""

import html
from collections.abc import Iterable


class Html(str):
    """Text that is markup and may be put into a page as it is."""

    __slots__ = ()


Child = str | int | None

_VOID = frozenset({"input"})
"""Elements that have no end."""


def tag(name: str, /, *children: Child, **attributes: Child) -> Html:
    """Make an element. `class_` gives `class`, `data_x` gives `data-x`; an attribute of None is left out.

    >>> tag("p", "a < b", class_="note")
    '<p class="note">a &lt; b</p>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>" if name in _VOID else f"<{name}{given}>{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Html:
    """Put children behind one another; what is not Html is escaped."""
    return Html("".join(c if isinstance(c, Html) else html.escape(str(c)) for c in children if c is not None))
