"""Rollouts on the status page: stages as columns, clusters as chips, gates with what is left of them. Pure."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from fleet.hub.rolloutview import GateRow, RolloutClusterRow, RolloutDetail, RolloutStageRow
from fleet.server.markup import Html, tag
from fleet.server.panel import LOOKS, chip, format_age

MOST_ROLLOUTS = 20
MOST_CHIPS = 60
MOST_TOLD = 5
_QUIET = ("Done", "Pending", "Skipped")


def rollouts(details: Sequence[RolloutDetail], more: int, now: datetime) -> Html | None:
    """Show rollouts that are under way or did not end well; `more` are not shown."""
    if not details:
        return None
    rest = tag("p", f"and {more} more: narrow the page with the filter", class_="faint") if more > 0 else None
    title = tag("h2", "Rollouts", tag("span", len(details) + max(more, 0), class_="count"))
    return tag("section", title, *(_rollout(detail, now) for detail in details), rest)


def _rollout(detail: RolloutDetail, now: datetime) -> Html:
    run = detail.rollout
    age = f"{run.revision[:7]} · for {format_age(run.since, now)}"
    head = tag("h3", tag("b", run.release), " ", chip(run.state), " ", tag("span", age, class_="faint"))
    told = run.waits_for or ": ".join(filter(None, (run.reason, run.message)))
    stages = [_stage(stage, now) for stage in detail.stages]
    return tag("article", head, tag("p", told, class_="told") if told else None, tag("div", *stages, class_="pipeline"))


def _stage(stage: RolloutStageRow, now: datetime) -> Html:
    counts = Counter(cluster.state for cluster in stage.clusters)
    done = f"{counts['Done']} / {len(stage.clusters)}"
    head = tag("h4", stage.environment, " ", chip(stage.state), tag("span", done, class_="faint count"))
    over = sum(batch.over for batch in stage.batches)
    batches = f"batch {min(over + 1, len(stage.batches))} of {len(stage.batches)}" if len(stage.batches) > 1 else ""
    notes = [batches if stage.state in ("Running", "Checking") else "", "promoted" if stage.promoted else ""]
    gates = [_gate("", gate, now) for gate in stage.gates]
    said = {gate.message for gate in stage.gates}
    if stage.message and stage.message not in said and stage.state != "Done":
        gates.append(tag("li", stage.message))
    for cluster in _told(stage.clusters):
        gates += [_gate(cluster.cluster, gate, now) for gate in cluster.gates] or [_why(cluster)]
    note = ", ".join(filter(None, notes))
    return tag(
        "div",
        head,
        tag("p", note, class_="faint") if note else None,
        tag("div", *(_cluster(c) for c in _chosen(stage.clusters)[:MOST_CHIPS]), _more(stage.clusters), class_="chips"),
        tag("ul", *gates) if gates else None,
        class_=f"stage {LOOKS.get(stage.state, ('still', ''))[0]}-edge",
    )


def _told(clusters: Sequence[RolloutClusterRow]) -> Sequence[RolloutClusterRow]:
    """Choose the clusters of which more than a chip is said, failures first."""
    telling = [c for c in clusters if c.gates or (c.state not in _QUIET and c.message)]
    return sorted(telling, key=_urgency)[:MOST_TOLD]


def _chosen(clusters: Sequence[RolloutClusterRow]) -> Sequence[RolloutClusterRow]:
    """Put failures first and what is done last where not all can be shown; else keep the order they go in."""
    return clusters if len(clusters) <= MOST_CHIPS else sorted(clusters, key=_urgency)


def _urgency(cluster: RolloutClusterRow) -> int:
    return {"Failed": 0, "RolledBack": 1, "Deferred": 2, "Pending": 8, "Done": 9}.get(cluster.state, 5)


def _cluster(cluster: RolloutClusterRow) -> Html:
    look, shape = LOOKS.get(cluster.state, ("still", "?"))
    waits = "; ".join(f"{gate.kind}: {gate.message}" for gate in cluster.gates)
    told = ". ".join(filter(None, (f"{cluster.cluster}: {cluster.state}", cluster.reason, cluster.message, waits)))
    return tag("span", f"{shape} {cluster.cluster}", class_=f"chip {look}", title=told)


def _more(clusters: Sequence[RolloutClusterRow]) -> Html | None:
    rest = Counter(c.state for c in _chosen(clusters)[MOST_CHIPS:])
    text = ", ".join(f"{number} {state}" for state, number in rest.items())
    return tag("span", f"and {text}", class_="faint") if text else None


def _gate(cluster: str, gate: GateRow, now: datetime) -> Html:
    name = tag("b", f"{cluster} ") if cluster else None
    left = _left(gate.at, now) if gate.at else None
    return tag("li", name, f"{gate.kind}: {gate.message}", " " if left else None, left)


def _left(at: str, now: datetime) -> Html:
    """Say how long still; the page's script counts it down."""
    seconds = max(int((datetime.fromisoformat(at) - now).total_seconds()), 0)
    text = format_age(now.isoformat(), datetime.fromisoformat(at)) if seconds else "now"
    return tag("time", text, datetime=at, data_at=at)


def _why(cluster: RolloutClusterRow) -> Html:
    why = ": ".join(filter(None, (cluster.reason, cluster.message)))
    return tag("li", tag("b", f"{cluster.cluster} "), why)
