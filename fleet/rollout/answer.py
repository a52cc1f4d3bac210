"""What one answer to a check means: passed, failed, or no answer to go by. Pure.

An HTTP request is asked of the service itself: whatever it answers is meant. A query is asked of a witness: what
Prometheus cannot tell is inconclusive, never passed and never failed.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from fleet.inventory.condition import Comparison, parse_condition
from fleet.inventory.jsonpath import parse_json_path
from fleet.rollout.policy import HttpProbe, PrometheusQuery, Question

MOST_SHOWN = 120
"""Characters of a value that is kept in the history."""
HIDDEN = "[token]"
"""Stands for a token that a server repeats."""

_NOT_ADMITTED = (401, 403)

_NOT_ASKED = frozenset(
    {
        "AddressForbidden",
        "AddressInvalid",
        "BodyTooLarge",
        "DescriptorsExhausted",
        "NameUnknown",
        "NoRoute",
        "ProxyFailed",
    }
)
"""Reasons that say more of the way to a service, or of the question, than of the service."""


class Outcome(StrEnum):
    """What one result of a check is."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Answer:
    """One result, the value it rests on, and a sentence for people where it did not pass."""

    outcome: Outcome
    value: str = ""
    message: str = ""


def query_url(url: str) -> str:
    """Return where a Prometheus server takes instant queries; its own query string is kept, for tenants.

    >>> query_url("https://prom.example.com/eu/?tenant=a")
    'https://prom.example.com/eu/api/v1/query?tenant=a'
    """
    parts = urlsplit(url)
    path = parts.path.rstrip("/").removesuffix("/api/v1/query")
    return parts._replace(path=f"{path}/api/v1/query", fragment="").geturl()


def judge_http(probe: HttpProbe, status: int, text: str) -> Answer:
    """Judge what a service answered. `text` is the body, empty where nobody looks at it."""
    if status not in probe.status:
        wanted = ", ".join(map(str, probe.status))
        return Answer(Outcome.FAILED, str(status), f"the answer was HTTP {status}, not {wanted}")
    if probe.body and probe.body not in text:
        return Answer(Outcome.FAILED, str(status), f"the body does not contain {_shorten(probe.body)!r}")
    return _judge_json(probe, text) if probe.json_path else Answer(Outcome.PASSED, str(status))


def _judge_json(probe: HttpProbe, text: str) -> Answer:
    try:
        wanted = _parse_json(probe.equals) if probe.equals else None
    except ValueError:
        return Answer(Outcome.INCONCLUSIVE, "", "what equals holds, its variables filled in, is not JSON")
    try:
        document = _parse_json(text)
    except ValueError:
        return Answer(Outcome.FAILED, "", "the body is not JSON")
    found = parse_json_path(probe.json_path).find(document)
    if not found:
        return Answer(Outcome.FAILED, "", f"{probe.json_path} finds nothing in the body")
    wrong = next((value for value in found if probe.equals and not is_same(value, wanted)), found[0])
    shown = _shorten(json.dumps(wrong, ensure_ascii=False))
    if probe.equals and not is_same(wrong, wanted):
        return Answer(Outcome.FAILED, shown, f"{probe.json_path} is {shown}, not {_shorten(probe.equals)}")
    return Answer(Outcome.PASSED, shown)


def is_same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are equal: 1 is 1.0, but true is not 1.

    >>> is_same(1, 1.0), is_same(True, 1), is_same([{"a": 0}], [{"a": False}])
    (True, False, False)
    """
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    return bool(one == other)


def judge_silence(question: Question, reason: str, message: str) -> Answer:
    """Judge that there was no answer, from the reason of Unreachable: a service that should answer and does not is broken."""
    failed = isinstance(question, HttpProbe) and reason not in _NOT_ASKED
    return Answer(Outcome.FAILED if failed else Outcome.INCONCLUSIVE, "", message)


def judge_prometheus(query: PrometheusQuery, status: int, text: str, token: str = "") -> Answer:
    """Judge what Prometheus answered to an instant query: every series must satisfy the condition.

    `token` is what was sent along; where the answer repeats it, it is not shown.
    """
    try:
        reply = _parse_json(text, hide=token)
    except ValueError:
        reply = None
    if status in _NOT_ADMITTED:
        return _unknown(f"Prometheus does not admit us (HTTP {status}); {_explain_token(query)}{_quote_error(reply)}")
    if not isinstance(reply, dict) or "status" not in reply:
        return _unknown(f"Prometheus answered with HTTP {status}, and not as Prometheus does; check the url")
    if reply["status"] != "success" or status != 200:
        return _unknown(f"Prometheus refused the query (HTTP {status}){_quote_error(reply)}")
    try:
        series = list(_list_series(reply["data"]))
    except (AttributeError, LookupError, TypeError, ValueError):
        return _unknown("the query does not give numbers; write one that gives a scalar or an instant vector")
    return _heed_warnings(_judge_series(series, parse_condition(query.condition), query.condition), reply)


def _explain_token(query: PrometheusQuery) -> str:
    if query.token_file:
        return f"check the token in tokenFile {query.token_file}"
    return "tokenFile names a file with a bearer token"


def _quote_error(reply: Any) -> str:
    error = reply.get("error") if isinstance(reply, dict) else None
    return f": {_shorten(error)}" if isinstance(error, str) and error else ""


def _heed_warnings(answer: Answer, reply: Mapping[str, Any]) -> Answer:
    """Doubt a pass to which some of the data may be missing, and show the warnings of any other.

    Source: Prometheus marks what it remarks of the query itself by its first word (util/annotations); other warnings are
    of storage that did not answer: remote reads, Thanos's stores. VictoriaMetrics says `isPartial`.
    """
    given = reply.get("warnings")
    warnings = [str(each) for each in (given if isinstance(given, list) else [given] if given else [])]
    if answer.outcome is not Outcome.PASSED:
        return answer
    missing = [each for each in warnings if not each.startswith("PromQL ")]
    if missing:
        return Answer(Outcome.INCONCLUSIVE, answer.value, f"Prometheus lacks some of the data: {_shorten(missing[0])}")
    if reply.get("isPartial"):
        return Answer(Outcome.INCONCLUSIVE, answer.value, "Prometheus lacks some of the data: the answer is partial")
    return (
        Answer(Outcome.PASSED, answer.value, f"Prometheus warns: {_shorten('; '.join(warnings))}")
        if warnings
        else answer
    )


def _judge_series(series: Sequence[tuple[str, float]], condition: Comparison, written: str) -> Answer:
    known = [(labels, value) for labels, value in series if not math.isnan(value)]
    wrong = [(labels, value) for labels, value in known if not condition.holds(value)]
    if wrong:
        labels, value = wrong[0]
        where = f" for {labels}" if labels else ""
        more = f", and {len(wrong) - 1} more series" if len(wrong) > 1 else ""
        return Answer(Outcome.FAILED, _show(value), f"{_show(value)}{where} is not {written}{more}")
    if not series:
        return _unknown("the query finds no series")
    if len(known) < len(series):
        return Answer(Outcome.INCONCLUSIVE, "NaN", "the value is not a number: there is nothing to compare yet")
    return Answer(Outcome.PASSED, _show(known[0][1]))


def _list_series(data: Any) -> Iterator[tuple[str, float]]:
    """Yield (labels, value) of a scalar or an instant vector."""
    kind, result = data["resultType"], data["result"]
    if kind == "scalar":
        yield "", float(result[1])
    elif kind == "vector":
        for one in result:
            yield _show_labels(one["metric"]), float(one["value"][1])
    else:
        raise ValueError(kind)


def _show_labels(metric: Mapping[str, str]) -> str:
    """Write labels as PromQL does.

    >>> _show_labels({"__name__": "up", "job": "web"})
    'up{job="web"}'
    """
    labels = ", ".join(f'{name}="{value}"' for name, value in sorted(metric.items()) if name != "__name__")
    name = metric.get("__name__", "")
    return _shorten(f"{name}{{{labels}}}" if labels else name)


def _show(value: float) -> str:
    return f"{value:.10g}"


def _unknown(message: str) -> Answer:
    return Answer(Outcome.INCONCLUSIVE, "", message)


def _shorten(text: str) -> str:
    """Return the beginning of a text that others wrote, without what would move a terminal's cursor."""
    begin = text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 1]}…"
    return "".join(each if each.isprintable() else " " for each in begin)


def _parse_json(text: str, *, hide: str = "") -> Any:
    """Read JSON; in the members of objects `hide` is replaced.

    Raises: ValueError, also for what is nested too deep.
    """
    hook = partial(_hide, hide) if hide else None
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_hook=hook)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _hide(secret: str, members: Mapping[str, Any]) -> dict[str, Any]:
    """Replace a secret in names and texts of an object; read, it is found however the server wrote it."""

    def clean(value: Any) -> Any:
        if isinstance(value, list):
            return [clean(each) if isinstance(each, str) else each for each in value]
        return value.replace(secret, HIDDEN) if isinstance(value, str) else value

    return {clean(name): clean(value) for name, value in members.items()}


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")
