"""Whether what checks ask for is known: every `${NAME}` in them must have a value wherever they are asked. Pure."""

from collections.abc import Iterable, Iterator, Mapping

from fleet.document import Path
from fleet.errors import Problem
from fleet.inventory.parse import nearest
from fleet.inventory.placeholder import list_names
from fleet.inventory.rollout import Check
from fleet.inventory.schema import App, Environment
from fleet.inventory.value import Target
from fleet.inventory.variable import stage_variables

STAGE_NAMES = ("app", "environment", "release", "revision")
"""What every question may name besides variables; a variable of the same name gives way."""
CLUSTER_NAMES = (*STAGE_NAMES, "cluster")
"""What one that is asked for every cluster may name."""


def check_questions(targets: Iterable[Target]) -> list[Problem]:
    """Return a problem for every name in a check that has no value for some target, each once."""
    problems: dict[Problem, None] = {}
    for target in targets:
        document, path, checks = _find_checks(target.app, target.environment)
        for index, check in enumerate(checks):
            known = _list_known(check, target)
            for field, text in _list_texts(check):
                for name in list_names(text):
                    if name not in known:
                        at = (*path, "checks", index, *field)
                        problems[document.problem(at, _explain(name, check, target, known))] = None
    return list(problems)


def _find_checks(app: App, environment: Environment) -> tuple[App | Environment, Path, tuple[Check, ...]]:
    """Return the checks in force, the document that gives them, and where in it."""
    own = app.spec.rollout
    if own is not None:
        inner = own.environments.get(environment.name)
        if inner is not None and inner.checks is not None:
            return app, ("spec", "rollout", "environments", environment.name), inner.checks
        if own.checks is not None:
            return app, ("spec", "rollout"), own.checks
    rules = environment.spec.rollout
    return environment, ("spec", "rollout"), (rules.checks if rules is not None else None) or ()


def _list_known(check: Check, target: Target) -> Mapping[str, object]:
    if check.per_cluster:
        return {**target.variables, **dict.fromkeys(CLUSTER_NAMES)}
    return {**stage_variables(target.app, target.environment), **dict.fromkeys(STAGE_NAMES)}


def _list_texts(check: Check) -> Iterator[tuple[Path, str]]:
    if check.http is not None:
        yield ("http", "url"), check.http.url
        yield ("http", "body"), check.http.body
        yield ("http", "equals"), check.http.equals
    if check.prometheus is not None:
        yield ("prometheus", "url"), check.prometheus.url
        yield ("prometheus", "query"), check.prometheus.query


def _explain(name: str, check: Check, target: Target, known: Iterable[str]) -> str:
    app, environment = target.app.name, target.environment.name
    if check.per_cluster:
        return f"${{{name}}} has no value for app {app} on cluster {target.id.cluster}{nearest(name, known)}"
    if name == "cluster" or name in target.variables:
        return f"${{{name}}} differs between clusters; set perCluster: true"
    return f"${{{name}}} has no value for app {app} in environment {environment}{nearest(name, known)}"
