"""Faults of one API server: errors, hanging and slow requests, lost answers, watches that are cut or say nothing."""

import asyncio
import re
from dataclasses import dataclass, field
from typing import Final, Literal

from fleet.sim import status

Action = Literal["error", "hang", "delay", "drop_before", "drop_after"]


@dataclass(slots=True, kw_only=True)
class Rule:
    """What happens to matching requests, `times` times (None: until cleared).

    `verb` is an API verb or ``*``; `path` a regular expression on path and query. ``drop_before`` closes the connection
    unanswered and undone, ``drop_after`` does the work first: the outcome is unknown to the client.
    """

    action: Action
    verb: str = "*"
    path: str = ""
    times: int | None = None
    code: int = 0
    retry_after_s: int | None = None
    delay_s: float = 0.0

    def covers(self, verb: str, path: str) -> bool:
        return self.times != 0 and self.verb in ("*", verb) and re.search(self.path, path) is not None


_ERRORS: Final = {
    400: ("BadRequest", "the request is bad"),
    401: ("Unauthorized", "Unauthorized"),
    403: ("Forbidden", "forbidden: injected"),
    404: ("NotFound", "the server could not find the requested resource"),
    409: ("Conflict", "the object has been modified"),
    410: ("Expired", "too old resource version"),
    500: ("InternalError", "Internal error occurred: injected"),
    503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
    504: ("Timeout", "Timeout: request did not complete within requested timeout"),
}


@dataclass(slots=True)
class Faults:
    """The faults in force; the first matching rule counts."""

    rules: list[Rule] = field(default_factory=list)
    _flow: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._flow.set()

    def add(self, rule: Rule) -> Rule:
        """Put a rule in force; remove it from `rules` (or `clear`) to end it."""
        self.rules.append(rule)
        return rule

    def fail(
        self, code: int, *, verb: str = "*", path: str = "", times: int | None = None, retry_after_s: int | None = None
    ) -> Rule:
        """Answer matching requests with an error Status."""
        rule = Rule(action="error", code=code, verb=verb, path=path, times=times, retry_after_s=retry_after_s)
        return self.add(rule)

    def hang(self, *, verb: str = "*", path: str = "", times: int | None = None) -> Rule:
        """Never answer matching requests."""
        return self.add(Rule(action="hang", verb=verb, path=path, times=times))

    def delay(self, seconds: float, *, verb: str = "*", path: str = "", times: int | None = None) -> Rule:
        """Answer matching requests late."""
        return self.add(Rule(action="delay", delay_s=seconds, verb=verb, path=path, times=times))

    def drop(self, *, after: bool, verb: str = "*", path: str = "", times: int | None = None) -> Rule:
        """Close the connection of matching requests without an answer, before or `after` doing the work."""
        return self.add(Rule(action="drop_after" if after else "drop_before", verb=verb, path=path, times=times))

    def stall_watches(self, stalled: bool = True) -> None:
        """Let every watch stream fall silent without an end, or go on."""
        if stalled:
            self._flow.clear()
        else:
            self._flow.set()

    async def wait_flow(self) -> None:
        """Return when watch streams may write."""
        await self._flow.wait()

    def clear(self) -> None:
        """End all faults."""
        self.rules.clear()
        self._flow.set()

    def take(self, verb: str, path: str) -> Rule | None:
        """Return the rule for a request and count it."""
        for rule in self.rules:
            if rule.covers(verb, path):
                if rule.times is not None:
                    rule.times -= 1
                return rule
        return None


def injected_error(rule: Rule) -> status.ApiError:
    """Return the error that an `error` rule answers with."""
    if rule.code == 429:
        return status.too_many_requests(1 if rule.retry_after_s is None else rule.retry_after_s)
    reason, message = _ERRORS.get(rule.code, ("", f"injected error {rule.code}"))
    headers = {} if rule.retry_after_s is None else {"Retry-After": str(rule.retry_after_s)}
    return status.ApiError(rule.code, reason, message, headers=headers)
