"""Probes and metrics."""

import pytest

from fleet.hub.view import Check
from tests.harness.hub import FakeHub
from tests.integration.server.conftest import Api, serving


async def test_probes_are_short_when_all_is_well(api: Api) -> None:
    """Like kube-apiserver's: just ok."""
    for path in ("/livez", "/readyz", "/healthz"):
        answer = await api("GET", path)
        assert (answer.status, answer.body) == (200, b"ok")


async def test_verbose_lists_the_checks(api: Api) -> None:
    """A line per check, and the verdict."""
    answer = await api("GET", "/readyz?verbose")
    assert answer.body == b"[+]running ok\n[+]inventory ok\nreadyz check passed\n"
    assert (await api("GET", "/healthz?verbose")).body.startswith(b"[+]ping ok\n[+]running ok\n")


async def test_a_failing_check_makes_the_hub_not_ready(api: Api, hub: FakeHub) -> None:
    """503 with the reason, redacted; liveness is another matter."""
    message = "https://me:hunter2@git.example.com is no directory"
    hub.check_rows[1] = Check(name="inventory", ok=False, message=message)
    answer = await api("GET", "/readyz")
    assert answer.status == 503
    assert b"[-]inventory failed: https://***@git.example.com is no directory\nreadyz check failed" in answer.body
    assert (await api("GET", "/healthz")).status == 503
    assert (await api("GET", "/livez")).status == 200


async def test_checks_can_be_excluded_and_asked_alone(api: Api, hub: FakeHub) -> None:
    """`?exclude=` leaves one out and warns about one that is not there; a path asks for one."""
    hub.check_rows[1] = Check(name="inventory", ok=False, message="empty")
    answer = await api("GET", "/readyz?exclude=inventory&exclude=nothing&verbose")
    assert answer.status == 200
    assert b"[+]inventory excluded: ok\n" in answer.body
    assert b"warn: some health checks cannot be excluded: no matches for nothing\n" in answer.body
    assert (await api("GET", "/readyz/running")).status == 200
    assert (await api("GET", "/readyz/inventory")).status == 503
    assert (await api("GET", "/readyz/nothing")).status == 404


async def test_a_stuck_hub_is_not_alive(api: Api, hub: FakeHub) -> None:
    """Liveness is the hub's word."""
    hub.is_live = False
    assert (await api("GET", "/livez")).status == 503


async def test_a_dead_cluster_does_not_matter_to_readiness(api: Api) -> None:
    """One of the clusters is Stale all along."""
    assert "Stale" in (await api.get("/status")).json["clusters"]
    assert (await api("GET", "/readyz")).status == 200


@pytest.mark.parametrize(
    ("accept", "kind"),
    [("", "text/plain"), ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text")],
)
async def test_metrics_speak_the_scrapers_format(api: Api, accept: str, kind: str) -> None:
    """Both formats that Prometheus asks for; requests are counted by route, not by path."""
    await api.get("/clusters/eu-1")
    answer = await api("GET", "/metrics", headers={"Accept": accept} if accept else {})
    assert answer.headers["Content-Type"].startswith(kind)
    assert b'fleet_http_requests_total{code="200",method="GET",route="/api/v1/clusters/{name}"}' in answer.body
    requests = [line for line in answer.body.splitlines() if line.startswith(b"fleet_http_")]
    assert not any(b"eu-1" in line for line in requests)


async def test_unknown_paths_do_not_become_metrics(api: Api) -> None:
    """Whoever tries a thousand paths makes no thousand series."""
    await api("GET", "/wp-login.php")
    answer = await api("GET", "/metrics")
    assert b"wp-login" not in answer.body
    assert b'route="unknown"' in answer.body


async def test_probes_can_have_a_listener_of_their_own(hub: FakeHub) -> None:
    """It answers probes and scrapes to anybody, and nothing else."""
    async with serving(hub, probe_listen="127.0.0.1:0") as api:
        assert api.bound.probe is not None
        url = f"http://127.0.0.1:{api.bound.probe.port}"
        found = {}
        for path in ("/readyz", "/metrics", "/api/v1/status", "/"):
            async with api.session.get(url + path, headers={"Host": "10.0.0.7"}) as response:
                found[path] = response.status
    assert found == {"/readyz": 200, "/metrics": 200, "/api/v1/status": 404, "/": 404}
