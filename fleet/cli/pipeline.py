"""A rollout as lines of a tree: stages, their gates, their clusters. Pure; the same lines are printed and redrawn."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from fleet.cli.duration import format_duration, parse_at
from fleet.cli.table import Row

MOST_CLUSTERS = 12
"""A stage with more of them, or one that is over, names those that something is about, and counts the rest."""
MARKS = {
    **dict.fromkeys(("Done", "Succeeded"), "✓"),
    **dict.fromkeys(("Applying", "Verifying", "Running", "Checking"), "↻"),
    **dict.fromkeys(("Pending", "Planned"), "·"),
    **dict.fromkeys(("Held", "AwaitingApproval", "Soaking"), "…"),
    "Paused": "‖",
    **dict.fromkeys(("Failed", "Aborted"), "✕"),
    **dict.fromkeys(("RolledBack",), "↶"),
    **dict.fromkeys(("Deferred", "Skipped", "Superseded"), "◌"),
}
DEADLINES = ("Deadline", "StageDeadline")
_QUIET = ("Done", "Pending", "Skipped")
_DULL = frozenset({"Started", "Done", "Healthy", "Soaking", "Applied", "Checking", "BatchDone"})
"""Reasons that say no more than the state does."""


class Line(NamedTuple):
    """One line: how deep it is, the state that gives it mark and colour (empty for none), and its text."""

    depth: int
    state: str
    text: str

    def __str__(self) -> str:
        mark = f"{MARKS.get(self.state, '?')} " if self.state else ""
        return f"{'  ' * self.depth}{mark}{self.text}"


def draw(detail: Row, now: datetime, *, everything: bool = False) -> Iterator[Line]:
    """Draw a rollout as of `now`; `everything` names every cluster."""
    run = detail["rollout"]
    since = f" for {_age(run['since'], now)}" if run["since"] and run["active"] else ""
    back = ", its clusters are sent back" if run["returning"] else ""
    yield Line(0, run["state"], f"{run['release']} at {run['revision'][:7]}: {run['state']}{since}{back}")
    if run["message"] and run["state"] != "AwaitingApproval":
        yield Line(1, "", _say(run))
    if run["waits_for"] and run["waits_for"].removeprefix("waits for somebody: ") != run["message"]:
        yield Line(1, "", run["waits_for"])
    ended = parse_at(run["finished_at"]) if run["finished_at"] else now
    for stage in detail["stages"]:
        yield from _draw_stage(stage, now, ended, everything)


def _draw_stage(stage: Row, now: datetime, ended: datetime, everything: bool) -> Iterator[Line]:
    took = ""
    if stage["started_at"]:
        end = parse_at(stage["finished_at"]) if stage["finished_at"] else ended
        took = f"{format_duration((end - parse_at(stage['started_at'])).total_seconds())}"
    notes = [took, "promoted" if stage["promoted"] else "", _count(stage["clusters"])]
    yield Line(1, stage["state"], f"{stage['environment']}: {stage['state']} ({', '.join(filter(None, notes))})")
    said = {gate["message"] for gate in stage["gates"]}
    if (
        stage["message"]
        and stage["message"] not in said
        and stage["state"] != "Done"
        and stage["reason"] != "BatchDone"
    ):
        yield Line(2, "", _say(stage))
    for gate in stage["gates"]:
        yield Line(2, "", describe_gate(gate, now))
    if stage["approvals_needed"] and stage["state"] in ("Pending", "Held"):
        yield from _draw_approvals(stage)
    yield from _draw_samples(stage["samples"], 2)
    yield from _draw_clusters(stage, now, everything)


def _count(clusters: Sequence[Row]) -> str:
    states = Counter(cluster["state"] for cluster in clusters)
    return ", ".join(f"{number} {state}" for state, number in states.items()) or "no clusters"


def _draw_approvals(stage: Row) -> Iterator[Line]:
    for given in stage["approvals"]:
        void = "" if given["counts"] else ", no longer counts"
        yield Line(2, "", f"approved by {given['actor']} at {given['at']}: {given['reason']}{void}")
    if stage["digest"]:
        yield Line(2, "", f"plan {stage['digest']}")


def _draw_samples(samples: Sequence[Row], depth: int) -> Iterator[Line]:
    newest = {sample["check"]: sample for sample in samples if sample["counts"]}
    for name, sample in newest.items():
        value = f" {sample['value']}" if sample["value"] else ""
        why = f": {sample['message']}" if sample["message"] else ""
        yield Line(depth, "", f"check {name}: {sample['outcome']}{value}{why}")


def _draw_clusters(stage: Row, now: datetime, everything: bool) -> Iterator[Line]:
    clusters = {cluster["cluster"]: cluster for cluster in stage["clusters"]}
    few = everything or (len(clusters) <= MOST_CLUSTERS and stage["state"] != "Done")
    shown = {name for name, row in clusters.items() if few or row["state"] not in _QUIET}
    batches = [batch for batch in stage["batches"] if batch["clusters"]]
    if len(batches) < 2 or stage["state"] == "Done":
        for name, cluster in clusters.items():
            if name in shown:
                yield from _draw_cluster(cluster, 2, now)
        return
    for number, batch in enumerate(batches, 1):
        size = "" if batch["size"] == str(len(batch["clusters"])) else f" ({batch['size']})"
        word = "cluster" if len(batch["clusters"]) == 1 else "clusters"
        yield Line(2, "", f"batch {number}{size}: {len(batch['clusters'])} {word}{', over' if batch['over'] else ''}")
        for name in batch["clusters"]:
            if name in shown:
                yield from _draw_cluster(clusters[name], 3, now)


def _draw_cluster(cluster: Row, depth: int, now: datetime) -> Iterator[Line]:
    parts = [f"{cluster['cluster']}: {cluster['state']}"]
    if cluster["gates"]:
        parts += [describe_gate(gate, now) for gate in cluster["gates"]]
    elif told := _say(cluster):
        parts.append(told)
    if cluster["broken_before"]:
        parts.append("it was broken before")
    yield Line(depth, cluster["state"], "; ".join(parts))
    yield from _draw_samples(cluster["samples"], depth + 1)


def _say(row: Row) -> str:
    reason = "" if row["reason"] in (row["state"], *_DULL) else row["reason"]
    return ": ".join(part for part in (reason, row["message"]) if part)


def describe_gate(gate: Row, now: datetime) -> str:
    """Say what is waited for, and how long still."""
    if not gate["at"]:
        return f"{gate['kind']}: {gate['message']}"
    left = format_duration(math.ceil((parse_at(gate["at"]) - now).total_seconds()))
    return f"{gate['kind']}: {gate['message']} ({left} {'left' if gate['kind'] in DEADLINES else 'to go'})"


def _age(at: str, now: datetime) -> str:
    return format_duration((now - parse_at(at)).total_seconds())


def next_opening(detail: Row) -> datetime | None:
    """Return the first time at which a gate that was closed opens, or a deadline is over."""
    gates = [*(g for s in detail["stages"] for g in s["gates"])]
    gates += [g for s in detail["stages"] for c in s["clusters"] for g in c["gates"]]
    return min((parse_at(g["at"]) for g in gates if g["at"] > detail["now"]), default=None)


def describe_step(step: Row) -> str:
    """Write one step of a rollout's history as a line."""
    where = step["cluster"] or step["environment"] or "rollout"
    moved = step["after"] if step["before"] in ("", step["after"]) else f"{step['before']} -> {step['after']}"
    reason = "" if step["reason"] == step["after"] else step["reason"]
    told = ": ".join(part for part in (reason, step["message"]) if part)
    by = f" by {step['actor']}" if step["actor"] else ""
    return "  ".join(filter(None, (step["at"], f"{where:<16}", f"{moved}{by}", told)))
