"""The parts of the status page, from rows to HTML. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from fleet.hub.rolloutview import RolloutDetail
from fleet.hub.view import ClusterRow, HoldRow, PauseRow, ProblemRow, RepositoryRow, Status, TargetRow
from fleet.server.markup import Html, join, tag
from fleet.store.event import Event

MOST_CELLS = 20_000
MOST_ROWS = 100

LOOKS: Mapping[str, tuple[str, str]] = {
    "Synced": ("good", "✓"),
    "Ready": ("good", "✓"),
    "Progressing": ("busy", "↻"),
    "Connecting": ("busy", "↻"),
    "Waiting": ("busy", "…"),
    "Paused": ("warn", "‖"),
    "Drifted": ("warn", "≠"),
    "Degraded": ("bad", "▲"),
    "Failed": ("bad", "✕"),
    "Stale": ("still", "◌"),
    "Unknown": ("still", "?"),
    "Done": ("good", "✓"),
    "Planned": ("busy", "·"),
    "Running": ("busy", "↻"),
    "Checking": ("busy", "?"),
    "Applying": ("busy", "↻"),
    "Verifying": ("busy", "↻"),
    "Soaking": ("busy", "…"),
    "Held": ("warn", "…"),
    "AwaitingApproval": ("warn", "…"),
    "Aborted": ("bad", "✕"),
    "RolledBack": ("bad", "↶"),
    "Pending": ("still", "·"),
    "Deferred": ("still", "◌"),
    "Skipped": ("still", "»"),
}
"""State -> class and shape: never colour alone."""
_ORDER = ("Failed", "Degraded", "Drifted", "Stale", "Unknown", "Paused", "Waiting", "Connecting", "Progressing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the page shows, taken at one moment and filtered."""

    status: Status
    clusters: Sequence[ClusterRow]
    targets: Sequence[TargetRow]
    events: Sequence[Event]
    rollouts: Sequence[RolloutDetail] = ()
    """Those shown in full."""
    more_rollouts: int = 0

    @property
    def now(self) -> datetime:
        """Return the hub's wall time."""
        return datetime.fromisoformat(self.status.now)

    def rank(self, environment: str) -> tuple[int, str]:
        """Return what sorts an environment by its stage; what the inventory does not have comes last."""
        known = self.status.environments
        return (known.index(environment) if environment in known else len(known), environment)


def format_age(since: str, now: datetime) -> str:
    """Say how long ago something was, in its largest unit; empty for never.

    >>> format_age("2030-01-31T11:48:00Z", datetime.fromisoformat("2030-01-31T12:00:00Z"))
    '12m'
    """
    if not since:
        return ""
    seconds = max(int((now - datetime.fromisoformat(since)).total_seconds()), 0)
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def chip(state: str, text: str = "") -> Html:
    """Show a state as shape and word."""
    look, shape = LOOKS.get(state, ("still", "?"))
    return tag("span", f"{shape} {text or state}", class_=f"chip {look}")


def tiles(snapshot: Snapshot) -> Html:
    """Count targets and clusters by state, and targets by environment."""
    targets = Counter(row.state for row in snapshot.targets)
    clusters = Counter(row.state for row in snapshot.clusters)
    boxes = [
        _tile("targets Synced", targets["Synced"], len(snapshot.targets), _counts(targets)),
        _tile("clusters Ready", clusters["Ready"], len(snapshot.clusters), _counts(clusters)),
    ]
    for name, rows in _by_environment(snapshot).items():
        states = Counter(row.state for row in rows)
        boxes.append(_tile(f"Synced in {name}", states["Synced"], len(rows), _counts(states)))
    return tag("div", *boxes, class_="tiles")


def _tile(label: str, part: int, whole: int, chips: Html) -> Html:
    return tag("div", tag("b", f"{part} / {whole}"), tag("span", label, class_="faint"), chips, class_="tile")


def _counts(states: Mapping[str, int]) -> Html:
    worst_first = sorted(states, key=lambda state: _ORDER.index(state) if state in _ORDER else len(_ORDER))
    return tag("div", *(chip(state, f"{states[state]} {state}") for state in worst_first), class_="chips")


def _by_environment(snapshot: Snapshot) -> dict[str, list[TargetRow]]:
    found: dict[str, list[TargetRow]] = {}
    for row in snapshot.targets:
        found.setdefault(row.environment, []).append(row)
    return {name: found[name] for name in sorted(found, key=snapshot.rank)}


def problems(rows: Sequence[ProblemRow]) -> Html | None:
    """List faults of inventory files."""
    places = [":".join([p.file, *(str(n) for n in (p.line, p.column) if n)]) for p in rows]
    cells = [(tag("code", at), tag("code", p.field), p.message) for at, p in zip(places, rows, strict=True)]
    return _table("Inventory problems", ("where", "field", "what"), cells, kind="alert") if rows else None


def pauses(rows: Sequence[PauseRow], now: datetime) -> Html | None:
    """List pauses in force."""
    cells = [(p.scope, p.reason, p.actor, format_age(p.since, now), p.until or "until resumed") for p in rows]
    return _table("Paused", ("what", "why", "by", "since", "until"), cells, kind="note") if rows else None


def holds(rows: Sequence[HoldRow], now: datetime) -> Html | None:
    """List holds in force."""
    cells = [(h.scope, h.release, h.reason, h.actor, format_age(h.since, now)) for h in rows]
    return _table("Held", ("what", "at", "why", "by", "since"), cells, kind="note") if rows else None


def attention(snapshot: Snapshot) -> Html | None:
    """List targets that are not Synced, the worst first, with what to do."""
    rows = sorted((r for r in snapshot.targets if r.state != "Synced"), key=_urgency)
    if not rows:
        return None
    head = ("target", "environment", "state", "since", "reason", "message")
    lines = [
        tag(
            "tr",
            tag("td", f"{row.cluster}/{row.app}", class_="name"),
            tag("td", row.environment),
            tag("td", chip(row.state)),
            tag("td", format_age(row.since, snapshot.now), class_="time"),
            tag("td", row.reason),
            tag("td", row.message, class_="message"),
            id=_anchor(row),
        )
        for row in rows[:MOST_ROWS]
    ]
    return _section("Not Synced", _body(head, lines), len(rows), rest=len(rows) - MOST_ROWS)


def _urgency(row: TargetRow) -> tuple[int, str, str]:
    return (_ORDER.index(row.state) if row.state in _ORDER else 0, row.cluster, row.app)


def _anchor(row: TargetRow) -> str:
    return f"t-{row.cluster}.{row.app}"


def matrix(snapshot: Snapshot) -> Html:
    """Show apps by clusters, the clusters grouped by environment."""
    placed = {(row.environment, row.cluster) for row in snapshot.targets}
    columns = sorted(placed, key=lambda place: (snapshot.rank(place[0]), place[1]))
    cells: dict[str, dict[str, TargetRow]] = {}
    for row in snapshot.targets:
        cells.setdefault(row.app, {})[row.cluster] = row
    shown = sorted(cells)[: max(MOST_CELLS // max(len(columns), 1), 1)]
    lines = [
        tag("tr", tag("th", app, scope="row"), *(_cell(cells[app].get(name), snapshot.now) for _, name in columns))
        for app in shown
    ]
    groups = Counter(environment for environment, _ in columns)
    head = join([
        tag("tr", tag("th"), *(tag("th", name, colspan=count, scope="colgroup") for name, count in groups.items())),
        tag("tr", tag("th", "app", scope="col"), *(tag("th", name, scope="col") for _, name in columns)),
    ])  # fmt: skip
    table = tag("table", tag("thead", head), tag("tbody", *lines), class_="matrix")
    return _section("Fleet", tag("div", table, class_="scroll"), len(snapshot.targets), rest=len(cells) - len(shown))


def _cell(row: TargetRow | None, now: datetime) -> Html:
    if row is None:
        return tag("td", "·", class_="none")
    look, shape = LOOKS.get(row.state, ("still", "?"))
    told = f"{row.cluster}/{row.app}: {row.state} for {format_age(row.since, now)}. {row.reason}. {row.message}"
    href = None if row.state == "Synced" else f"#{_anchor(row)}"
    text = f"#{row.release.rpartition('#')[2]}" if row.state == "Synced" and row.release else row.state
    return tag("td", tag("a", f"{shape} {text}", class_=f"cell mono {look}", title=told, href=href))


def clusters(snapshot: Snapshot) -> Html:
    """List clusters."""
    head = ("cluster", "environment", "state", "since", "Synced", "objects", "version", "message")
    cells = [
        (
            row.name,
            row.environment,
            chip(row.state),
            format_age(row.since, snapshot.now),
            f"{row.synced} / {row.targets}",
            row.objects,
            row.version,
            f"{row.reason}: {row.message}" if row.message else row.reason,
        )
        for row in snapshot.clusters
    ]
    return _table("Clusters", head, cells)


def repositories(rows: Sequence[RepositoryRow], now: datetime) -> Html:
    """List repositories."""
    head = ("repository", "state", "ref", "revision", "fetched", "url", "message")
    cells = [
        (
            row.name,
            chip(row.state),
            row.ref,
            tag("code", row.revision[:7]),
            format_age(row.fetched_at, now),
            row.url,
            row.message,
        )
        for row in rows
    ]
    return _table("Repositories", head, cells)


def events(rows: Sequence[Event], now: datetime) -> Html:
    """List events, the newest first."""
    cells = [
        (
            format_age(row.at.isoformat(), now),
            row.kind,
            row.reason,
            "/".join(filter(None, (row.cluster, row.app))),
            ": ".join(filter(None, (row.object, row.message))),
            row.actor,
        )
        for row in reversed(rows)
    ]
    return _table("Events", ("ago", "kind", "reason", "where", "what", "by"), cells)


def _table(title: str, head: Sequence[str], cells: Sequence[Sequence[str | int]], *, kind: str | None = None) -> Html:
    lines = [tag("tr", *(tag("td", cell) for cell in line)) for line in cells[:MOST_ROWS]]
    return _section(title, _body(head, lines), len(cells), rest=len(cells) - MOST_ROWS, kind=kind)


def _body(head: Sequence[str], lines: Sequence[Html]) -> Html:
    titles = tag("tr", *(tag("th", word, scope="col") for word in head))
    return tag("div", tag("table", tag("thead", titles), tag("tbody", *lines)), class_="scroll")


def _section(title: str, body: Html, count: int, *, rest: int = 0, kind: str | None = None) -> Html:
    more = tag("p", f"and {rest} more: narrow the page with the filter", class_="faint") if rest > 0 else None
    return tag("section", tag("h2", title, tag("span", count, class_="count")), body, more, class_=kind)
