"""Health as a table: real statuses in, verdicts out."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fleet.object import GroupKind
from fleet.reconcile.health import Health, Verdict, assess, has_status, is_ended

NOW = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
CASES: dict[str, dict[str, Any]] = {
    case["name"]: case for case in yaml.safe_load((Path(__file__).parent / "health.yaml").read_text())
}
KINDS = sorted({(case["object"]["apiVersion"], case["object"]["kind"]) for case in CASES.values()})


@pytest.mark.parametrize("name", CASES)
def test_verdicts(name: str) -> None:
    """Each case of the table gets its verdict."""
    case = CASES[name]
    verdict = assess(case["object"], NOW)
    assert verdict.health.value == case["health"], verdict
    assert verdict.reason
    if "reason" in case:
        assert verdict.reason == case["reason"]
    if "message" in case:
        assert verdict.message == case["message"]
    recheck_at = datetime.fromisoformat(case["recheck_at"]) if "recheck_at" in case else None
    assert verdict.recheck_at == recheck_at


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "recheck_at" in case])
def test_looking_again_ends(name: str) -> None:
    """At the time when a verdict asks to be looked at again, time changes it no more."""
    first = assess(CASES[name]["object"], NOW)
    assert first.recheck_at is not None
    assert assess(CASES[name]["object"], first.recheck_at).recheck_at is None


@given(
    st.sampled_from(KINDS),
    st.dictionaries(
        st.sampled_from(["replicas", "readyReplicas", "observedGeneration", "desiredNumberScheduled"]),
        st.integers(0, 3),
    ),
    st.lists(
        st.fixed_dictionaries(
            {
                "type": st.sampled_from(["Ready", "Available", "Stalled", "Complete", "Established"]),
                "status": st.sampled_from(["True", "False", "Unknown"]),
            }
        ),
        max_size=3,
    ),
)
def test_any_status_gets_a_verdict(kind: tuple[str, str], numbers: dict[str, int], listed: list[Any]) -> None:
    """Whatever a status says, there is a verdict with a reason."""
    body = {
        "apiVersion": kind[0],
        "kind": kind[1],
        "metadata": {"generation": 1},
        "spec": {},
        "status": {**numbers, "conditions": listed},
    }
    verdict = assess(body, NOW)
    assert isinstance(verdict, Verdict)
    assert verdict.health in Health
    assert verdict.reason


@pytest.mark.parametrize(("condition", "ended"), [("Complete", True), ("Failed", True), ("Suspended", False)])
def test_when_a_job_has_ended(condition: str, *, ended: bool) -> None:
    """Complete and Failed are for good; a suspended Job may go on."""
    assert is_ended({"status": {"conditions": [{"type": condition, "status": "True"}]}}) is ended
    assert not is_ended({"status": {"conditions": [{"type": condition, "status": "False"}]}})


def test_whose_status_matters() -> None:
    """Secrets are never watched whole; custom resources always."""
    assert not has_status(GroupKind("", "Secret"))
    assert not has_status(GroupKind("", "ConfigMap"))
    assert has_status(GroupKind("", "Service"))
    assert has_status(GroupKind("example.com", "Secret"))
