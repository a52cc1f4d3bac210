"""Values in place of `${NAME}` in questions, each written so that it stays one value wherever it stands. Pure.

| where | how |
|---|---|
| host and port of a URL | as it is; only letters, digits and `. _ : -` |
| path, query and fragment of a URL | percent-encoded; `.` and `..` are no names of a path |
| PromQL | what could end a string or a line by its number, which is the same in every string |
| `equals` | as within a JSON string |
| `body` | as it is: it is looked for, not read |
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import quote

from fleet.inventory.placeholder import fill
from fleet.rollout.policy import PrometheusQuery, Question

_HOST = re.compile(r"[A-Za-z0-9._:-]*")
_PROMQL = str.maketrans({"\\": r"\x5c", '"': r"\x22", "'": r"\x27", "`": r"\x60", "\n": r"\n"})


def fill_question(question: Question, values: Mapping[str, str]) -> Question:
    """Return a question with values in place of `${NAME}`.

    Raises: ValueError naming the one that has no value, or whose value may not stand where it is asked for.
    """
    url = fill_url(question.url, values)
    if isinstance(question, PrometheusQuery):
        return replace(question, url=url, query=fill_promql(question.query, values))
    return replace(
        question, url=url, body=fill(question.body, values), equals=fill(question.equals, values, _write_json)
    )


def fill_url(url: str, values: Mapping[str, str]) -> str:
    """Return a URL with values filled in: none of them moves the place where host, path or query ends.

    >>> fill_url("https://${c}.example.com/${p}?at=${r}", {"c": "a", "p": "b/c", "r": "b#1"})
    'https://a.example.com/b%2Fc?at=b%231'

    Raises: ValueError, for people.
    """
    start = url.find("://") + 3
    path = _find(url, "/?#", start)
    tail = _find(url, "?#", path)
    parts = ((url[:path], _write_host), (url[path:tail], _write_path), (url[tail:], _encode))
    return "".join(fill(text, values, write) for text, write in parts)


def fill_promql(query: str, values: Mapping[str, str]) -> str:
    r"""Return a query with values filled in: none of them ends the string that it stands in.

    >>> fill_promql('up{job="${j}"}', {"j": '"} or vector(0) #'})
    'up{job="\\x22} or vector(0) #"}'

    Raises: ValueError, for people.
    """
    raw = "`" in query

    def write(name: str, value: str) -> str:
        written = value.translate(_PROMQL)
        if raw and written != value:
            raise ValueError(
                f"the value of ${{{name}}} needs escapes, which a string in ` has not; write it in double quotes"
            )
        return written

    return fill(query, values, write)


def _find(text: str, ends: str, start: int) -> int:
    """Return where the first of some characters is; names hold none of them."""
    return min((at for end in ends if (at := text.find(end, start)) >= 0), default=len(text))


def _write_host(name: str, value: str) -> str:
    if not _HOST.fullmatch(value):
        raise ValueError(f"the value of ${{{name}}} cannot be part of a host; it may hold letters, digits and . _ : -")
    return value


def _write_path(name: str, value: str) -> str:
    if value in (".", ".."):
        raise ValueError(
            f"the value of ${{{name}}} leads to another directory of the url; name a path without . and .."
        )
    return _encode(name, value)


def _encode(_: str, value: str) -> str:
    return quote(value, safe="")


def _write_json(_: str, value: str) -> str:
    return json.dumps(value, ensure_ascii=False)[1:-1]
