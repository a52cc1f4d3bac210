"""What checks may ask: addresses, comparisons, paths into JSON, names of variables."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.inventory.address import is_forbidden_host
from fleet.inventory.condition import parse_condition
from fleet.inventory.jsonpath import parse_json_path
from fleet.inventory.placeholder import fill, list_names
from tests.unit.inventory.build import app, cluster, environment, faults, inventory, repository
from tests.unit.inventory.test_parse import faults as file_faults
from tests.unit.inventory.test_parse import spec


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "168.63.129.16", "224.0.0.1", "ff02::1", "255.255.255.255"],
)  # fmt: skip
def test_every_way_to_a_forbidden_address_is_known(host: str) -> None:
    """Metadata services, what leads to one through an IPv6 gateway, and addresses of many."""
    assert is_forbidden_host(host)


@given(st.one_of(st.text(), st.text("0123456789abcdefx:.%[]", max_size=40)))
def test_any_host_is_forbidden_or_not(host: str) -> None:
    """Whatever is written as a host is judged, never an error."""
    assert is_forbidden_host(host) in (True, False)


@pytest.mark.parametrize(
    ("condition", "value", "holds"),
    [
        ("< 0.01", 0.009, True), ("< 0.01", 0.01, False), ("<= 1e-2", 0.01, True), (">=2", 2, True), ("> 2", 2, False),
        ("== 0", -0.0, True), ("!= 1", 1, False), ("> -.5", 0, True), (" < 5. ", 4, True), ("< 1", math.inf, False),
    ],
)  # fmt: skip
def test_a_comparison_holds_or_not(condition: str, value: float, holds: bool) -> None:
    """Each operator, with numbers as people write them."""
    assert parse_condition(condition).holds(value) is holds


@given(st.text("<>=!~ 0123456789.eE+-inf", max_size=12))
def test_a_condition_is_read_or_refused(text: str) -> None:
    """A text is a comparison with a finite number, or refused in words."""
    refused = ""
    try:
        assert math.isfinite(parse_condition(text).number)
    except ValueError as error:
        refused = str(error)
    assert not refused or refused.startswith("must be a comparison")


DOCUMENT = {
    "a": [{"b": {"x.y": 1}}, {"b": {"x.y": 2}}],
    "it's": True,
    "items": [{"ready": True}, {}],
    "none": None,
    "e": [],
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$", [DOCUMENT]), ("$.a[0].b['x.y']", [1]), ('$.a[-1]["b"]["x.y"]', [2]), ("$.a[*].b.*", [1, 2]),
        (r"$['it\'s']", [True]), ("$.none", [None]), ("$.e[*]", []), ("$.nope", None), ("$.a[2]", None), ("$.a.b", None),
        ("$.a[0][0]", None), ("$.items[*].ready", None), ("$.none.x", None), ("$.none[*]", None),
    ],
)  # fmt: skip
def test_a_path_leads_somewhere_or_nowhere(path: str, expected: list[Any] | None) -> None:
    """Members, elements and wildcards; one branch that lacks the rest is nowhere."""
    assert parse_json_path(path).find(DOCUMENT) == expected


@pytest.mark.parametrize(
    "path", ["", "a", "$a", "$..a", "$.", "$.a[", "$[01]", "$[1:2]", "$[?(@.a)]", "$['a]", "$[a]", "$.a b"]
)
def test_other_paths_are_refused(path: str) -> None:
    """What is outside the subset is an error, never read as something else."""
    with pytest.raises(ValueError, match=r"must begin with|cannot be read from"):
        parse_json_path(path)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=12,
)


@given(JSON, st.data())
def test_every_place_of_a_document_has_a_path(document: Any, data: st.DataObject) -> None:
    """Walking in by quoted names and indexes finds what is there."""
    path, value = "$", document
    while isinstance(value, list | dict) and value and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(list(value) if isinstance(value, dict) else range(len(value))))
        quoted = str(key).replace("\\", "\\\\").replace("'", "\\'")
        path += f"['{quoted}']" if isinstance(value, dict) else f"[{key}]"
        value = value[key]
    assert parse_json_path(path).find(document) == [value]


@given(st.text("$.[]*'\"\\ab01-", max_size=20), JSON)
def test_any_path_is_read_or_refused(path: str, document: Any) -> None:
    """No text makes the parser or the search fail otherwise."""
    refused = ""
    try:
        parse_json_path(path).find(document)
    except ValueError as error:
        refused = str(error)
    assert not refused or refused.startswith(("must begin", "cannot be read"))


@given(st.lists(st.one_of(st.sampled_from(["${A}", "$${", "$", "{", "}", "${B}"]), st.text(max_size=3))).map("".join))
def test_names_that_are_listed_are_those_that_are_filled(text: str) -> None:
    """Listing finds what filling needs; what was a value is not read again."""
    try:
        names = set(list_names(text))
    except ValueError:
        with pytest.raises(ValueError, match="without a name"):
            fill(text, {"A": "1", "B": "2"})
        return
    assert fill(text, dict.fromkeys(names, "x")).count("x") >= len(names)
    assert fill("${A}", {"A": "${B}"}) == "${B}"
    if names:
        with pytest.raises(ValueError, match="has no value here"):
            fill(text, {})


def http(fields: str) -> str:
    """Return an Environment with one HTTP check."""
    return spec("Environment", f"rollout: {{checks: [{{name: c, http: {{{fields}}}}}]}}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (http("url: 'http://a/', jsonPath: a"), "http.jsonPath: must begin with $, the document"),
        (http("url: 'http://a/', jsonPath: $.a, equals: ok"), "is not JSON; of a text write the double quotes, too: '\"ok\"'"),
        (http("url: 'http://a/', equals: 'true'"), "equals needs jsonPath"),
        (http("url: 'http://a/', method: HEAD, body: x"), "method HEAD is answered without a body; use GET"),
        (http("url: 'http://${a-b}/'"), "http.url: holds ${ without a name and }"),
        (http("url: 'http://a/', body: '${'"), "http.body: holds ${ without a name and }"),
        (http("url: 'http://user@${A}/'"), "credentials do not belong in a URL"),
        (spec("Environment", "rollout: {checks: [{name: c, prometheus: {url: 'http://p', query: up, condition: '< 1', tokenFile: t}}]}"), "tokenFile: over http a token would go in clear; use https"),
    ],
)  # fmt: skip
def test_a_question_that_cannot_be_asked_is_refused(text: str, expected: str) -> None:
    """Said when it is read, in words."""
    found = file_faults(text)
    assert len(found) == 1
    assert expected in found[0]


def test_hosts_and_ports_may_be_variables() -> None:
    """A place is no fault, wherever in the URL it stands."""
    assert (
        file_faults(http("url: 'https://${HOST}:${PORT}/${cluster}', jsonPath: '$.v', equals: '\"${revision}\"'")) == []
    )


def ask(url: str, *, per_cluster: bool = True) -> str:
    """Return `rollout` with one check."""
    flags = json.dumps(per_cluster)
    return f"rollout: {{checks: [{{name: c, perCluster: {flags}, http: {{url: 'https://{url}/'}}}}]}}"


@pytest.mark.parametrize(
    ("environment_spec", "app_spec", "expected"),
    [
        (ask("${REGON}"), "variables: {REGION: eu}", "rollout.checks[0].http.url: ${REGON} has no value for app shop on cluster a; did you mean REGION?"),
        (ask("${DOMAIN}", per_cluster=False), "", "${DOMAIN} has no value for app shop in environment prod"),
        (ask("${cluster}", per_cluster=False), "", "${cluster} differs between clusters; set perCluster: true"),
        (ask("${OWN}", per_cluster=False), "", "${OWN} differs between clusters; set perCluster: true"),
        ("", "rollout: {environments: {prod: {checks: [{name: p, prometheus: {url: 'https://p', query: '${X}', condition: '< 1'}}]}}}", "spec.rollout.environments.prod.checks[0].prometheus.query: ${X} has no value for app shop in environment prod"),
    ],
)  # fmt: skip
def test_a_name_without_a_value_is_found_when_the_inventory_is_read(
    environment_spec: str, app_spec: str, expected: str
) -> None:
    """Long before a run asks, at the document that gives the check."""
    documents = repository() + environment("prod", environment_spec) + cluster("a", "prod", spec="variables: {OWN: x}")
    found = faults(inventory(documents, app(spec=app_spec)))
    assert len(found) == 1
    assert expected in found[0]


def test_names_with_values_are_no_fault() -> None:
    """Words that every question may hold, an app's, an environment's and a cluster's variables; an app's checks win."""
    words = "${app}.${environment}.${release}.${revision}.${A}"
    documents = [
        repository(),
        environment("prod", ask(words, per_cluster=False) + ", variables: {A: x}"),
        environment("dev", ask("${UNKNOWN}")),
        cluster("a", "prod"),
        cluster("b", "dev", spec="variables: {OWN: x}"),
        app(spec=f"rollout: {{environments: {{dev: {ask('${cluster}.${OWN}')[9:]}}}}}"),
    ]
    assert faults(inventory(*documents)) == []
