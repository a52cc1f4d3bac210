"""How an environment wants to be rolled out to: values, made from inventory documents."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias


class OnFailure(StrEnum):
    """What a run does when more clusters broke than its budget allows."""

    PAUSE = "pause"
    ROLLBACK = "rollback"


class OnUnreachable(StrEnum):
    """What a run does with a cluster that cannot be reached."""

    WAIT = "wait"
    DEFER = "defer"
    FAIL = "fail"


class OnNewRelease(StrEnum):
    """What a newer release does to a run under way."""

    SUPERSEDE = "supersede"
    FINISH = "finish"
    """The run ends first; of the releases that came meanwhile each is run, in order."""
    QUEUE = "queue"
    """The run ends first; of the releases that came meanwhile only the newest is run."""


@dataclass(frozen=True, slots=True)
class Amount:
    """A number of clusters, or a share of them."""

    count: int | None = None
    percent: int | None = None
    """1 to 100 in batches, 0 to 100 in budgets."""

    def of(self, total: int, *, at_least: int = 0) -> int:
        """Return how many of `total` clusters are meant: percentages round down, never below `at_least`.

        >>> Amount(percent=25).of(10), Amount(percent=1).of(10, at_least=1), Amount(count=3).of(2)
        (2, 1, 2)
        """
        wanted = self.count if self.count is not None else total * (self.percent or 0) // 100
        return min(total, max(at_least, wanted))

    def __str__(self) -> str:
        """Write as in the inventory."""
        return str(self.count) if self.count is not None else f"{self.percent}%"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A span of time that begins whenever a cron line fires."""

    cron: str
    duration_s: float
    timezone: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """How many people must say yes before a stage begins."""

    required: int
    expires_s: float | None = None
    """An approval older than this no longer counts; None = for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpProbe:
    """An HTTP request whose answer says whether all is well."""

    url: str
    """May hold `${cluster}`, `${environment}`, `${app}`, `${revision}`, `${release}` and the target's variables; so may
    `body`, `equals` and the query of Prometheus."""
    method: str = "GET"
    status: tuple[int, ...] = (200,)
    body: str = ""
    """Text that the body must contain."""
    json_path: str = ""
    equals: str = ""
    """What `json_path` must find, written as JSON; empty = it must find something."""
    ca_file: str = ""
    allow_link_local: bool = False
    """Link-local, metadata and multicast addresses are refused unless this is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusQuery:
    """A query whose value must satisfy a condition."""

    url: str
    query: str
    condition: str
    """A comparison with a number: `< 0.01`, `>= 2`, `== 0`."""
    token_file: str = ""
    ca_file: str = ""
    allow_link_local: bool = False


Question: TypeAlias = HttpProbe | PrometheusQuery


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A question asked several times before a run goes on."""

    name: str
    question: Question
    per_cluster: bool = False
    """Asked of every cluster before it is done, instead of once after the last cluster of a stage."""
    interval_s: float = 10.0
    count: int = 1
    """Passed results in all that make the check pass."""
    failure_limit: int = 0
    """Failed results that are forgiven."""
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePolicy:
    """The rules of one environment for one app."""

    environment: str
    after: tuple[str, ...] = ()
    """Stages that must have ended well first: only such as the app has targets in, through those it has none in."""
    staged: bool = False
    """Has a policy of its own; else all its clusters move at once, after the stages before it."""
    batches: tuple[Amount, ...] = (Amount(percent=100),)
    """Cumulative."""
    first: tuple[str, ...] = ()
    """Clusters that go first, in this order (canaries)."""
    order_label: str = ""
    """A cluster label that orders the rest (as a number where it is one); then by name."""
    pace_s: float = 0.0
    """Least time between two starts."""
    failure_budget: Amount = field(default_factory=lambda: Amount(count=0))
    deadline_s: float = 900.0
    """From the start of a cluster to healthy with the release."""
    stage_deadline_s: float | None = None
    """From the start of a stage to its end, gates not counted."""
    soak_s: float = 0.0
    on_failure: OnFailure = OnFailure.PAUSE
    on_unreachable: OnUnreachable = OnUnreachable.DEFER
    unreachable_wait_s: float | None = None
    """With `wait`: how long, before the cluster counts as failed; None = for ever."""
    on_new_release: OnNewRelease = OnNewRelease.SUPERSEDE
    approval: Approval | None = None
    windows: tuple[Window, ...] = ()
    """Starts happen only inside one of them; none = always."""
    freezes: tuple[Window, ...] = ()
    """No start inside any of them."""
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules of one app's runs: its stages, each after those it names."""

    stages: tuple[StagePolicy, ...]

    def stage(self, environment: str) -> StagePolicy | None:
        """Return the rules of an environment; None when the app has no target there."""
        return next((s for s in self.stages if s.environment == environment), None)
