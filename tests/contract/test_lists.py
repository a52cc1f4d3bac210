"""LIST and WATCH: pages, selectors, versions, and how a stream tells what happened."""

from typing import Any
from urllib.parse import quote

import pytest

from tests.contract.client import METADATA, Api

SYNC = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"


def labelled(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels}}


@pytest.fixture
def secrets(api: Api, namespace: str) -> str:
    """The secrets of the namespace; there are three, a, b and c."""
    path = f"/api/v1/namespaces/{namespace}/secrets"
    for name in "abc":
        api.post(path, labelled(name, app=name))
    return path


def names(body: Any) -> list[str]:
    return [item["metadata"]["name"] for item in body["items"]]


def test_list(api: Api, secrets: str) -> None:
    """A list is ordered by name; its items do not repeat their kind."""
    body = api.get(secrets).body
    assert list(body) == ["kind", "apiVersion", "metadata", "items"]
    assert (body["kind"], body["apiVersion"]) == ("SecretList", "v1")
    assert names(body) == ["a", "b", "c"]
    assert "kind" not in body["items"][0]


def test_list_of_a_missing_namespace(api: Api) -> None:
    """A namespace that is not there lists as empty."""
    reply = api.get("/api/v1/namespaces/nope/secrets")
    assert (reply.code, reply.body["items"]) == (200, [])


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("labelSelector=app=a", ["a"]),
        ("labelSelector=app!=a", ["b", "c"]),
        ("labelSelector=app in (a,c)", ["a", "c"]),
        ("labelSelector=app notin (a,c)", ["b"]),
        ("labelSelector=app", ["a", "b", "c"]),
        ("labelSelector=!app", []),
        ("labelSelector=app=a,app=b", []),
        ("fieldSelector=metadata.name=b", ["b"]),
        ("fieldSelector=metadata.name!=b", ["a", "c"]),
        ("fieldSelector=type=Opaque,metadata.name=a", ["a"]),
    ],
)
def test_selectors(api: Api, secrets: str, selector: str, expected: list[str]) -> None:
    """Selectors pick by labels and by the fields a kind offers."""
    assert names(api.get(f"{secrets}?{quote(selector, safe='=&')}").body) == expected


@pytest.mark.parametrize("selector", ["labelSelector=a%3Db%3Dc", "fieldSelector=data.x%3D1", "limit=x"])
def test_bad_selectors(api: Api, secrets: str, selector: str) -> None:
    """A selector nobody understands is 400."""
    assert api.get(f"{secrets}?{selector}").error[:2] == (400, "BadRequest")


def test_pages_are_one_list(api: Api, secrets: str) -> None:
    """All pages are the list of the first one's version, whatever happens meanwhile."""
    first = api.get(f"{secrets}?limit=2").body
    assert names(first) == ["a", "b"]
    assert first["metadata"]["remainingItemCount"] == 1
    api.post(secrets, labelled("d"))
    api.delete(f"{secrets}/c")
    token = quote(first["metadata"]["continue"])
    second = api.get(f"{secrets}?limit=2&continue={token}").body
    assert names(second) == ["c"]
    assert second["metadata"] == {"resourceVersion": first["metadata"]["resourceVersion"]}


def test_pages_under_a_selector(api: Api, secrets: str) -> None:
    """Under a selector nobody counts what remains."""
    metadata = api.get(f"{secrets}?limit=2&labelSelector=app").body["metadata"]
    assert "continue" in metadata
    assert "remainingItemCount" not in metadata


def test_page_requests_that_make_no_sense(api: Api, secrets: str) -> None:
    """A continue token with a version, or one that is none, is 400."""
    token = quote(api.get(f"{secrets}?limit=2").body["metadata"]["continue"])
    both = api.get(f"{secrets}?limit=2&resourceVersion=4&continue={token}")
    assert both.error == (
        400,
        "BadRequest",
        "specifying resource version is not allowed when using continue",
    )
    assert api.get(f"{secrets}?limit=2&continue=zzz").error[:2] == (400, "BadRequest")


def test_limit_is_ignored_for_any_version(api: Api, secrets: str) -> None:
    """With resourceVersion=0 the whole list comes at once."""
    assert names(api.get(f"{secrets}?limit=1&resourceVersion=0").body) == ["a", "b", "c"]


def test_lists_of_the_past(api: Api, secrets: str) -> None:
    """An exact version lists what was there then."""
    then = api.get(secrets).rv
    api.delete(f"{secrets}/a")
    past = api.get(f"{secrets}?resourceVersion={then}&resourceVersionMatch=Exact")
    assert (names(past.body), past.rv) == (["a", "b", "c"], then)
    assert names(api.get(f"{secrets}?resourceVersion={then}&resourceVersionMatch=NotOlderThan").body) == ["b", "c"]


def test_versions_that_make_no_sense(api: Api, secrets: str) -> None:
    """A match without a version is 422, a version that is no number 400."""
    match = api.get(f"{secrets}?resourceVersionMatch=Exact")
    why = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
    head = 'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: '
    assert match.error == (422, "Invalid", head + why)
    junk = api.get(f"{secrets}?resourceVersion=abc").error
    assert junk[:2] == (400, "BadRequest")
    assert junk[2].startswith('invalid resource version: resourceVersion: Invalid value: "abc"')


def test_versions_of_the_future(api: Api, secrets: str) -> None:
    """A version that is not yet is 504 after a while, marked so that a rewound history can be told."""
    reply = api.get(f"{secrets}?resourceVersion=99999999&limit=1")
    assert reply.error[:2] == (504, "Timeout")
    assert reply.body["message"].startswith("Timeout: Too large resource version: 99999999, current: ")
    assert reply.causes == [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    assert reply.body["details"]["retryAfterSeconds"] == 1


# Watches.


def test_watch_from_a_version(api: Api, secrets: str) -> None:
    """A watch from a list's version tells every change after it, once and in order."""
    rv = api.get(secrets).rv
    api.post(secrets, labelled("d"))
    with api.watch(f"{secrets}?watch=1&resourceVersion={rv}") as stream:
        assert stream.take(1) == [("ADDED", "d")]
        api.patch(f"{secrets}/a", {"metadata": {"labels": {"app": "z"}}})
        api.delete(f"{secrets}/b")
        assert stream.take(2) == [("MODIFIED", "a"), ("DELETED", "b")]


def test_watch_carries_whole_objects(api: Api, secrets: str) -> None:
    """Events carry the object as a GET would show it; a deletion carries a version of its own."""
    before = api.get(f"{secrets}/a")
    with api.watch(f"{secrets}?watch=1&resourceVersion={before.rv}&fieldSelector=metadata.name%3Da") as stream:
        changed = api.patch(f"{secrets}/a", {"metadata": {"labels": {"app": "z"}}})
        api.delete(f"{secrets}/a")
        modified, deleted = stream.next(), stream.next()
    assert modified is not None
    assert modified["object"] == changed.body
    assert deleted is not None
    assert int(deleted["object"]["metadata"]["resourceVersion"]) > int(changed.rv)
    assert deleted["object"]["metadata"]["labels"] == {"app": "z"}


def test_watch_without_a_version(api: Api, secrets: str) -> None:
    """Without a version the present content comes first."""
    with api.watch(f"{secrets}?watch=1") as stream:
        assert sorted(stream.take(3)) == [("ADDED", "a"), ("ADDED", "b"), ("ADDED", "c")]
        api.delete(f"{secrets}/c")
        assert stream.take(1) == [("DELETED", "c")]


def test_streamed_list(api: Api, secrets: str) -> None:
    """A streamed list ends with a marked bookmark whose version is not older than its objects."""
    with api.watch(f"{secrets}?watch=1&{SYNC}") as stream:
        *added, end = stream.until_bookmark()
        assert sorted(event["object"]["metadata"]["name"] for event in added) == ["a", "b", "c"]
        metadata = end["object"]["metadata"]
        assert metadata.pop("annotations") == {"k8s.io/initial-events-end": "true"}
        assert end["object"] == {"kind": "Secret", "apiVersion": "v1", "metadata": metadata}
        newest = max(int(event["object"]["metadata"]["resourceVersion"]) for event in added)
        assert int(metadata["resourceVersion"]) >= newest
        api.post(secrets, labelled("d"))
        assert stream.take(1) == [("ADDED", "d")]


def test_streamed_list_of_metadata(api: Api, secrets: str) -> None:
    """As metadata only, events and the bookmark are PartialObjectMetadata."""
    with api.watch(f"{secrets}?watch=1&{SYNC}&labelSelector=app%3Da", Accept=METADATA) as stream:
        events = stream.until_bookmark()
    assert {event["object"]["kind"] for event in events} == {"PartialObjectMetadata"}
    assert set(events[0]["object"]) == {"kind", "apiVersion", "metadata"}


def test_watch_options_that_make_no_sense(api: Api, secrets: str) -> None:
    """Streamed lists need their match, the match needs the streamed list, a version must be a number."""
    head = 'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: '
    expected = {
        "sendInitialEvents=true": "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        "resourceVersionMatch=NotOlderThan": (
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        ),
    }
    for query, why in expected.items():
        with api.watch(f"{secrets}?watch=1&{query}") as stream:
            assert stream.code == 422
            assert stream.body()["message"] == head + why
    with api.watch(f"{secrets}?watch=1&resourceVersion=abc") as stream:
        assert stream.code == 500
        assert "reason" not in stream.body()


def test_selected_watch_tells_entering_and_leaving(api: Api, secrets: str) -> None:
    """Under a selector an object that enters is ADDED, one that leaves is DELETED as it was, at the new version."""
    rv = api.get(secrets).rv
    with api.watch(f"{secrets}?watch=1&resourceVersion={rv}&labelSelector=app%3Da") as stream:
        entered = api.patch(f"{secrets}/b", {"metadata": {"labels": {"app": "a"}}})
        left = api.patch(f"{secrets}/a", {"metadata": {"labels": {"app": "z"}}})
        api.patch(f"{secrets}/a", {"metadata": {"labels": {"app": "y"}}})
        api.delete(f"{secrets}/b")
        events = [event for _ in range(3) if (event := stream.next())]
    told = [(event["type"], event["object"]["metadata"]["name"]) for event in events]
    assert told == [("ADDED", "b"), ("DELETED", "a"), ("DELETED", "b")]
    assert events[0]["object"] == entered.body
    gone = events[1]["object"]["metadata"]
    assert (gone["labels"], gone["resourceVersion"]) == ({"app": "a"}, left.rv)


def test_watch_ends_by_its_timeout(api: Api, secrets: str) -> None:
    """timeoutSeconds ends the stream cleanly."""
    rv = api.get(secrets).rv
    with api.watch(f"{secrets}?watch=1&resourceVersion={rv}&timeoutSeconds=1") as stream:
        assert stream.next() is None


def test_bookmark_before_the_end(api: Api, secrets: str) -> None:
    """Shortly before the timeout a bookmark says how far the stream is: beyond what its selector let through."""
    rv = api.get(secrets).rv
    query = f"watch=1&labelSelector=app=none&resourceVersion={rv}&timeoutSeconds=4&allowWatchBookmarks=true"
    with api.watch(f"{secrets}?{query}") as stream:
        # a real server has nothing to say as long as its version stands still
        api.post(secrets, labelled("d"))
        event = stream.next()
        assert event is not None
        assert event["type"] == "BOOKMARK"
        assert int(event["object"]["metadata"]["resourceVersion"]) > int(rv)
        assert set(event["object"]["metadata"]) == {"resourceVersion"}


def test_watch_from_the_future(api: Api, secrets: str) -> None:
    """A version of the future is accepted and says nothing: a rewound history must be found by other means."""
    with api.watch(f"{secrets}?watch=1&resourceVersion=99999999&timeoutSeconds=2") as stream:
        api.post(secrets, labelled("d"))
        assert stream.code == 200
        assert stream.next() is None


def test_watch_of_a_missing_kind(api: Api, namespace: str) -> None:
    """A watch of what is not served is refused as any request is."""
    with api.watch(f"/api/v1/namespaces/{namespace}/foos?watch=1") as stream:
        assert stream.code == 404
        assert stream.body()["reason"] == "NotFound"
