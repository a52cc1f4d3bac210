"""What checks say together, and which of them are due. Pure."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from fleet.rollout.decision import Ask, Decision, Wake
from fleet.rollout.policy import Check
from fleet.rollout.state import Sample
from fleet.rollout.verdict import Failed, Passed, Pending, Verdict, judge


def verdict_of(checks: Sequence[Check], samples: Sequence[Sample], round_: int) -> Verdict:
    """Return what checks say together: failed when one failed, passed when all passed, else pending."""
    verdicts = [_judge(check, samples, round_) for check in checks]
    failed = next((v for v in verdicts if isinstance(v, Failed)), None)
    pending = next((v for v in verdicts if isinstance(v, Pending)), None)
    return failed or pending or Passed()


def due(
    checks: Sequence[Check],
    samples: Sequence[Sample],
    now: datetime,
    *,
    environment: str,
    cluster: str = "",
    round_: int = 0,
) -> Iterator[Decision]:
    """Say which checks are to be asked now, and when to look at the others again."""
    for check in checks:
        verdict = _judge(check, samples, round_)
        if isinstance(verdict, Pending):
            wait_s = (verdict.next_at - now).total_seconds() if verdict.next_at is not None else 0.0
            if not 0 < wait_s <= check.interval_s:  # longer than that: the clock was set back
                yield Ask(check=check, environment=environment, cluster=cluster, round=round_)
            else:
                yield Wake(in_s=wait_s)


def describe(checks: Sequence[Check], samples: Sequence[Sample], round_: int) -> str:
    """Name the checks that are waited for, with what the last inconclusive answer of each was."""
    open_ = [c for c in checks if isinstance(_judge(c, samples, round_), Pending)]
    last = {s.check: s for s in samples if s.round == round_}
    return "; ".join(
        f"{c.name}: {last[c.name].message}" if c.name in last and last[c.name].outcome == "inconclusive" else c.name
        for c in open_
    )


def _judge(check: Check, samples: Sequence[Sample], round_: int) -> Verdict:
    return judge([s for s in samples if s.check == check.name and s.round == round_], check)
