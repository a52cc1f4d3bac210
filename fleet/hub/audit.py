"""Every act that changes something: written to the audit log before it is carried out, its result after."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace

import structlog

from fleet.aio import finish
from fleet.clock import Clock, format_at
from fleet.errors import FleetError, StoreError
from fleet.hub.event import EventLog
from fleet.hub.view import Actor, AuditRow, AuditVerdict
from fleet.log import redact
from fleet.store.audit import Act, AuditStore, Recorded, Verdict
from fleet.store.event import Event

log = structlog.get_logger()

WRITE_DEADLINE_S = 30.0


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What an act came to; whoever carries it out may say more than that it is done."""

    after: dict[str, str] = field(default_factory=dict)
    """What is so now, by name, as far as it was not known before the act."""
    result: str = "done"


class Auditor:
    """Keeps the audit log, and tells of each act as an event. Credentials in what people write are masked."""

    def __init__(self, store: AuditStore, events: EventLog, clock: Clock) -> None:
        self._store = store
        self._events = events
        self._clock = clock

    @contextlib.asynccontextmanager
    async def act(
        self,
        action: str,
        actor: Actor,
        reason: str = "",
        *,
        subject: str = "",
        cluster: str = "",
        app: str = "",
        before: Mapping[str, str] | None = None,
        after: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Outcome]:
        """Carry an act out inside the block: it begins when it is in the log, and its end is logged, too.

        Raises: StoreError when the log cannot be written; then nothing was done.
        Cancelled: the log has an act without a result.
        """
        act = Act(
            action=action,
            actor=actor.name,
            cluster=cluster,
            app=app,
            subject=redact(subject),
            reason=redact(reason),
            before=_mask(before or {}),
            after=_mask(after or {}),
        )
        seq = await self._store.begin(act)
        self._tell(act)
        outcome = Outcome()
        try:
            yield outcome
        except Exception as error:
            failed = f"failed: {error.reason}: {error}" if isinstance(error, FleetError) else "failed: InternalError"
            await self._end(seq, act, failed)
            raise
        await self._end(seq, replace(act, after={**act.after, **_mask(outcome.after)}), outcome.result)

    async def _end(self, seq: int, act: Act, result: str) -> None:
        """Store the result; what was done stays done when that fails."""
        try:
            await finish(self._store.finish(seq, act, redact(result)), WRITE_DEADLINE_S)
        except (StoreError, TimeoutError) as error:
            log.error("the result of an act was not recorded", act=seq, action=act.action, error=str(error))

    def _tell(self, act: Act) -> None:
        self._events.append(
            Event(
                at=self._clock.now(),
                kind="audit",
                reason=act.action,
                message=": ".join(filter(None, (act.subject, act.reason))),
                cluster=act.cluster,
                app=act.app,
                actor=act.actor,
            )
        )


def _mask(values: Mapping[str, str]) -> dict[str, str]:
    return {name: redact(value) for name, value in values.items()}


def audit_row(recorded: Recorded) -> AuditRow:
    """Show an act."""
    act = recorded.act
    return AuditRow(
        seq=recorded.seq,
        at=format_at(recorded.at),
        actor=act.actor,
        action=act.action,
        cluster=act.cluster,
        app=act.app,
        subject=act.subject,
        reason=act.reason,
        before=dict(act.before),
        after=dict(act.after),
        result=recorded.result,
        finished_at=format_at(recorded.finished_at) if recorded.finished_at else "",
        hash=recorded.hash,
    )


def audit_verdict(verdict: Verdict) -> AuditVerdict:
    """Show what a walk along the chain found."""
    return AuditVerdict(
        intact=not verdict.broken,
        rows=verdict.rows,
        head=verdict.head,
        broken=verdict.broken,
        message=verdict.message,
    )
