"""`${NAME}` in the text of checks: only that form, and every name must have a value. Pure.

`$${` is text: `${`. A `$` before anything else is itself.
"""

import re
from collections.abc import Callable, Mapping

PLACE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}|(?P<broken>\$\{)")


def list_names(text: str) -> list[str]:
    """Return the names that a text holds, in order.

    >>> list_names("https://${cluster}.${DOMAIN}/$${x}")
    ['cluster', 'DOMAIN']

    Raises: ValueError, for people.
    """
    return [name for found in PLACE.finditer(text) if (name := _read(found))]


def _as_it_is(_: str, value: str) -> str:
    return value


def fill(text: str, values: Mapping[str, str], write: Callable[[str, str], str] = _as_it_is) -> str:
    """Return a text with values in place of names, each as `write` returns it for its name and value.

    >>> fill("https://${cluster}/$${x}", {"cluster": "a"})
    'https://a/${x}'

    Raises: ValueError naming what has no value, and whatever `write` raises; never shows a value.
    """

    def value_of(found: re.Match[str]) -> str:
        name = _read(found)
        if name and name not in values:
            raise ValueError(f"${{{name}}} has no value here")
        return write(name, values[name]) if name else "${"

    return PLACE.sub(value_of, text)


def _read(found: re.Match[str]) -> str:
    """Return a name; empty for what is text."""
    if found["broken"]:
        raise ValueError("holds ${ without a name and }; write ${NAME}, or $${ for the text ${")
    return found["name"] or ""
