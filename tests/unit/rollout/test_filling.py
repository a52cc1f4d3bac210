"""Values in questions: whatever they hold, each stays one value where it stands."""

import ast
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from fleet.rollout.filling import fill_promql, fill_question, fill_url
from fleet.rollout.policy import HttpProbe, PrometheusQuery

TEXT = st.one_of(st.text(), st.text("\"'`\\\n{}$%/?#&=+@: x27n.", max_size=12))
STRINGS = re.compile(r"""a="((?:[^"\\\n]|\\.)*)",b='((?:[^'\\\n]|\\.)*)'""")


def test_values_are_filled_in_wherever_they_may_stand() -> None:
    """URL, body, equals and query; the rest is as written."""
    values = {"a": "1"}
    probe = HttpProbe(url="http://${a}", body="${a}", json_path="$['${a}']", equals="${a}")
    assert fill_question(probe, values) == HttpProbe(url="http://1", body="1", json_path="$['${a}']", equals="1")
    query = fill_question(PrometheusQuery(url="http://${a}", query="x > ${a}", condition="< 1"), values)
    assert query == PrometheusQuery(url="http://1", query="x > 1", condition="< 1")


@pytest.mark.parametrize(
    ("url", "value", "expected"),
    [
        ("https://${a}.example.com:${b}/", "eu-1", "https://eu-1.example.com:8080/"),
        ("http://[${a}]:${b}", "fd00::1", "http://[fd00::1]:8080"),
        ("http://h/${a}/x", "b/../c", "http://h/b%2F..%2Fc/x"),
        ("http://h/x?v=${a}&w=1", "..&w=2#", "http://h/x?v=..%26w%3D2%23&w=1"),
        ("http://h?v=${a}", "/", "http://h?v=%2F"),
        ("http://h#${a}", "?", "http://h#%3F"),
        ("http://h/$${a}/${a}", "é", "http://h/${a}/%C3%A9"),
    ],
)
def test_a_value_in_a_url_stays_where_it_stands(url: str, value: str, expected: str) -> None:
    """Host and port as they are, all else percent-encoded."""
    assert fill_url(url, {"a": value, "b": "8080"}) == expected


@pytest.mark.parametrize(
    ("url", "value", "words"),
    [
        ("http://${a}.example.com/", "evil.org/x?", "the value of ${a} cannot be part of a host"),
        ("http://example.com:${a}/", "1@evil.org", "the value of ${a} cannot be part of a host"),
        ("http://${a}/", "eu-1\n", "the value of ${a} cannot be part of a host"),
        ("http://example.com/x/${a}/y", "..", "the value of ${a} leads to another directory"),
        ("http://example.com/x/${a}", ".", "the value of ${a} leads to another directory"),
    ],
)
def test_a_value_that_would_lead_elsewhere_is_refused(url: str, value: str, words: str) -> None:
    """Another host, credentials, another directory: the variable is named, its value is not shown."""
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        fill_url(url, {"a": value})
    assert "evil" not in str(caught.value)


@given(TEXT, TEXT)
def test_no_value_moves_the_parts_of_a_url(path: str, query: str) -> None:
    """Whoever reads the URL finds the very values in the places that were meant."""
    if path in (".", "..", ""):
        path += "x"
    url = URL(fill_url("http://h/a/${p}/b?q=${q}&r=${p}#${q}", {"p": path, "q": query}))
    assert (url.host, url.port) == ("h", 80)
    assert url.parts == ("/", "a", path, "b")
    assert list(url.query.items()) == [("q", query), ("r", path)]
    assert url.fragment == query


@given(TEXT)
def test_no_value_ends_a_string_of_promql(value: str) -> None:
    """In either kind of quotes the string ends where it did, and holds the value."""
    query = fill_promql("""up{a="${v}",b='${v}'} < 1""", {"v": value})
    assert "\n" not in query
    found = STRINGS.search(query)
    assert found is not None
    assert (query[: found.start()], query[found.end() :]) == ("up{", "} < 1")
    for inner in found.groups():
        parts = re.split(r"(\\.(?:(?<=x)..)?)", inner)
        assert "".join(ast.literal_eval(f"'{part}'") if part.startswith("\\") else part for part in parts) == value


@given(TEXT, st.sampled_from(["up{a=`${v}`}", 'up{a="\\${v}"}', "up # ${v}\n + up"]))
def test_no_value_gets_out_of_anything_else(value: str, query: str) -> None:
    """A raw string, a backslash before the value, a comment: no quote and no line comes in, or it is refused."""
    try:
        filled = fill_promql(query, {"v": value})
    except ValueError as error:
        assert "write it in double quotes" in str(error)  # noqa: PT017 - either is right
        assert "`" in query
        return
    assert [filled.count(mark) for mark in "\"'`\n"] == [query.count(mark) for mark in "\"'`\n"]


def test_a_raw_string_takes_only_values_without_escapes() -> None:
    """There they would be text: another value would be asked for, and perhaps pass."""
    assert fill_promql("up{a=`${v}`}", {"v": "eu-1"}) == "up{a=`eu-1`}"
    for value in ("`", 'a"b', "\\", "a\nb"):
        with pytest.raises(ValueError, match=r"the value of \$\{v\} needs escapes"):
            fill_promql("up{a=`${v}`}", {"v": value})


@given(TEXT)
def test_no_value_ends_a_string_of_json(value: str) -> None:
    """What must be found is the value, whatever it holds."""
    probe = HttpProbe(url="http://h", json_path="$.a", equals='{"v": "${v}"}')
    filled = fill_question(probe, {"v": value})
    assert isinstance(filled, HttpProbe)
    assert json.loads(filled.equals) == {"v": value}
