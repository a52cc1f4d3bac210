"""The status page."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import msgspec
import pytest

from fleet.hub.view import PauseRow, ProblemRow
from tests.harness.hub import FakeHub, app, cluster, event, hold, repository, target
from tests.harness.rollout import cluster_row, rollout_detail, rollout_row, stage_row
from tests.integration.server.conftest import VIEWER, Api

HOSTILE = """"><script>alert(1)</script><img src=x onerror='alert(2)'>&"""


class Tags(HTMLParser):
    """Collects a page's elements with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.text += data


async def page_of(api: Api, query: str = "") -> str:
    """Read the page."""
    answer = await api("GET", f"/{query}")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    return answer.body.decode()


async def test_environments_come_in_the_order_of_stages(api: Api, hub: FakeHub) -> None:
    """In the tiles and above the matrix, whatever the alphabet says."""
    for hub.stages in (("dev", "prod"), ("prod", "dev")):
        page = await page_of(api)
        heads = re.findall(r'scope="colgroup"[^>]*>([^<]*)', page)
        assert tuple(heads) == hub.stages
        assert tuple(re.findall(r"Synced in (\w+)", page)) == hub.stages


async def test_the_page_shows_the_fleet(api: Api, hub: FakeHub) -> None:
    """Targets, clusters, repositories, problems, pauses and events, each with what to do."""
    hub.problem_rows = [ProblemRow(file="apps.yaml", line=3, column=7, field="spec.path", message="is missing")]
    hub.pause_rows = [
        PauseRow(
            scope="app shop",
            cluster="",
            app="shop",
            environment="",
            reason="freeze",
            actor="ada",
            since="",
            until="",
            origin="file",
        )
    ]
    text = Tags(await page_of(api)).text
    for shown in (
        "1 / 4",
        "Synced in prod",
        "≠ Drifted",
        "Deployment default/web: replicas",
        "apps.yaml:3:7",
        "freeze",
        "https://git.example.com/config.git",
        "is the API server up?",
        "12m",
        "#42",
    ):
        assert shown in text


async def test_a_synced_fleet_has_nothing_that_wants_attention(api: Api, hub: FakeHub) -> None:
    """Sections without rows that would alarm are not there."""
    hub.target_rows = [target("shop", "eu-1", "dev")]
    text = Tags(await page_of(api)).text
    assert not [word for word in ("Not Synced", "Inventory problems", "Paused") if word in text.split("function")[0]]


async def test_an_empty_fleet_has_a_page(api: Api, hub: FakeHub) -> None:
    """Before anything is declared."""
    hub.target_rows, hub.cluster_rows, hub.app_rows, hub.repository_rows, hub.stored_events = [], [], [], [], []
    assert "0 / 0" in await page_of(api)


async def test_nothing_shown_becomes_markup(api: Api, hub: FakeHub) -> None:
    """Names and messages from Git and clusters are text wherever they stand."""
    bad = HOSTILE
    hub.target_rows = [msgspec.structs.replace(target(bad, bad, bad, bad, bad), reason=bad, release=bad)]
    hub.target_rows.append(msgspec.structs.replace(target(bad, "eu-1", bad, "Synced"), release=bad))
    hub.cluster_rows = [msgspec.structs.replace(cluster(bad, bad, bad), version=bad, message=bad)]
    hub.app_rows = [app(bad, bad)]
    hub.repository_rows = [msgspec.structs.replace(repository(bad, bad, bad), url=bad, ref=bad, revision=bad)]
    hub.problem_rows = [ProblemRow(file=bad, line=1, column=1, field=bad, message=bad)]
    names = ("scope", "cluster", "app", "environment", "reason", "actor", "until", "origin")
    hub.pause_rows = [PauseRow(since="", **dict.fromkeys(names, bad))]
    hub.stored_events = [event(1, bad, cluster=bad, app=bad, kind=bad, reason=bad, object=bad, actor=bad)]
    tags = Tags(await page_of(api, "?app=%22%3E%3Cscript%3Ealert(1)%3C/script%3E")).found
    tags += Tags(await page_of(api)).found
    assert [tag for tag, _ in tags].count("script") == 2
    assert "img" not in [tag for tag, _ in tags]
    assert not [attributes for _, attributes in tags if any(name.startswith("on") for name in attributes)]


async def test_the_policy_allows_this_page_and_nothing_else(api: Api) -> None:
    """Style and script are inline and named by their hashes; nothing is loaded from anywhere."""
    answer = await api("GET", "/")
    page, policy = answer.body.decode(), answer.headers["Content-Security-Policy"]
    for name, directive in (("style", "style-src"), ("script", "script-src")):
        inline = re.findall(rf"<{name}>(.*?)</{name}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline[0].encode()).digest()).decode()
        assert len(inline) == 1
        assert f"{directive} 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    attributes = [attributes for _, attributes in Tags(page).found]
    assert not [a for a in attributes if "style" in a or "src" in a]


async def test_the_page_is_filtered_by_its_address(api: Api) -> None:
    """The URL holds the view; the form shows it."""
    page = Tags(await page_of(api, "?environment=dev&label=region%3Deu"))
    assert "Synced in dev" in page.text
    assert "Synced in prod" not in page.text
    values = {a["name"]: a["value"] for tag, a in page.found if tag == "input"}
    assert (values["environment"], values["label"]) == ("dev", "region=eu")


@pytest.mark.parametrize(("query", "hint"), [("?stat=x", "did you mean state?"), ("?label=a%20b", "not a selector")])
async def test_a_wrong_filter_is_said_on_the_page(api: Api, query: str, hint: str) -> None:
    """As a page, not as JSON."""
    answer = await api("GET", f"/{query}")
    assert answer.status == 400
    assert hint in Tags(answer.body.decode()).text


async def test_without_a_token_the_page_asks_for_one(remote: Api) -> None:
    """Beyond loopback it shows nothing of the fleet but a form; with a token it is the page."""
    refused = await remote("GET", "/")
    assert refused.status == 401
    page = Tags(refused.body.decode())
    assert ("form", {"id": "sign-in"}) in page.found
    assert "eu-1" not in page.text
    assert "Synced in dev" in (await remote("GET", "/", token=VIEWER)).body.decode()


async def test_secrets_are_masked_on_the_page(api: Api, hub: FakeHub) -> None:
    """The page leaves through the redactor too."""
    hub.target_rows[0] = target("db", "eu-1", "dev", "Failed", "https://me:hunter2@git.example.com: flt_abcdefgh12")
    page = await page_of(api)
    assert "hunter2" not in page
    assert "flt_abcdefgh12" not in page


async def test_a_large_fleet_is_cut_with_a_word(api: Api, hub: FakeHub) -> None:
    """Rows that need attention stop at a bound and say how many there are."""
    hub.target_rows = [target(f"app-{n}", "eu-1", "dev", "Failed", "x") for n in range(150)]
    assert "and 50 more" in await page_of(api)


async def test_the_page_shows_holds(api: Api, hub: FakeHub) -> None:
    """What stays at an earlier release, by whom and why."""
    hub.hold_rows = [hold(reason="incident 12", actor="ada")]
    text = Tags(await page_of(api)).text
    assert [word for word in ("Held", "app shop", "shop#41", "incident 12", "ada") if word not in text] == []


async def test_rollouts_are_shown_with_what_they_wait_for(api: Api, hub: FakeHub) -> None:
    """Stage by stage; one that went well is not, and a filter keeps those of its apps."""
    done, other = rollout_row("db", 7, "Succeeded"), rollout_row("web", 3, "Failed", message="no way", waits_for="")
    hub.rollouts.details = [rollout_detail(), rollout_detail(done), rollout_detail(other)]
    page = await page_of(api)
    assert re.findall(r"<article><h3><b>([^<]*)</b>", page) == ["shop#42", "web#3"]
    assert re.findall(r'class="stage (\w+)-edge"', page.partition("</article>")[0]) == ["good", "busy", "warn"]
    assert 'data-at="2030-01-31T12:04:00Z">4m</time>' in page
    assert "no way" in page
    narrow = await page_of(api, "?app=shop")
    assert re.findall(r"<article><h3><b>([^<]*)</b>", narrow) == ["shop#42"]
    hub.rollouts.details = [rollout_detail(done)]
    assert "<article>" not in await page_of(api)


async def test_a_rollout_of_many_clusters_shows_those_that_matter(api: Api, hub: FakeHub) -> None:
    """Failures first, the rest counted; what clusters say cannot become markup."""
    many = [cluster_row(f"c-{i}") for i in range(100)]
    failed = cluster_row("odd", "Failed", reason="CrashLoopBackOff", message=HOSTILE)
    hub.rollouts.details = [rollout_detail(None, stage_row("prod", "Running", *many, failed))]
    page = await page_of(api)
    article = page[page.index("<article>") : page.index("</article>")]
    assert article.count('class="chip good"') == 59
    assert "and 41 Done" in article
    assert article.index("odd") < article.index("c-0")
    assert "<b>odd </b>CrashLoopBackOff: " in article
    assert "<script>" not in article
