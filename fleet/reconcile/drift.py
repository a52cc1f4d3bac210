"""Drift: what somebody took from us or added beside us, and when repairing it becomes a fight. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from fleet.kube.ownership import FieldSet, digest_fields
from fleet.object import ObjectKey
from fleet.reconcile.live import LiveObject
from fleet.store.ledger import Entry

MOST_NAMED = 3

FIGHT_WINDOW = timedelta(seconds=30)
FIGHT_ROUNDS = 5
FIRST_PAUSE = timedelta(seconds=10)
MOST_PAUSE = timedelta(minutes=10)
QUIET = timedelta(minutes=30)


def matching(names: Iterable[str], globs: Sequence[str]) -> tuple[str, ...]:
    """Pick the manager names that a list of globs covers.

    >>> matching(["kubectl-edit", "vpa"], ["kubectl*"])
    ('kubectl-edit',)
    """
    return tuple(name for name in names if any(fnmatchcase(name, glob) for glob in globs))


REPLICAS = "/spec/replicas"
_REPLICAS = FieldSet.of([("f:spec", "f:replicas")])


def is_taken(entry: Entry, live: LiveObject, yielded: Sequence[str] = ()) -> bool:
    """Tell whether somebody took a value that we own: our managedFields entry is no longer the one we left.

    `yielded` are JSON pointers that are not ours to defend: `entry.owned` was recorded without them, or with replicas
    when an autoscaler has come since.
    """
    if live.rv <= entry.rv or live.owned == entry.owned:
        return False
    fields = live.own_fields()
    if not yielded or fields is None:
        return True
    left = fields.without(yielded)
    candidates = [left, left.union(_REPLICAS)] if REPLICAS in yielded else [left]
    return entry.owned not in {digest_fields(each) for each in candidates}


def added_by(live: LiveObject, drift_managers: Sequence[str], yielded: Sequence[str] = ()) -> tuple[str, ...]:
    """Name the drift managers that added fields beside ours, apart from the yielded ones."""
    found = matching(live.foreign, drift_managers)
    return tuple(name for name in found if live.adds(name, yielded)) if yielded else found


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What the daily audit found of one object: values that Git sets and that are not there."""

    digest: bytes
    """Of the manifest that it was compared with."""
    paths: tuple[str, ...] = ()
    refusal: str = ""
    """Why the API server would not apply it any more."""

    @property
    def message(self) -> str:
        """Say it in a sentence."""
        if self.refusal:
            return f"the API server would not take it any more: {self.refusal}"
        more = f" and {len(self.paths) - MOST_NAMED} more" if len(self.paths) > MOST_NAMED else ""
        named = ", ".join(self.paths[:MOST_NAMED])
        return f"not as Git says, although nobody took it: {named}{more}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """How often one object was taken again right after our repair, and by whom.

    Drift managers are people with kubectl: they never make a contest. Deletions count whoever deletes.
    """

    rounds: int = 0
    manager: str = ""
    repaired_at: datetime | None = None
    counted: bool = False
    """The taking since our last repair is among the rounds."""
    pause: timedelta = timedelta(0)
    until: datetime | None = None

    @property
    def active(self) -> bool:
        """Repairs of this object are being spaced out."""
        return self.rounds >= FIGHT_ROUNDS


def note_repair(contest: Contest, now: datetime) -> Contest:
    """Remember that we repaired."""
    return replace(contest, repaired_at=now, counted=False)


def note_drift(contest: Contest, manager: str, now: datetime) -> Contest:
    """Count a taking, once per repair; `manager` is empty for a deletion.

    Five within 30 s of our repairs make it contested. From then on each further round doubles the pause before the next
    repair, from 10 s to 10 min; 30 quiet minutes forget it all.
    """
    last = contest.repaired_at
    if last is None or now - last > QUIET:
        return Contest(manager=manager)
    if contest.counted:
        return contest
    if not contest.active and (now - last > FIGHT_WINDOW or manager != contest.manager):
        return Contest(manager=manager, rounds=1, repaired_at=last, counted=True)
    rounds = contest.rounds + 1
    if rounds < FIGHT_ROUNDS:
        return replace(contest, rounds=rounds, counted=True)
    pause = min(contest.pause * 2, MOST_PAUSE) if contest.pause else FIRST_PAUSE
    return replace(contest, rounds=rounds, counted=True, pause=pause, until=now + pause)


def is_fresh(contest: Contest, now: datetime) -> bool:
    """Tell whether a contested object's last repair is too recent to know that it holds."""
    return contest.active and contest.repaired_at is not None and now - contest.repaired_at < FIGHT_WINDOW


def blocked_until(contests: Mapping[ObjectKey, Contest], key: ObjectKey, now: datetime) -> datetime | None:
    """Return when a contested object may be repaired again; None = now."""
    contest = contests.get(key)
    if contest is None or contest.until is None or contest.until <= now:
        return None
    return contest.until
