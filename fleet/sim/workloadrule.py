"""What the API server asks of workloads: Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs, CronJobs, scalers."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from fleet.sim import naming, podrule
from fleet.sim.cause import Causes, at_least, forbidden, invalid, one_of, required, unsupported

Struct = Mapping[str, Any]
_OPERATORS: Final = ("In", "NotIn", "Exists", "DoesNotExist")
CONTROLLER_UID: Final = "batch.kubernetes.io/controller-uid"


def check_pod(pod: Struct) -> Causes:
    yield from podrule.check_spec(pod["spec"], "spec")


def check_deployment(deployment: Struct) -> Causes:
    spec = deployment["spec"]
    yield from at_least("spec.replicas", spec.get("replicas"), 0)
    yield from _check_selected(spec, "deployment")
    yield from podrule.check_template(spec["template"], "spec.template")
    yield from _check_endless(spec["template"])
    yield from _check_strategy(spec["strategy"])
    for name in ("minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"):
        yield from at_least(f"spec.{name}", spec.get(name), 0)
    deadline = spec.get("progressDeadlineSeconds", 600)
    if 0 <= deadline <= spec.get("minReadySeconds", 0):
        yield invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds")


def _check_strategy(strategy: Struct) -> Causes:
    kind, rolling = strategy["type"], strategy.get("rollingUpdate")
    if kind not in ("Recreate", "RollingUpdate"):
        yield unsupported("spec.strategy", _in_go(strategy), ("Recreate", "RollingUpdate"))
    elif kind == "Recreate" and rolling is not None:
        yield forbidden("spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")
    elif rolling is not None:
        for name in ("maxUnavailable", "maxSurge"):
            yield from check_share(f"spec.strategy.rollingUpdate.{name}", rolling[name])
        if all(rolling[name] in (0, "0%") for name in ("maxUnavailable", "maxSurge")):
            why = "may not be 0 when `maxSurge` is 0"
            yield invalid("spec.strategy.rollingUpdate.maxUnavailable", rolling["maxUnavailable"], why)


def _in_go(strategy: Struct) -> dict[str, Any]:
    return {"Type": strategy.get("type", ""), "RollingUpdate": strategy.get("rollingUpdate")}


def check_share(field: str, value: int | str) -> Causes:
    """Check a number or a percentage."""
    if isinstance(value, int):
        yield from at_least(field, value, 0)
    elif not re.fullmatch("[0-9]+%", value):
        why = (
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex "
            "used for validation is '[0-9]+%')"
        )
        yield invalid(field, value, why)


def check_replica_set(replica_set: Struct) -> Causes:
    spec = replica_set["spec"]
    for name in ("replicas", "minReadySeconds"):
        yield from at_least(f"spec.{name}", spec.get(name), 0)
    yield from _check_selected(spec, "replicaset")
    yield from podrule.check_template(spec["template"], "spec.template")
    yield from _check_endless(spec["template"])


def check_stateful_set(stateful_set: Struct) -> Causes:
    spec = stateful_set["spec"]
    if spec["podManagementPolicy"] not in ("OrderedReady", "Parallel"):
        yield invalid("spec.podManagementPolicy", spec["podManagementPolicy"], "must be 'OrderedReady' or 'Parallel'")
    if spec["updateStrategy"]["type"] not in ("RollingUpdate", "OnDelete"):
        yield invalid("spec.updateStrategy", _in_go(spec["updateStrategy"]), "must be 'RollingUpdate' or 'OnDelete'")
    for name in ("replicas", "minReadySeconds"):
        yield from at_least(f"spec.{name}", spec.get(name), 0)
    yield from _check_selected(spec, "statefulset")
    yield from podrule.check_template(spec["template"], "spec.template")
    yield from _check_endless(spec["template"])


def check_daemon_set(daemon_set: Struct) -> Causes:
    spec = daemon_set["spec"]
    yield from _check_selected(spec, "daemonset", needed=False)
    yield from podrule.check_template(spec["template"], "spec.template")
    yield from _check_endless(spec["template"])
    yield from at_least("spec.minReadySeconds", spec.get("minReadySeconds"), 0)
    if spec["updateStrategy"]["type"] not in ("RollingUpdate", "OnDelete"):
        yield unsupported("spec.updateStrategy", _in_go(spec["updateStrategy"]), ("RollingUpdate", "OnDelete"))


def _check_selected(spec: Struct, kind: str, *, needed: bool = True) -> Causes:
    """Check the selector, and that it picks the template."""
    selector, labels = spec.get("selector"), (spec["template"].get("metadata") or {}).get("labels")
    if selector is None and needed:
        yield required("spec.selector")
    faults = list(check_selector("spec.selector", selector or {}))
    yield from faults
    if selector == {}:
        yield invalid("spec.selector", selector, f"empty selector is invalid for {kind}")
    elif faults:
        yield invalid("spec.selector", selector, "invalid label selector")
    elif selector is None or not picks(selector, labels or {}):
        yield invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")


def check_selector(field: str, selector: Struct) -> Causes:
    """Check a label selector."""
    for key, value in sorted((selector.get("matchLabels") or {}).items()):
        yield from naming.check(f"{field}.matchLabels", key, naming.key_faults)
        yield from naming.check(f"{field}.matchLabels", value, naming.value_faults)
    for n, expression in enumerate(selector.get("matchExpressions") or ()):
        path, operator, values = f"{field}.matchExpressions[{n}]", expression["operator"], expression.get("values")
        if operator not in _OPERATORS:
            yield invalid(f"{path}.operator", operator, "not a valid selector operator")
        elif operator in ("In", "NotIn") and not values:
            yield required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist") and values:
            yield forbidden(f"{path}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        yield from naming.check(f"{path}.key", expression["key"], naming.key_faults)


def picks(selector: Struct, labels: Mapping[str, str]) -> bool:
    """Tell whether a label selector takes an object with these labels; an empty one takes all."""
    wanted: Mapping[str, str] = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(_holds(expression, labels) for expression in selector.get("matchExpressions") or ())


def _holds(expression: Struct, labels: Mapping[str, str]) -> bool:
    found = labels.get(expression["key"])
    tests: Mapping[str, Callable[[], bool]] = {
        "In": lambda: found in expression["values"],
        "NotIn": lambda: found not in expression["values"],
        "Exists": lambda: found is not None,
        "DoesNotExist": lambda: found is None,
    }
    return tests[expression["operator"]]()


def _check_endless(template: Struct) -> Causes:
    spec = template["spec"]
    yield from one_of("spec.template.spec.restartPolicy", spec.get("restartPolicy"), ("Always",))
    if "activeDeadlineSeconds" in spec:
        why = "activeDeadlineSeconds in ReplicaSet is not Supported"
        yield forbidden("spec.template.spec.activeDeadlineSeconds", why)


def check_job(job: Struct) -> Causes:
    yield from _check_job_spec(job["spec"], "spec", labelled=True)


def _check_job_spec(spec: Struct, path: str, *, labelled: bool) -> Causes:
    for name in ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"):
        yield from at_least(f"{path}.{name}", spec.get(name), 0)
    template = spec["template"]
    if labelled:
        yield from _check_own_selector(spec, (template.get("metadata") or {}).get("labels"))
    yield from podrule.check_template(template, f"{path}.template")
    policy = template["spec"].get("restartPolicy", "")
    if policy in ("", "Always"):
        yield required(f"{path}.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"')


def _check_own_selector(spec: Struct, labels: Mapping[str, str] | None) -> Causes:
    selector = spec.get("selector")
    if not selector:
        yield required("spec.selector")
        return
    if not spec.get("manualSelector") and list(selector.get("matchLabels") or ()) != [CONTROLLER_UID]:
        yield invalid("spec.selector", selector, "`selector` not auto-generated")
    if not picks(selector, labels or {}):
        yield invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")


def check_cron_job(cron_job: Struct) -> Causes:
    spec = cron_job["spec"]
    schedule = spec.get("schedule", "")
    if not schedule:
        yield required("spec.schedule")
    elif not schedule.startswith("@") and len(schedule.split()) != 5:
        fields = schedule.split()
        why = f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
        yield invalid("spec.schedule", schedule, why)
    yield from one_of("spec.concurrencyPolicy", spec["concurrencyPolicy"], ("Allow", "Forbid", "Replace"))
    for name in ("successfulJobsHistoryLimit", "failedJobsHistoryLimit", "startingDeadlineSeconds"):
        yield from at_least(f"spec.{name}", spec.get(name), 0)
    yield from _check_job_spec(spec["jobTemplate"]["spec"], "spec.jobTemplate.spec", labelled=False)


def check_autoscaler(autoscaler: Struct) -> Causes:
    spec = autoscaler["spec"]
    low, high, target = spec["minReplicas"], spec.get("maxReplicas", 0), spec["scaleTargetRef"]
    yield from at_least("spec.minReplicas", low, 1)
    if high < 1:
        yield required("spec.maxReplicas", "must be set and greater than 0")
    elif high < low:
        yield invalid("spec.maxReplicas", high, "must be greater than or equal to `minReplicas`")
    for name in ("kind", "name"):
        if not target.get(name):
            yield required(f"spec.scaleTargetRef.{name}")


def check_disruption_budget(budget: Struct) -> Causes:
    spec = budget["spec"]
    if "minAvailable" in spec and "maxUnavailable" in spec:
        said = {"MinAvailable": spec["minAvailable"], "Selector": spec.get("selector")}
        said |= {"MaxUnavailable": spec["maxUnavailable"], "UnhealthyPodEvictionPolicy": None}
        yield invalid("spec", said, "minAvailable and maxUnavailable cannot be both set")
    for name in ("minAvailable", "maxUnavailable"):
        if name in spec:
            yield from check_share(f"spec.{name}", spec[name])
    yield from check_selector("spec.selector", spec.get("selector") or {})
