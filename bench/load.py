"""What the API server and the hub count of their own work."""

import asyncio
import re
from collections import Counter
from dataclasses import dataclass

import aiohttp

from fleet.metric import REGISTRY

_LINE = re.compile(r"^apiserver_request_total\{(?P<labels>[^}]*)\} (?P<value>\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
OBJECTS = frozenset({"serviceaccounts", "configmaps", "services", "deployments"})
QUIET_S = 0.5
QUIET_MOST_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Requests so far: what the hub says it sent, by (verb, code), and what the server answered, by (verb, resource)."""

    sent: Counter[tuple[str, str]]
    answered: Counter[tuple[str, str]]

    def since(self, before: "Count") -> "Count":
        """Return what came after `before`."""
        return Count(sent=self.sent - before.sent, answered=self.answered - before.answered)

    @property
    def calls(self) -> int:
        """What the hub sent but watches."""
        return sum(number for (verb, _), number in self.sent.items() if verb != "WATCH")

    @property
    def watches(self) -> int:
        """How often the hub opened a watch."""
        return sum(number for (verb, _), number in self.sent.items() if verb == "WATCH")

    @property
    def on_objects(self) -> int:
        """What the server answered about objects of the kinds delivered, whoever asked; neither watches nor lists."""
        return sum(self._on_kinds(verb) for verb in {verb for verb, _ in self.answered} - {"WATCH", "LIST"})

    @property
    def lists(self) -> int:
        """How often somebody listed one of the kinds delivered: the server itself does, the hub only where a watch broke."""
        return self._on_kinds("LIST")

    def _on_kinds(self, verb: str) -> int:
        return sum(self.answered[verb, resource] for resource in OBJECTS)

    @property
    def on_leases(self) -> int:
        """What the server answered about Leases, whoever asked."""
        return sum(n for (_, resource), n in self.answered.items() if resource == "leases")


async def count(session: aiohttp.ClientSession) -> Count:
    """Read both counters."""
    async with session.get("/metrics") as reply:
        text = await reply.text()
    answered: Counter[tuple[str, str]] = Counter()
    for line in _LINE.finditer(text):
        labels = dict(_LABEL.findall(line["labels"]))
        answered[labels["verb"], labels["resource"]] += int(float(line["value"]))
    return Count(sent=_sent(), answered=answered)


def _sent() -> Counter[tuple[str, str]]:
    samples = [s for metric in REGISTRY.collect() for s in metric.samples if s.name == "fleet_api_requests_total"]
    sent: Counter[tuple[str, str]] = Counter()
    for sample in samples:
        sent[sample.labels["verb"], sample.labels["code"]] += int(sample.value)
    return sent


async def quiet(session: aiohttp.ClientSession) -> None:
    """Wait until nobody asks for objects any more: controllers go on for a while after a write."""
    loop = asyncio.get_running_loop()
    deadline, before = loop.time() + QUIET_MOST_S, -1
    while (now := (await count(session)).on_objects) != before and loop.time() < deadline:
        before = now
        await asyncio.sleep(QUIET_S)
