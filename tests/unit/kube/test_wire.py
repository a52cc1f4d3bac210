"""What API servers send, decoded."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import ServerFailure
from fleet.kube.watch import Lines
from fleet.kube.wire import decode_bookmark, decode_event, decode_observed, decode_page, parse_rv
from fleet.object import Gvk, ObjectKey

CONFIG_MAP = Gvk("", "v1", "ConfigMap")
FULL: dict[str, Any] = {
    "apiVersion": "meta.k8s.io/v1",
    "kind": "PartialObjectMetadata",
    "metadata": {
        "name": "a",
        "namespace": "n",
        "uid": "0f3a2b1c-0000-4000-8000-00000000beef",
        "resourceVersion": "42",
        "generation": 3,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "deletionTimestamp": "2026-01-02T00:00:00Z",
        "labels": {"l": "1"},
        "annotations": {"a": "1"},
        "finalizers": ["f"],
        "ownerReferences": [
            {"kind": "Node", "name": "x", "uid": "1"},
            {"kind": "ReplicaSet", "name": "web-1", "uid": "2", "controller": True},
        ],
        "managedFields": [
            {
                "manager": "m",
                "operation": "Apply",
                "apiVersion": "v1",
                "fieldsType": "FieldsV1",
                "fieldsV1": {"f:x": {}},
            },
            {"manager": "n", "operation": "Update", "time": "2026-01-01T00:00:00Z", "subresource": "status"},
        ],
    },
}


def test_everything_is_read() -> None:
    """Metadata is read whole; the kind is the one asked for, not PartialObjectMetadata."""
    o = decode_observed(json.dumps(FULL).encode(), CONFIG_MAP)
    assert o.key == ObjectKey("", "ConfigMap", "n", "a")
    assert (o.version, o.uid, o.rv, o.generation) == ("v1", FULL["metadata"]["uid"], 42, 3)
    assert (o.deleting, o.labels, o.annotations, o.finalizers) == (True, {"l": "1"}, {"a": "1"}, ("f",))
    assert o.controller == "ReplicaSet/web-1"
    assert (o.managed[0].manager, o.managed[0].fields.replace(b" ", b"")) == ("m", b'{"f:x":{}}')
    assert (o.managed[1].subresource, o.managed[1].fields) == ("status", b"{}")
    assert o.body is None
    assert o.created_at == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize("null", ["labels", "annotations", "finalizers", "ownerReferences", "managedFields"])
def test_nulls_are_empty(null: str) -> None:
    """Servers may send null where nothing is."""
    o = decode_observed(json.dumps({"metadata": {"name": "a", null: None}}).encode(), CONFIG_MAP)
    assert [o.labels, o.annotations, o.finalizers, o.controller, o.managed] == [{}, {}, (), "", ()]


@pytest.mark.parametrize("raw", [b"", b"[]", b"<html>", b'{"metadata":{"name":7}}', b"\xff\xfe", b"{}"])
def test_garbage_is_the_servers_failure(raw: bytes) -> None:
    """Bytes that are no object never become one."""
    with pytest.raises(ServerFailure):
        decode_observed(raw, CONFIG_MAP)
    with pytest.raises(ServerFailure):
        decode_page(raw.replace(b'"name"', b'"resourceVersion"'))
    if raw != b"{}":
        with pytest.raises(ServerFailure):
            decode_event(raw.replace(b'{"metadata":{"name":7}}', b"7"))
        with pytest.raises(ServerFailure):
            decode_bookmark(raw)


@pytest.mark.parametrize("item", [{"metadata": {"name": "a"}, "data": {"k": "v"}}, {"metadata": {"name": "a"}}])
def test_whole_items_of_lists_get_their_kind(item: dict[str, Any]) -> None:
    """A list leaves the kind out of its items; a body never lacks it."""
    page = decode_page(json.dumps({"metadata": {"resourceVersion": "9", "continue": "c"}, "items": [item]}).encode())
    assert (page.rv, page.more) == ("9", "c")
    body = decode_observed(page.items[0], Gvk("apps", "v1", "Deployment"), whole=True).body
    assert json.loads(body or b"") == {"apiVersion": "apps/v1", "kind": "Deployment", **item}


def test_whole_objects_stay_as_sent() -> None:
    """A body that names its kind is kept byte for byte."""
    raw = json.dumps({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}}).encode()
    assert decode_observed(raw, CONFIG_MAP, whole=True).body == raw


def test_bookmarks() -> None:
    """A bookmark carries a position, and maybe the end of the initial list."""
    mark = {"kind": "ConfigMap", "metadata": {"resourceVersion": "12"}}
    assert decode_bookmark(json.dumps(mark).encode()).initial_end is False
    mark["metadata"]["annotations"] = {"k8s.io/initial-events-end": "true"}  # type: ignore[index]
    done = decode_bookmark(json.dumps(mark).encode())
    assert (done.rv, done.initial_end) == ("12", True)


@given(st.lists(st.binary(max_size=30).filter(lambda b: b"\n" not in b and b.strip()), max_size=8), st.data())
def test_lines_survive_any_cut(lines: list[bytes], data: st.DataObject) -> None:
    """However the stream is cut into chunks, the same lines come out; blank ones and an open end do not."""
    stream = b"\n\n".join(lines) + b"\n" + b"open end"
    cutter, found = Lines(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += list(cutter.feed(stream[:size]))
        stream = stream[size:]
    assert found == lines


def test_endless_lines_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line without an end does not fill the memory."""
    monkeypatch.setattr("fleet.kube.watch.MOST_LINE_BYTES", 100)
    lines = Lines()
    assert not [line for _ in range(10) for line in lines.feed(b"x" * 10)]
    with pytest.raises(ServerFailure):
        list(lines.feed(b"x"))


@pytest.mark.parametrize("text", ["9" * 5000, "9223372036854775808", "-1", "1.5", " 1", "٣"])
def test_positions_that_are_no_numbers(text: str) -> None:
    """A resourceVersion that no database could hold is compared for equality only."""
    assert parse_rv(text) == 0
