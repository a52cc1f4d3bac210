"""Asks the checks of rollouts: variables filled in, one request, one result."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import assert_never

from fleet.clock import Clock
from fleet.errors import ConfigError, Unreachable
from fleet.inventory.value import Inventory
from fleet.inventory.variable import stage_variables
from fleet.net.probe import Probe, send_probe
from fleet.net.reach import Reach
from fleet.object import TargetId
from fleet.rollout.answer import (
    Answer,
    Outcome,
    judge_http,
    judge_prometheus,
    judge_silence,
    query_url,
)
from fleet.rollout.decision import Ask
from fleet.rollout.filling import fill_question
from fleet.rollout.policy import HttpProbe, PrometheusQuery, Question
from fleet.rollout.state import Run, Sample

MOST_AT_ONCE = 100
"""Questions under way: a batch of thousands of clusters must not use up the file descriptors that the clusters need."""


class Asker:
    """Asks checks, over whatever way the hub has to the outside."""

    def __init__(self, *, reach: Reach, clock: Clock, inventory: Callable[[], Inventory | None]) -> None:
        self._reach = reach
        self._clock = clock
        self._inventory = inventory
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)

    async def ask(self, ask: Ask, run: Run) -> Sample:
        """Ask a check once, when there is a turn. What goes wrong is a result; never raises but for bugs."""
        try:
            question = fill_question(ask.check.question, self._list_values(ask, run))
            async with self._turns:
                answer = await self._answer(question, ask.check.timeout_s)
        except ValueError as error:
            answer = Answer(Outcome.INCONCLUSIVE, "", str(error))
        return _keep(answer, ask, self._clock.now())

    def _list_values(self, ask: Ask, run: Run) -> Mapping[str, str]:
        values = {
            **self._list_variables(ask, run.app),
            "app": run.app,
            "environment": ask.environment,
            "release": f"{run.app}#{run.release}",
            "revision": run.revision,
        }
        return values | {"cluster": ask.cluster} if ask.cluster else values

    def _list_variables(self, ask: Ask, app: str) -> Mapping[str, str]:
        """Return the variables of a target, or, for a stage, those that do not depend on the cluster."""
        inventory = self._inventory()
        if inventory is None:
            return {}
        if ask.cluster:
            target = inventory.targets.get(TargetId(ask.cluster, app))
            return target.variables if target is not None else {}
        document, environment = inventory.apps.get(app), inventory.environments.get(ask.environment)
        return stage_variables(document, environment) if document is not None and environment is not None else {}

    async def _answer(self, question: Question, timeout_s: float) -> Answer:
        try:
            if isinstance(question, HttpProbe):
                return await self._ask_http(question, timeout_s)
            if isinstance(question, PrometheusQuery):
                return await self._ask_prometheus(question, timeout_s)
            assert_never(question)
        except Unreachable as error:
            return judge_silence(question, error.reason, error.message)
        except ConfigError as error:
            return Answer(Outcome.INCONCLUSIVE, "", error.message)

    async def _ask_http(self, http: HttpProbe, timeout_s: float) -> Answer:
        probe = Probe(
            url=http.url,
            method=http.method,
            ca_file=http.ca_file,
            allow_link_local=http.allow_link_local,
            read_body=bool(http.body or http.json_path),
            timeout_s=timeout_s,
        )
        reply = await send_probe(probe, self._reach)
        return judge_http(http, reply.status, reply.text)

    async def _ask_prometheus(self, query: PrometheusQuery, timeout_s: float) -> Answer:
        probe = Probe(
            url=query_url(query.url),
            method="POST",
            form={"query": query.query},
            ca_file=query.ca_file,
            token_file=query.token_file,
            allow_link_local=query.allow_link_local,
            timeout_s=timeout_s,
        )
        reply = await send_probe(probe, self._reach)
        return judge_prometheus(query, reply.status, reply.text, reply.token)


def _keep(answer: Answer, ask: Ask, at: datetime) -> Sample:
    return Sample(
        check=ask.check.name,
        at=at,
        outcome=answer.outcome,
        value=answer.value,
        message=answer.message,
        round=ask.round,
    )
