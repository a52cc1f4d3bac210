"""No verb of the hub goes round the audit log."""

import inspect
import re
from typing import Any

import pytest

from fleet.hub.custody import Custody
from fleet.hub.service import HubService
from fleet.hub.view import Actor


def verbs() -> list[str]:
    """Name the methods that are told who asks."""
    return [
        name
        for name, method in vars(HubService).items()
        if inspect.isfunction(method)
        and any(p.annotation is Actor for p in inspect.signature(method).parameters.values())
    ]


def source(name: str) -> str:
    """Return a verb's source, or that of what it passes its arguments on to."""
    code = inspect.getsource(getattr(HubService, name))
    passed_on: Any = re.search(r"return await self\._custody\.(\w+)\(", code)
    return inspect.getsource(getattr(Custody, passed_on[1])) if passed_on else code


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_is_an_act_in_the_log(verb: str) -> None:
    """Whoever adds a verb with an actor carries it out inside an act of the auditor."""
    assert "async with self._auditor.act(" in source(verb)


def test_verbs_are_found() -> None:
    """The test above speaks of something."""
    assert {"sync", "pause", "restart", "create_token", "drain_cluster"} <= set(verbs())
