"""What is wrong between documents: unknown names, cycles, one cluster under two names. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from fleet.document import Path
from fleet.errors import Problem
from fleet.inventory.parse import nearest
from fleet.inventory.rollout import AppRollout, Rules
from fleet.inventory.schema import App, Cluster, Entry, Environment
from fleet.inventory.value import Key, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A problem between documents, the document to blame, and what it misses."""

    key: Key
    problem: Problem
    missing: Key | None = None


def check_entries(
    entries: Mapping[Key, Entry], *, refused: Mapping[Key, Entry], standing: Mapping[Key, Entry]
) -> list[Fault]:
    """Return every fault between documents.

    `refused` are documents that exist but were left out. Of two documents that exclude each other, the one that is
    `standing`, in force already, is not the one to blame.
    """
    return [
        *_check_references(entries, refused),
        *_check_cycles(entries, "App", "dependsOn"),
        *_check_cycles(entries, "Environment", "after"),
        *_check_connections(entries.values(), standing),
        *_check_canaries(entries),
    ]


def check_targets(targets: Iterable[Target]) -> list[Problem]:
    """Return the problems of single targets, each once per app and message, at the field that causes them."""
    problems: dict[tuple[str, str], Problem] = {}
    for target in targets:
        if target.problem:
            field = "dependsOn" if target.problem.startswith("depends on") else "path"
            problems.setdefault((target.id.app, target.problem), target.app.problem(("spec", field), target.problem))
    return list(problems.values())


def list_references(entry: Entry) -> Iterator[tuple[Path, Key]]:
    """Yield (field, kind and name) of every document that this one names."""
    if isinstance(entry, Cluster):
        yield ("spec", "environment"), ("Environment", entry.spec.environment)
    elif isinstance(entry, Environment):
        for index, name in enumerate(entry.spec.after):
            yield ("spec", "after", index), ("Environment", name)
        for path, cluster in _list_canaries(entry):
            yield path, ("Cluster", cluster)
    elif isinstance(entry, App):
        yield from _list_app_references(entry)


def _list_app_references(entry: App) -> Iterator[tuple[Path, Key]]:
    yield ("spec", "repository"), ("Repository", entry.spec.repository)
    for index, name in enumerate(entry.spec.targets.environments):
        yield ("spec", "targets", "environments", index), ("Environment", name)
    for index, name in enumerate(entry.spec.targets.clusters):
        yield ("spec", "targets", "clusters", index), ("Cluster", name)
    for index, override in enumerate(entry.spec.overrides):
        if override.environment is not None:
            yield ("spec", "overrides", index, "environment"), ("Environment", override.environment)
        if override.cluster is not None:
            yield ("spec", "overrides", index, "cluster"), ("Cluster", override.cluster)
    for index, dependency in enumerate(entry.spec.depends_on):
        yield ("spec", "dependsOn", index, "app"), ("App", dependency.app)
    if entry.spec.rollout is not None:
        for name in entry.spec.rollout.environments:
            yield ("spec", "rollout", "environments", name), ("Environment", name)
    for path, cluster in _list_canaries(entry):
        yield path, ("Cluster", cluster)


def _list_canaries(entry: Environment | App) -> Iterator[tuple[Path, str]]:
    """Yield (field, cluster) of every cluster that is to go first."""
    if entry.spec.rollout is None:
        return
    placed: list[tuple[Path, Rules]] = [(("spec", "rollout"), entry.spec.rollout)]
    if isinstance(entry.spec.rollout, AppRollout):
        placed += [((*placed[0][0], "environments", n), rules) for n, rules in entry.spec.rollout.environments.items()]
    for path, rules in placed:
        for index, name in enumerate(rules.order.first if rules.order is not None else ()):
            yield (*path, "order", "first", index), name


def _check_canaries(entries: Mapping[Key, Entry]) -> Iterator[Fault]:
    """Find clusters that are to go first in an environment that does not hold them: they would never do."""
    for key, entry in entries.items():
        for path, name in _list_canaries(entry) if isinstance(entry, Environment | App) else ():
            stage = entry.name if isinstance(entry, Environment) else str(path[3]) if path[2] == "environments" else ""
            cluster = entries.get(("Cluster", name))
            if stage and isinstance(cluster, Cluster) and cluster.spec.environment != stage:
                message = f"cluster {name} is in environment {cluster.spec.environment}, not in {stage}; remove it here"
                yield Fault(key=key, problem=entry.problem(path, message))


def _check_references(entries: Mapping[Key, Entry], refused: Mapping[Key, Entry]) -> Iterator[Fault]:
    for key, entry in entries.items():
        for path, named in list_references(entry):
            if named in entries:
                continue
            kind, name = named
            if named in refused:
                message = f"{kind.lower()} {name} is itself refused: see {refused[named].origin}"
            else:
                known = [other for of_kind, other in entries if of_kind == kind]
                message = f"there is no {kind.lower()} {name}{nearest(name, known)}"
            yield Fault(key=key, problem=entry.problem(path, message), missing=named)


def _check_cycles(entries: Mapping[Key, Entry], kind: str, field: str) -> Iterator[Fault]:
    edges = {
        key: [(path, named) for path, named in list_references(entry) if path[1] == field and named in entries]
        for key, entry in entries.items()
        if key[0] == kind
    }
    for key, named_by_key in edges.items():
        for path, named in named_by_key:
            way = _find_way(edges, named, key)
            if way:
                places = " -> ".join(f"{name} ({entries[kind, name].origin})" for kind, name in [key, *way])
                message = f"{field} forms a cycle: {places}"
                yield Fault(key=key, problem=entries[key].problem(path, message))
                break


def _find_way(edges: Mapping[Key, list[tuple[Path, Key]]], start: Key, end: Key) -> list[Key]:
    """Return the shortest way from `start` to `end`, both included; empty if there is none."""
    came_from: dict[Key, Key | None] = {start: None}
    queue = [start]
    for key in queue:
        if key == end:
            way: list[Key] = []
            step: Key | None = end
            while step is not None:
                way.append(step)
                step = came_from[step]
            return way[::-1]
        for _, named in edges[key]:
            if named not in came_from:
                came_from[named] = key
                queue.append(named)
    return []


@dataclass(frozen=True, slots=True)
class _Claim:
    """A Cluster document that leads to an API server, by one of its fields."""

    cluster: Cluster
    field: Path


def _check_connections(entries: Iterable[Entry], standing: Mapping[Key, Entry]) -> Iterator[Fault]:
    """Find one API server under two names: both would write it, and each undo the other.

    Where neither name is in force already, both are blamed: which file sorts first must not decide a cluster's name.
    """
    claims: dict[tuple[object, ...], list[_Claim]] = {}
    for cluster in entries:
        if isinstance(cluster, Cluster):
            for identity, field in _identify(cluster):
                claims.setdefault(identity, []).append(_Claim(cluster, field))
    blamed: set[Key] = set()
    for identity, rivals in claims.items():
        holder = next((rival for rival in rivals if _leads_to(standing.get(rival.cluster.key), identity)), None)
        for claim in rivals:
            other = holder or next((rival for rival in rivals if rival is not claim), None)
            if other is None or other is claim or claim.cluster.key in blamed:
                continue
            blamed.add(claim.cluster.key)
            yield _blame(claim, other, held=holder is not None)


def _leads_to(entry: Entry | None, identity: tuple[object, ...]) -> bool:
    return isinstance(entry, Cluster) and any(known == identity for known, _ in _identify(entry))


def _blame(claim: _Claim, other: _Claim, *, held: bool) -> Fault:
    end = "name it once" if held else "neither is taken until one is removed"
    message = f"cluster {other.cluster.name} ({other.cluster.origin}) is the same API server; {end}"
    return Fault(key=claim.cluster.key, problem=claim.cluster.problem(("spec", *claim.field), message))


def _identify(cluster: Cluster) -> Iterator[tuple[tuple[object, ...], Path]]:
    connection = cluster.spec.connection
    if cluster.spec.uid:
        yield ("uid", cluster.spec.uid), ("uid",)
    if connection.kubeconfig is not None and connection.kubeconfig.file is not None:
        yield ("file", connection.kubeconfig.file, connection.kubeconfig.context), ("connection", "kubeconfig")
    if connection.server is not None:
        yield ("server", connection.server, connection.proxy_url), ("connection", "server")
    if connection.in_cluster:
        yield ("inCluster",), ("connection", "inCluster")
