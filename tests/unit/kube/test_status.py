"""Replies of API servers -> typed errors. The texts are those of a real kube-apiserver."""

import json
from typing import Any

import pytest

from fleet.errors import (
    After,
    Backoff,
    Cause,
    Conflict,
    FleetError,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    OnChange,
    ServerFailure,
    Throttled,
    Unauthorized,
    Unreachable,
)
from fleet.kube.status import classify, conceal, is_field_conflict


def body(message: str = "", reason: str = "", **details: Any) -> bytes:
    """Write a Status."""
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason}
    return json.dumps({**status, "details": details} if details else status).encode()


def cause(reason: str, field: str = "", message: str = "") -> dict[str, str]:
    """Write a cause."""
    return {"reason": reason, "field": field, "message": message}


TYPED = "failed to create typed patch object (d/a; /v1, Kind=ConfigMap): .datum: field not declared in schema"
WEBHOOK = 'Internal error occurred: failed calling webhook "x.example.com": failed to call webhook: connection refused'
IMMUTABLE = cause("FieldValueInvalid", "spec.selector", "Invalid value: {}: field is immutable")
QUOTED = cause("FieldValueInvalid", "spec.template", f"Invalid value: {'x' * 5000}: field is immutable")
POD = cause(
    "FieldValueForbidden", "spec", "Forbidden: pod updates may not change fields other than `spec.containers...`"
)
SERVICE = cause("FieldValueInvalid", "spec.clusterIPs[0]", 'Invalid value: ["None"]: may not change once set')
POLICY = (
    "configmaps \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: name is immutable"
)
STATEFUL = cause("FieldValueForbidden", "spec", "Forbidden: updates to statefulset spec for fields other than ...")


@pytest.mark.parametrize(
    ("code", "reply", "kind", "reason", "retry"),
    [
        (400, body("bad", "BadRequest"), Invalid, "BadRequest", OnChange()),
        (400, b"Client sent an HTTP request to an HTTPS server.\n", Unreachable, "ProtocolError", Backoff()),
        (401, body("Unauthorized", "Unauthorized"), Unauthorized, "Unauthorized", Backoff()),
        (403, body("no", "Forbidden"), Forbidden, "Forbidden", Backoff()),
        (403, body("no", causes=[cause("NamespaceTerminating")]), Forbidden, "NamespaceTerminating", Backoff()),
        (403, body('exceeded quota: "q"'), Forbidden, "QuotaExceeded", Backoff()),
        (403, body('admission webhook "x" denied the request: no'), Forbidden, "AdmissionDenied", Backoff()),
        (405, body("no"), Invalid, "MethodNotAllowed", OnChange()),
        (406, body("no"), Invalid, "NotAcceptable", OnChange()),
        (409, body("conflict", "Conflict"), Conflict, "Conflict", Backoff()),
        (409, body("exists", "AlreadyExists"), Conflict, "AlreadyExists", Backoff()),
        (410, body("too old", "Expired"), Gone, "Gone", Backoff()),
        (413, body("limit is 3145728", "RequestEntityTooLarge"), Invalid, "TooLarge", OnChange()),
        (415, b"", Invalid, "UnsupportedMediaType", OnChange()),
        (422, body("invalid", "Invalid", causes=[cause("FieldValueInvalid")]), Invalid, "Invalid", OnChange()),
        (422, body("invalid", "Invalid", causes=[IMMUTABLE]), Invalid, "ImmutableField", OnChange()),
        (422, body("invalid", "Invalid", causes=[STATEFUL]), Invalid, "ImmutableField", OnChange()),
        (422, body("invalid", "Invalid", causes=[QUOTED]), Invalid, "ImmutableField", OnChange()),
        (422, body("invalid", "Invalid", causes=[POD]), Invalid, "ImmutableField", OnChange()),
        (422, body("invalid", "Invalid", causes=[SERVICE]), Invalid, "ImmutableField", OnChange()),
        (422, body(POLICY, "Invalid", causes=[cause("", "", POLICY)]), Invalid, "AdmissionDenied", OnChange()),
        (429, body("slow down"), Throttled, "Throttled", After(1.0)),
        (429, body("slow down", retryAfterSeconds=7), Throttled, "Throttled", After(7.0)),
        (500, body(TYPED), Invalid, "SchemaMismatch", OnChange()),
        (500, body("etcdserver: request is too large"), Invalid, "TooLarge", OnChange()),
        (500, body(WEBHOOK, "InternalError"), ServerFailure, "WebhookFailed", Backoff()),
        (500, body("boom", "InternalError"), ServerFailure, "ServerFailure", Backoff()),
        (502, b"<html>Bad Gateway</html>", ServerFailure, "ServerFailure", Backoff()),
        (504, body("timeout", "Timeout"), ServerFailure, "Timeout", Backoff()),
        (302, b"", ServerFailure, "Redirected", Backoff()),
    ],
)
def test_table(code: int, reply: bytes, kind: type[FleetError], reason: str, retry: object) -> None:
    """Every kind of refusal has its type, its reason, and what trying again would do."""
    error = classify(code, reply, {})
    assert type(error) is kind
    assert (error.reason, error.retry) == (reason, retry)
    assert error.status == code
    assert "<html>" not in str(error)


@pytest.mark.parametrize(
    ("reply", "plural", "what"),
    [
        (b"404 page not found\n", "widgets", "kind"),
        (body("the server could not find the requested resource", "NotFound"), "widgets", "kind"),
        (body('configmaps "a" not found', "NotFound", name="a", kind="configmaps"), "configmaps", "object"),
        (body('namespaces "n" not found', "NotFound", name="n", kind="namespaces"), "configmaps", "namespace"),
        (body('namespaces "n" not found', "NotFound", name="n", kind="namespaces"), "namespaces", "object"),
    ],
)
def test_what_is_missing(reply: bytes, plural: str, what: str) -> None:
    """A missing object, namespace and kind are three different things."""
    error = classify(404, reply, {}, plural=plural)
    assert isinstance(error, NotFound)
    assert error.what == what


def test_retry_after_header_wins() -> None:
    """The header says how long to wait; a 503 may carry it too."""
    assert classify(429, body(retryAfterSeconds=3), {"Retry-After": "9"}).retry == After(9.0)
    assert classify(503, b"", {"Retry-After": "4"}).retry == After(4.0)
    assert classify(503, b"", {"Retry-After": "soon"}).retry == Backoff()


def test_messages_and_causes_are_bounded() -> None:
    """A server cannot fill our status with megabytes."""
    reply = body("m" * 10_000, causes=[cause("FieldValueInvalid", "f", "c" * 10_000)] * 1000)
    error = classify(422, reply, {})
    assert len(error.message) == 256
    assert len(error.causes) == 20
    assert all(len(c.message) == 256 for c in error.causes)


def test_field_conflicts_are_told_from_preconditions() -> None:
    """Only a conflict whose causes name managers may be forced."""
    managers = [cause("FieldManagerConflict", ".data.k", 'conflict with "kubectl-edit" using v1')]
    fields = classify(409, body("conflict", "Conflict", causes=managers), {})
    assert is_field_conflict(fields)
    assert fields.causes == (Cause("FieldManagerConflict", ".data.k", 'conflict with "kubectl-edit" using v1'),)
    assert not is_field_conflict(classify(409, body("the object has been modified", "Conflict"), {}))


def test_secret_values_are_withheld() -> None:
    """What a server quotes of an object with secrets goes no further; fields and reason do."""
    error = classify(422, body("bad: hunter2", causes=[cause("FieldValueInvalid", "data.k", "hunter2")]), {})
    hidden = conceal(error)
    assert "hunter2" not in repr((str(hidden), hidden.args, hidden.causes))
    assert "data.k" in str(hidden)
    assert hidden.reason == "Invalid"


@pytest.mark.parametrize("reply", [b"", b"null", b"[]", b"{}", b'{"kind":"Status","details":null}', b"\xff\xfe"])
def test_broken_bodies(reply: bytes) -> None:
    """Whatever stands in the body, there is a sentence."""
    assert "HTTP 500" in classify(500, reply, {}).message


@pytest.mark.parametrize(("seconds", "pause_s"), [("9" * 5000, 120), ("100000", 120), ("-5", 1), ("0", 1), ("1.5", 1)])
def test_pauses_are_bounded(seconds: str, pause_s: float) -> None:
    """No server may ask us to stay away for a day, or to come back at once."""
    assert classify(429, b"", {"Retry-After": seconds}).retry == After(pause_s)


@pytest.mark.parametrize(("seconds", "pause_s"), [(-5, 1), (10**9, 120), (7, 7)])
def test_pauses_in_the_body_are_bounded(seconds: int, pause_s: float) -> None:
    """The same holds for what a Status asks."""
    assert classify(429, body(retryAfterSeconds=seconds), {}).retry == After(pause_s)
