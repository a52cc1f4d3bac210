"""The nearest valid name, for messages about a wrong one. Pure."""

import difflib
from collections.abc import Iterable


def suggest(word: str, known: Iterable[str]) -> str:
    """Return a clause that names the nearest known word, else all of a few; empty when neither helps.

    >>> suggest("clustr", ["app", "cluster"])
    '; did you mean cluster?'
    >>> suggest("x", ["app", "cluster"])
    '; known are app, cluster'
    """
    names = sorted(known)
    close = difflib.get_close_matches(word, names, 1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known are {', '.join(names)}" if 0 < len(names) <= 10 else ""
