"""What `rollout` may say in environments and apps, and every fault at its place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.inventory.address import is_forbidden_host
from fleet.inventory.reference import write_reference
from tests.unit.inventory.build import app, cluster, environment, faults, inventory, repository
from tests.unit.inventory.test_parse import faults as file_faults
from tests.unit.inventory.test_parse import spec


def within(*lines: str) -> str:
    """Return an Environment whose rollout starts at line 6."""
    return spec("Environment", "rollout:", *(f"  {line}" for line in lines))


BASE = repository() + environment("dev") + environment("prod", "after: [dev]") + cluster("a") + cluster("b", "prod")
HTTP = "checks: [{name: c, http: {url: '%s'}}]"

TABLE: list[tuple[str, list[str]]] = [
    (within("batches: [0]"), ["6:14: spec.rollout.batches: entry 1 is 0: a batch needs at least one cluster"]),
    (within("batches: ['0%']"), ["6:14: spec.rollout.batches: entry 1 is 0%: a batch needs at least one cluster"]),
    (within("batches: [101%]"), ["6:15: spec.rollout.batches[0]: is more than 100%"]),
    (within("batches: [50%, 25%]"), ["6:14: spec.rollout.batches: entry 2 is 25%, not more than 50% before it: batches are cumulative"]),
    (within("batches: [3, 25%, 2]"), ["6:14: spec.rollout.batches: entry 3 is 2, not more than 3 before it: batches are cumulative"]),
    (within("batches: [100%, 5]"), ["6:14: spec.rollout.batches: entry 2 comes after 100%, which is all clusters; remove it"]),
    (within("batches: [-1]"), ["6:15: spec.rollout.batches[0]: must be a number of clusters or a share such as 25%"]),
    (within("batches: []"), ["6:14: spec.rollout.batches: must not be empty"]),
    (within("failureBudget: 101%"), ["6:20: spec.rollout.failureBudget: is more than 100%"]),
    (within("soak: 10"), ["6:11: spec.rollout.soak: a duration needs a unit: write 10s, 10m or 10h"]),
    (within("soack: 10m"), ["6:5: spec.rollout.soack: no such field; did you mean soak?"]),
    (within("onFailure: rolback"), ["6:16: spec.rollout.onFailure: must be pause or rollback; did you mean rollback?"]),
    (within("onUnreachable: defr"), ["6:20: spec.rollout.onUnreachable: must be wait, defer, fail or {wait: 1h}; did you mean defer?"]),
    (within("onUnreachable: {wait: 1}"), ["6:20: spec.rollout.onUnreachable: wait a duration needs a unit: write 1s, 1m or 1h"]),
    (within("windows: [{cron: '0 9 31 2 *', duration: 1h}]"), ["6:22: spec.rollout.windows[0].cron: the day-of-month is wrong, or the line never fires; write as in crontab: 0 9 * * 1-5"]),
    (within("windows: [{cron: '0 25 * * *', duration: 1h}]"), ["6:22: spec.rollout.windows[0].cron: the hour is wrong, or the line never fires; write as in crontab: 0 9 * * 1-5"]),
    (within("freezes: [{cron: '* * * *', duration: 1h}]"), ["6:22: spec.rollout.freezes[0].cron: must have five fields: minute, hour, day of month, month, day of week"]),
    (within("windows: [{cron: '0 9 * * MON-FRI', duration: 8h, timezone: Europe/Berln}]"), ["6:65: spec.rollout.windows[0].timezone: is not a time zone; did you mean Europe/Berlin?"]),
    (within("windows: [{cron: '0 9 * * 1', duration: 0s}]"), ["6:45: spec.rollout.windows[0].duration: must be at least 60s"]),
    (within("approval: {required: -1}"), ["6:26: spec.rollout.approval.required: must be at least 0"]),
    (within(HTTP % "http://169.254.169.254/x"), ["6:36: spec.rollout.checks[0].http.url: 169.254.169.254 is a link-local, metadata or multicast address; name another, or set allowLinkLocal: true if it is meant"]),
    (within(HTTP % "http://[fd00:ec2::254]/x"), ["6:36: spec.rollout.checks[0].http.url: fd00:ec2::254 is a link-local, metadata or multicast address; name another, or set allowLinkLocal: true if it is meant"]),
    (within(HTTP % "ftp://x"), ["6:36: spec.rollout.checks[0].http.url: must be an https or http URL"]),
    (within("checks: [{name: c}]"), ["6:14: spec.rollout.checks[0]: needs exactly one of http, prometheus"]),
    (within("checks: [{name: c, http: {url: 'http://a'}}, {name: c, http: {url: 'http://a'}}]"), ["6:13: spec.rollout.checks: two checks are named c; give each a name of its own"]),
    (within("checks: [{name: c, prometheus: {url: 'http://p', query: up, condition: '~ 2'}}]"), ["6:76: spec.rollout.checks[0].prometheus.condition: must be a comparison with a number, such as < 0.01 or >= 2"]),
    (spec("App", "repository: r", "path: p", "targets: {environments: [dev]}", "rollout: {environments: {dev: {soack: 1m}}}"), ["8:34: spec.rollout.environments.dev.soack: no such field; did you mean soak?"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), TABLE)
def test_a_fault_is_named_at_its_place_with_what_to_do(text: str, expected: list[str]) -> None:
    """Line, column, field and a message that helps; nothing else."""
    assert file_faults(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BASE + environment("x", "rollout: {order: {first: [c]}}") , "spec.rollout.order.first[0]: there is no cluster c"),
        (BASE + environment("x", "rollout: {order: {first: [a]}}"), "spec.rollout.order.first[0]: cluster a is in environment dev, not in x; remove it here"),
        (BASE + app(spec="rollout: {environments: {prd: {soak: 1m}}}"), "spec.rollout.environments.prd: there is no environment prd; did you mean prod?"),
        (BASE + app(spec="rollout: {environments: {prod: {order: {first: [a]}}}}"), "cluster a is in environment dev, not in prod; remove it here"),
        (BASE + app(spec="rollout: {order: {first: [z]}}"), "spec.rollout.order.first[0]: there is no cluster z"),
        (environment("a", "after: [b, c]") + environment("b", "after: [d]") + environment("c", "after: [d]") + environment("d", "after: [a]"), "after forms a cycle"),
        (environment("a") + environment("b", "after: [a]") + environment("c", "after: [a, bb]"), "spec.after[1]: there is no environment bb"),
    ],
)  # fmt: skip
def test_names_must_lead_somewhere(text: str, expected: str) -> None:
    """Clusters, environments and `after`, in a graph as in a line."""
    assert any(expected in fault for fault in faults(inventory(text))), faults(inventory(text))


def test_a_diamond_is_no_cycle() -> None:
    """Two ways to one stage are allowed, and so are canaries in their own environment."""
    diamond = [
        environment("d"),
        environment("b", "after: [d]"),
        environment("c", "after: [d]"),
        environment("a", "after: [b, c], rollout: {order: {first: [k]}}"),
        cluster("k", "a"),
    ]
    assert faults(inventory(*diamond)) == []


FULL = """batches: [1, 25%, 100%], order: {first: [b], label: ring}, pace: 1m, soak: 10m, deadline: 15m, stageDeadline: 4h,
  failureBudget: 10%, onFailure: rollback, onUnreachable: {wait: 1h}, onNewRelease: queue, approval: {required: 2, expires: 24h},
  windows: [{cron: 0 9 * * 1-5, duration: 8h, timezone: Europe/Berlin}], freezes: [{cron: 0 0 24 12 *, duration: 72h, reason: holidays}],
  checks: [{name: smoke, perCluster: true, http: {url: 'https://${cluster}.example.com/', status: [200, 204], jsonPath: $.ok, equals: 'true'}},
  {name: errors, interval: 30s, count: 3, failureLimit: 1, timeout: 5s, prometheus: {url: 'http://127.0.0.1:9090', query: up, condition: >= 1}}]"""


def test_everything_may_be_given_at_once() -> None:
    """The whole of the fields is right together, in an environment and in an app."""
    text = (
        repository()
        + environment("prod", "rollout: {" + FULL.replace("condition: >= 1", "condition: '>= 1'") + "}")
        + cluster("b", "prod")
        + app(spec="rollout: {soak: 1m, environments: {prod: {soak: 0s, onUnreachable: wait}}}")
    )
    assert faults(inventory(text)) == []


@pytest.mark.parametrize("host", ["fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254", "0xa9fea9fe", "169.254.43518", "Metadata.Google.Internal.", "0.0.0.0", "::"])  # fmt: skip
def test_other_spellings_of_a_forbidden_address_are_known(host: str) -> None:
    """What the C library would take for the same address is refused as well."""
    assert is_forbidden_host(host)


@given(st.ip_addresses(v=4, network="10.0.0.0/8"))
def test_private_networks_are_allowed(address: object) -> None:
    """Prometheus lives there."""
    assert not is_forbidden_host(str(address))


CRON_FIELD = st.one_of(st.sampled_from(["*", "*/2", "31", "2", "MON-FRI", "L"]), st.text("012359*/-,L#WMON", min_size=1, max_size=4))  # fmt: skip


@given(st.lists(CRON_FIELD, min_size=5, max_size=5).map(" ".join))
def test_a_cron_line_is_right_or_refused_at_its_place(cron: str) -> None:
    """Whatever stands there, the parser ends with a message, never with an error of its own."""
    for fault in file_faults(within(f"windows: [{{cron: '{cron}', duration: 1h}}]")):
        assert fault.startswith("6:22: spec.rollout.windows[0].cron: the ")


def test_a_forbidden_address_may_be_allowed() -> None:
    """`allowLinkLocal` says that it is meant, wherever it is written."""
    for inner in (
        "url: 'http://169.254.1.1/', allowLinkLocal: true",
        "allowLinkLocal: true, url: 'http://169.254.1.1/'",
    ):
        assert file_faults(within(f"checks: [{{name: c, http: {{{inner}}}}}]")) == []


def test_the_reference_names_every_field() -> None:
    """Lists, amounts and durations are called by what a file writes."""
    text = write_reference("Environment")
    assert "| `spec.rollout.batches` | list of text |" in text
    assert "| `spec.rollout.onUnreachable` | text or mapping |" in text
    assert "| `spec.rollout.windows[].cron` | text | required |" in text
    assert "| `spec.rollout.onFailure` | `pause`, `rollback` |" in text
