"""What an answer to a check means: passed, failed, or nothing to go by."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.rollout.answer import (
    MOST_SHOWN,
    Answer,
    is_same,
    judge_http,
    judge_prometheus,
    judge_silence,
    query_url,
)
from fleet.rollout.policy import HttpProbe, PrometheusQuery

QUERY = PrometheusQuery(url="http://p", query="up", condition="< 0.5")


def short(answer: Answer) -> tuple[str, str, str]:
    """Return an answer as plain text."""
    return str(answer.outcome), answer.value, answer.message


@pytest.mark.parametrize(
    ("probe", "status", "body", "expected"),
    [
        ({}, 200, "", ("passed", "200", "")),
        ({}, 503, "", ("failed", "503", "the answer was HTTP 503, not 200")),
        ({"status": (200, 204)}, 302, "", ("failed", "302", "the answer was HTTP 302, not 200, 204")),
        ({"body": "ok"}, 200, "all ok", ("passed", "200", "")),
        ({"body": "ok"}, 200, "secret", ("failed", "200", "the body does not contain 'ok'")),
        ({"json_path": "$.a"}, 200, '{"a": null}', ("passed", "null", "")),
        ({"json_path": "$.a"}, 200, "{}", ("failed", "", "$.a finds nothing in the body")),
        ({"json_path": "$.a"}, 200, "<html>", ("failed", "", "the body is not JSON")),
        ({"json_path": "$.a"}, 200, "[" * 100_000, ("failed", "", "the body is not JSON")),
        ({"json_path": "$.a"}, 200, '{"a": NaN}', ("failed", "", "the body is not JSON")),
        ({"json_path": "$.a", "equals": '"up"'}, 200, '{"a": "up"}', ("passed", '"up"', "")),
        ({"json_path": "$.a", "equals": '"up"'}, 200, '{"a": "down"}', ("failed", '"down"', '$.a is "down", not "up"')),
        ({"json_path": "$.a", "equals": "1"}, 200, '{"a": true}', ("failed", "true", "$.a is true, not 1")),
        ({"json_path": "$.a", "equals": "null"}, 200, '{"a": 0}', ("failed", "0", "$.a is 0, not null")),
        ({"json_path": "$[*].r", "equals": "true"}, 200, '[{"r": true}, {"r": false}]', ("failed", "false", "$[*].r is false, not true")),
        ({"json_path": "$[*].r", "equals": "true"}, 200, '[{"r": true}, {}]', ("failed", "", "$[*].r finds nothing in the body")),
        ({"json_path": "$[*].r", "equals": "true"}, 200, "[]", ("failed", "", "$[*].r finds nothing in the body")),
        ({"json_path": "$.a", "equals": "${"}, 200, '{"a": 0}', ("inconclusive", "", "what equals holds, its variables filled in, is not JSON")),
    ],
)  # fmt: skip
def test_what_a_service_answers_is_meant(
    probe: dict[str, Any], status: int, body: str, expected: tuple[str, str, str]
) -> None:
    """Status, text, and every place that a path leads to; the body itself is never shown."""
    assert short(judge_http(HttpProbe(url="http://a", **probe), status, body)) == expected


def vector(*values: str, **labels: str) -> str:
    """Return Prometheus's reply with an instant vector."""
    result: list[dict[str, Any]] = [
        {"metric": {**labels, "i": str(i)}, "value": [1.5, value]} for i, value in enumerate(values)
    ]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})


SCALAR = '{"status": "success", "data": {"resultType": "scalar", "result": [1.5, "%s"]}}'


def warned(*warnings: str, value: str = "0.1") -> str:
    """Return a reply with warnings."""
    return json.dumps({**json.loads(vector(value)), "warnings": warnings})


NOTE = "PromQL warning: quantile value should be between 0 and 1"
AWAY = "Prometheus lacks some of the data: a store is away"
PARTIAL = vector("0.1").replace('"status"', '"isPartial": true, "status"')
ADMIT = "Prometheus does not admit us (HTTP %d); tokenFile names a file with a bearer token"
HISTOGRAM = '{"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "histogram": [1, {}]}]}}'
MATRIX = '{"status": "success", "data": {"resultType": "matrix", "result": []}}'
NOT_NUMBERS = "the query does not give numbers; write one that gives a scalar or an instant vector"
NO_SUCH = "Prometheus answered with HTTP 200, and not as Prometheus does; check the url"


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (200, SCALAR % "0.25", ("passed", "0.25", "")),
        (200, SCALAR % "0.5", ("failed", "0.5", "0.5 is not < 0.5")),
        (200, SCALAR % "+Inf", ("failed", "inf", "inf is not < 0.5")),
        (200, SCALAR % "-Inf", ("passed", "-inf", "")),
        (200, SCALAR % "NaN", ("inconclusive", "NaN", "the value is not a number: there is nothing to compare yet")),
        (200, vector(), ("inconclusive", "", "the query finds no series")),
        (200, vector("0.1", "0.2"), ("passed", "0.1", "")),
        (200, vector("0.1", "0.7", "0.8", __name__="e"), ("failed", "0.7", '0.7 for e{i="1"} is not < 0.5, and 1 more series')),
        (200, vector("0.1", "NaN"), ("inconclusive", "NaN", "the value is not a number: there is nothing to compare yet")),
        (200, vector("NaN", "0.7"), ("failed", "0.7", '0.7 for {i="1"} is not < 0.5')),
        (200, warned(NOTE), ("passed", "0.1", f"Prometheus warns: {NOTE}")),
        (200, warned(NOTE, "a store is away"), ("inconclusive", "0.1", AWAY)),
        (200, warned("remote_read: timeout"), ("inconclusive", "0.1", "Prometheus lacks some of the data: remote_read: timeout")),
        (200, warned("a store is away", value="9"), ("failed", "9", '9 for {i="0"} is not < 0.5')),
        (200, PARTIAL, ("inconclusive", "0.1", "Prometheus lacks some of the data: the answer is partial")),
        (401, "Unauthorized", ("inconclusive", "", ADMIT % 401)),
        (403, '{"status": "error", "error": "no"}', ("inconclusive", "", f"{ADMIT % 403}: no")),
        (200, MATRIX, ("inconclusive", "", NOT_NUMBERS)),
        (200, HISTOGRAM, ("inconclusive", "", NOT_NUMBERS)),
        (200, '{"status": "success"}', ("inconclusive", "", NOT_NUMBERS)),
        (200, "[]", ("inconclusive", "", NO_SUCH)),
        (200, "<html>", ("inconclusive", "", NO_SUCH)),
        (400, '{"status": "error", "error": "parse error"}', ("inconclusive", "", "Prometheus refused the query (HTTP 400): parse error")),
        (503, SCALAR % "0.1", ("inconclusive", "", "Prometheus refused the query (HTTP 503)")),
    ],
)  # fmt: skip
def test_every_series_must_satisfy_the_condition(status: int, text: str, expected: tuple[str, str, str]) -> None:
    """One that does not fails; where nothing can be said, nothing is: neither passed nor failed."""
    assert short(judge_prometheus(QUERY, status, text)) == expected


def test_what_servers_write_moves_no_cursor() -> None:
    """Error, warning, labels and values are shown to people: control characters are blanks."""
    evil = "a\x1b[2Jb\nc\x9bd"
    error = json.dumps({"status": "error", "error": evil})
    probe = HttpProbe(url="http://a", json_path="$", equals="1")
    for answer in (
        judge_prometheus(QUERY, 422, error),
        judge_prometheus(QUERY, 200, warned(evil)),
        judge_prometheus(QUERY, 200, vector("9", job=evil)),
        judge_http(probe, 200, json.dumps(evil, ensure_ascii=False)),
    ):
        assert "[2Jb" in answer.message
        assert (answer.value + answer.message).isprintable()


def test_a_token_that_is_not_admitted_is_named_by_its_file() -> None:
    """So that one knows where to look."""
    query = PrometheusQuery(url="http://p", query="up", condition="< 1", token_file="/etc/token")
    answer = judge_prometheus(query, 401, "Unauthorized")
    assert short(answer)[::2] == (
        "inconclusive",
        "Prometheus does not admit us (HTTP 401); check the token in tokenFile /etc/token",
    )


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["status", "data", "resultType", "result", "metric", "value"]), inner, max_size=4),
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.one_of(JSON, st.builds(lambda data: {"status": "success", "data": data}, JSON)), st.booleans())
def test_no_reply_passes_by_accident(reply: Any, as_vector: bool) -> None:
    """Whatever a server sends is judged without an error, and none of it passes that is no number below the limit."""
    if as_vector:
        reply = {"status": "success", "data": {"resultType": "vector", "result": reply}}
    answer = judge_prometheus(QUERY, 200, json.dumps(reply))
    assert len(answer.value) <= MOST_SHOWN
    if answer.outcome == "passed":
        assert float(answer.value) < 0.5


@given(JSON)
def test_a_value_is_itself_and_true_is_not_one(value: Any) -> None:
    """Equality of JSON: reflexive but for NaN, and type by type."""
    text = json.dumps(value)
    if "NaN" not in text:
        assert is_same(value, json.loads(text))
    assert not is_same([value, 1], [value, True])


@pytest.mark.parametrize(
    ("reason", "http", "prometheus"),
    [
        ("ConnectionRefused", "failed", "inconclusive"),
        ("Timeout", "failed", "inconclusive"),
        ("CertificateExpired", "failed", "inconclusive"),
        ("NameUnknown", "inconclusive", "inconclusive"),
        ("NoRoute", "inconclusive", "inconclusive"),
        ("AddressForbidden", "inconclusive", "inconclusive"),
    ],
)
def test_silence_fails_the_service_and_not_the_witness(reason: str, http: str, prometheus: str) -> None:
    """A service that refuses is broken; that Prometheus, DNS or a route is away says nothing of it."""
    assert short(judge_silence(HttpProbe(url="http://a"), reason, "m")) == (http, "", "m")
    assert short(judge_silence(QUERY, reason, "m")) == (prometheus, "", "m")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://p", "http://p/api/v1/query"),
        ("http://p:9090/", "http://p:9090/api/v1/query"),
        ("https://p/api/v1/query", "https://p/api/v1/query"),
        ("https://p/x?tenant=a#f", "https://p/x/api/v1/query?tenant=a"),
    ],
)
def test_the_address_of_queries_follows_from_the_servers(url: str, expected: str) -> None:
    """With a prefix, a tenant, or written in full."""
    assert query_url(url) == expected
