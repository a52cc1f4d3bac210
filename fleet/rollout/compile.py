"""The rules of an app's runs, from its inventory documents. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from fleet.inventory import rollout as written
from fleet.inventory.rollout import Rules, list_layers
from fleet.inventory.schema import App
from fleet.inventory.stage import order_stages
from fleet.inventory.value import Inventory
from fleet.rollout.policy import (
    Amount,
    Approval,
    Check,
    HttpProbe,
    OnFailure,
    OnNewRelease,
    OnUnreachable,
    Policy,
    PrometheusQuery,
    Question,
    StagePolicy,
    Window,
)


def policy_of(app: App, inventory: Inventory) -> Policy:
    """Return the rules of an app's runs, earliest stage first.

    Only environments in which the app has targets are stages; `after` leads through those in which it has none.
    """
    used = {t.environment.name for t in inventory.targets.values() if t.id.app == app.name}
    stages = [name for name in order_stages(inventory.environments) if name in used]
    return Policy(stages=tuple(_compile_stage(app, name, inventory, used) for name in stages))


def parse_amount(text: str) -> Amount:
    """Return what `3` or `25%` means.

    >>> parse_amount("25%"), parse_amount("3")
    (Amount(count=None, percent=25), Amount(count=3, percent=None))
    """
    return Amount(percent=int(text[:-1])) if text.endswith("%") else Amount(count=int(text))


def _compile_stage(app: App, name: str, inventory: Inventory, used: set[str]) -> StagePolicy:
    stage = StagePolicy(environment=name, after=_before(name, inventory, used, frozenset()))
    layers = list_layers(inventory.environments[name].spec.rollout, app.spec.rollout, name)
    for rules in layers:
        stage = _apply(stage, rules)
    return replace(stage, staged=True) if layers else stage


def _before(name: str, inventory: Inventory, used: set[str], path: frozenset[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for earlier in inventory.environments[name].spec.after if name in inventory.environments else ():
        if earlier in used:
            found[earlier] = None
        elif earlier not in path:
            found.update(dict.fromkeys(_before(earlier, inventory, used, path | {name})))
    return tuple(found)


def _apply(stage: StagePolicy, rules: Rules) -> StagePolicy:
    """Return the rules of a stage with what a document gives in place of what was there."""
    changes: dict[str, Any] = {}
    for field, compile_field in _FIELDS.items():
        value = getattr(rules, field)
        if value is not None:
            changes |= compile_field(value)
    return replace(stage, **changes)


def _compile_batches(batches: tuple[str, ...]) -> tuple[Amount, ...]:
    """Return the batches, completed by all clusters."""
    amounts = tuple(map(parse_amount, batches))
    return amounts if amounts[-1].percent == 100 else (*amounts, Amount(percent=100))


def _compile_approval(approval: written.Approval) -> Approval | None:
    return Approval(required=approval.required, expires_s=approval.expires) if approval.required else None


def _compile_windows(windows: tuple[written.Window, ...]) -> tuple[Window, ...]:
    return tuple(Window(cron=w.cron, duration_s=w.duration, timezone=w.timezone, reason=w.reason) for w in windows)


def _compile_check(check: written.Check) -> Check:
    return Check(
        name=check.name,
        question=_compile_question(check),
        per_cluster=check.per_cluster,
        interval_s=check.interval,
        count=check.count,
        failure_limit=check.failure_limit,
        timeout_s=check.timeout,
    )


def _compile_question(check: written.Check) -> Question:
    if check.http is not None:
        http = check.http
        return HttpProbe(
            url=http.url,
            method=http.method,
            status=http.status,
            body=http.body,
            json_path=http.json_path,
            equals=http.equals,
            ca_file=str(http.ca_file or ""),
            allow_link_local=http.allow_link_local,
        )
    query = check.prometheus
    assert query is not None
    return PrometheusQuery(
        url=query.url,
        query=query.query,
        condition=query.condition,
        token_file=str(query.token_file or ""),
        ca_file=str(query.ca_file or ""),
        allow_link_local=query.allow_link_local,
    )


_FIELDS: Mapping[str, Callable[[Any], dict[str, Any]]] = MappingProxyType({
    "batches": lambda v: {"batches": _compile_batches(v)},
    "order": lambda v: {"first": v.first, "order_label": v.label or ""},
    "pace": lambda v: {"pace_s": v},
    "soak": lambda v: {"soak_s": v},
    "deadline": lambda v: {"deadline_s": v},
    "stage_deadline": lambda v: {"stage_deadline_s": v},
    "failure_budget": lambda v: {"failure_budget": parse_amount(v)},
    "on_failure": lambda v: {"on_failure": OnFailure(v)},
    "on_unreachable": lambda v: {"on_unreachable": OnUnreachable(v.action), "unreachable_wait_s": v.wait},
    "on_new_release": lambda v: {"on_new_release": OnNewRelease(v)},
    "approval": lambda v: {"approval": _compile_approval(v)},
    "windows": lambda v: {"windows": _compile_windows(v)},
    "freezes": lambda v: {"freezes": _compile_windows(v)},
    "checks": lambda v: {"checks": tuple(map(_compile_check, v))},
})  # fmt: skip
