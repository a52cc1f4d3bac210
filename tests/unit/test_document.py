"""YAML as kubectl reads it: scalars, faults with their places, bombs, positions."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.document import DEFAULT_LIMITS, Limits, format_path, load_documents, parse_documents, resolve_plain
from fleet.errors import DocumentError

# (as written, as kubectl 1.32 sends it); tests/integration/test_document.py asks a kubectl on PATH the same.
SCALARS: list[tuple[str, Any]] = [
    ("yes", True), ("y", True), ("Y", True), ("on", True), ("TRUE", True), ("tRUE", "tRUE"),
    ("n", False), ("No", False), ("off", False), ("oFF", "oFF"),
    ("~", None), ("null", None), ("nULL", "nULL"), ("", None),
    ("0", 0), ("-0", 0), ("00", 0), ("7", 7), ("+7", 7), ("-7", -7), ("0777", 511), ("-010", -8), ("0o10", 8), ("0O10", 8),
    ("08", 8), ("09.5", 9.5), ("0o8", "0o8"), ("0x1F", 31), ("0X1f", 31), ("+0x1f", 31), ("0xg", "0xg"), ("0x", "0x"),
    ("0b11", 3), ("-0b11", -3), ("0b12", "0b12"), ("1_000", 1000), ("1__0_", 10), ("_1", "_1"), ("0_7", 7),
    ("1_000.5", 1000.5), ("9223372036854775807", 9223372036854775807), ("9223372036854775808", 9223372036854775808.0),
    ("12345678901234567890123", 1.2345678901234568e22), ("1e3", 1000), ("1E3", 1000), ("1e+3", 1000), ("1e-7", 1e-07), ("1e21", 1e21),
    ("1e999", "1e999"), ("1e", "1e"), ("1.", 1), ("1.5", 1.5), ("1.0", 1), ("-.5", -0.5), ("+.5", 0.5), (".5", 0.5), (".5e1", 5), (".", "."),
    (".e1", ".e1"), (".5_0", 0.5), (".5__0", ".5__0"), (".5e1_0", 5000000000), ("1.2.3", "1.2.3"), ("0.1", 0.1),
    ("1:30", "1:30"), ("22:22:22", "22:22:22"), ("2024-01-02", "2024-01-02"), ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05Z"),
    ("=", "="), ("<<", "<<"), ("+", "+"), ("-x", "-x"), ("1m", "1m"), ("100m", "100m"), ("1Gi", "1Gi"), ("1e3Mi", "1e3Mi"), ("٣", "٣"),
    ("'yes'", "yes"), ('"1"', "1"), ("!!str 5", "5"), ('!!int "5"', 5), ("!!float 5", 5), ("! 5", "5"), ("!!binary aGVsbG8=", "hello"),
    ("!!bool yes", True), ("!!timestamp 2001-01-01", "2001-01-01"),
]  # fmt: skip

KEYS = [
    ("1", "1"), ("0x10", "16"), ("yes", "true"), ("n", "false"), ("1.5", "1.5"), ("1e3", "1000"), ("1e6", "1e+06"), ("1234567.5", "1.2345675e+06"),
    ("123456.75", "123456.75"), ("0.0001", "0.0001"), ("0.00001", "1e-05"), ("0.123456789", "0.12345679"), ("1e21", "1e+21"), ("08", "8"),
    ("2001-01-01", "2001-01-01"), ("1:30", "1:30"), ("'yes'", "yes"), ("!!str 1", "1"), ("100000000.5", "1e+08"),
]  # fmt: skip


def read(text: str) -> Any:
    """Return the value of the one document in `text`."""
    (document,) = load_documents(text.encode(), "f.yaml")
    return document.value


def faults(text: str, limits: Limits = DEFAULT_LIMITS) -> list[str]:
    """Return the faults of `text`, as people see them."""
    return [str(problem) for problem in parse_documents(text.encode(), "f", limits=limits)[1]]


@pytest.mark.parametrize(("written", "meant"), SCALARS)
def test_scalars_mean_what_kubectl_takes_them_to_mean(written: str, meant: Any) -> None:
    """A scalar has kubectl's type and value."""
    value = read(f"v: {written}\n")["v"]
    assert (type(value), value) == (type(meant), meant)


@pytest.mark.parametrize(("written", "meant"), KEYS)
def test_keys_become_the_strings_kubectl_makes_of_them(written: str, meant: str) -> None:
    """A key is a string, formatted as kubectl formats it."""
    assert list(read(f"{written}: x\n")) == [meant]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n", ["f:4:3: b.c: the key 'c' is given twice; the first is on line 3", "f:5:1: a: the key 'a' is given twice; the first is on line 1"]),
        ("yes: 1\n'true': 2\n", ["f:2:1: true: the key 'true' is given twice; the first is on line 1"]),
        ("x: !foo 1\nw: !bar {a: 1}\nz: !!set {a}\n", ["f:1:4: x: the tag (!) is not one that Kubernetes reads; put it in quotes if it is text", "f:2:4: w: the tag (!) is not one that Kubernetes reads; put it in quotes if it is text", "f:3:4: z: the tag (!) is not one that Kubernetes reads; put it in quotes if it is text"]),
        ("a: !!int x\n", ["f:1:4: a: the value is str, not int as its tag says"]),
        ("a: !!bool 5\n", ["f:1:4: a: the value is int, not bool as its tag says"]),
        ("a: !!binary '*'\n", ["f:1:4: a: the value is not base64 of UTF-8 text as its tag says"]),
        ("~: 1\n", ["f:1:1: the key '~' is no string; put it in quotes"]),
        ("12345678901234567890: 1\n", ["f:1:1: the key '12345678901234567890' is no string; put it in quotes"]),
        ("? [a]\n: 1\n", ["f:1:3: a key must be a plain word, not a list, a mapping or an alias"]),
        ("a: .inf\n", ["f:1:4: a: not-a-number and infinity have no form in JSON; put it in quotes if it is text"]),
        ("a: &a [*a]\n", ["f:1:8: a[0]: the anchor of this alias contains itself"]),
        ("a: *b\n", ["f:1:4: a: the alias (*) names no anchor above it; put it in quotes if it is text"]),
        ("b: &b {k: 1}\nm: {k: 5, <<: *b}\n", ["f:2:11: m.<<: << brings the key 'k' given before it; put << first"]),
        ("m: {<<: 5}\n", ["f:1:5: m.<<: only a mapping or a list of mappings can be merged"]),
        ("a: [1\n", ["f:2:1: did not find expected ',' or ']' (while parsing a flow sequence that starts on line 1)"]),
        ("a: \x80\n", ["f:1:4: the control character U+0080 may not stand in a file"]),
        ("a:\n  b: \x01\n", ["f:2:6: the control character U+0001 may not stand in a file"]),
    ],
)  # fmt: skip
def test_faults_are_named_with_their_place(text: str, expected: list[str]) -> None:
    """Each fault has line, column and path; all of them are listed."""
    assert faults(text) == expected


@pytest.mark.parametrize(
    "value",
    [
        "*hunter2",
        "!hunter2",
        "!hunter2 x",
        "&hunter2 &x",
        "!!int hunter2",
        "[hunter2",
        "'hunter2",
        "hunter2: 'x",
        "@hunter2",
    ],
)
def test_faults_never_show_a_value(value: str) -> None:
    """A password that breaks the YAML around it does not get into the message."""
    found = faults(f"password: {value}\n")
    assert found
    assert "hunter2" not in str(found)


def test_a_broken_document_does_not_hide_the_others() -> None:
    """Reading goes on at the next document marker after a syntax error."""
    text = "a: [\n---\nok: yes\n---\n'abc\n---\nlast: 1\n--- x: y: z\n"
    documents, problems = parse_documents(text.encode(), "f")
    assert [(d.line, d.value) for d in documents] == [(3, {"ok": True}), (7, {"last": 1})]
    assert [p.line for p in problems] == [2, 6, 8]


def test_text_that_is_not_utf8_is_named_with_its_place() -> None:
    """A stray byte is found by line and column."""
    with pytest.raises(DocumentError, match="f:2:4: not UTF-8 text"):
        load_documents(b"a: 1\nb: \xff\n", "f")


def test_merge_keys_bring_in_defaults() -> None:
    """Own keys win over merged ones, earlier mappings of a list over later ones."""
    text = "a: &a {x: 1, k: 1}\nb: &b {k: 2, z: 2}\nm: {<<: [*a, *b], x: 9}\n"
    assert read(text)["m"] == {"x": 9, "k": 1, "z": 2}


def test_aliases_are_copies() -> None:
    """Changing one part of a value never changes another."""
    value = read("a: &a {x: [1]}\nb: *a\n")
    value["b"]["x"].append(2)
    assert value["a"] == {"x": [1]}


def bomb(width: int, levels: int) -> str:
    """Return a document in which each level holds `width` aliases of the one before."""
    names = [f"n{level}" for level in range(levels)]
    rows = [f"{names[0]}: &{names[0]} [{', '.join(['x'] * width)}]"]
    rows += [f"{n}: &{n} [{', '.join([f'*{p}'] * width)}]" for p, n in itertools.pairwise(names)]
    return "\n".join(rows)


@pytest.mark.parametrize(
    "text",
    [
        bomb(10, 9),
        "a: &a {" + ", ".join(f"k{i}: v" for i in range(1000)) + "}\n" + "\n".join(f"m{i}: {{<<: *a}}" for i in range(200)),
        "m: &m {a: 1}\nx: {<<: [" + ", ".join(["*m"] * 60_000) + "]}",
        "a: &a " + "x" * 100_000 + "\nb: [" + ", ".join(["*a"] * 100) + "]",
    ],
)  # fmt: skip
def test_alias_bombs_are_refused(text: str) -> None:
    """What aliases expand to is bounded in nodes and in bytes."""
    (fault,) = faults(text)
    assert "the aliases of this document expand to too much" in fault


def test_moderate_aliases_are_read() -> None:
    """Anchors as people use them are no bomb."""
    assert len(read(bomb(10, 4))["n3"]) == 10


@pytest.mark.parametrize("text", ["[" * 200 + "]" * 200, "{a: " * 200 + "1" + "}" * 200, "[" * 500_000])
def test_deep_nesting_is_refused(text: str) -> None:
    """Depth is bounded before anything is built."""
    assert faults(text)[0].endswith("nested deeper than 100 levels")


def test_depth_hidden_behind_aliases_is_refused() -> None:
    """An alias counts with the height of what it stands for."""
    rows = ["n0: &n0 [x]"] + [f"n{i}: &n{i} [*n{i - 1}]" for i in range(1, 120)]
    assert faults("\n".join(rows))[0].endswith("nested deeper than 100 levels")


def test_a_refused_document_does_not_hide_the_next() -> None:
    """Reading goes on behind a document that broke a limit."""
    documents, problems = parse_documents(f"{bomb(10, 9)}\n---\nok: 1\n".encode(), "f")
    assert [d.value for d in documents] == [{"ok": 1}]
    assert len(problems) == 1


def test_large_files_are_refused_unread() -> None:
    """The size is checked before the content."""
    assert faults("a: " + "x" * 100, Limits(file_bytes=50)) == ["f: the file has 103 bytes; at most 50 are read"]


def test_the_list_of_faults_is_bounded() -> None:
    """A hostile file cannot fill the log."""
    assert len(faults("x: !a 1\n---\n" * 50, Limits(problems=10))) == 10


def test_empty_documents_are_passed_over() -> None:
    """Comments between markers are no document."""
    assert load_documents(b"# nothing\n---\n---\n# more\n", "f") == []


def test_json_may_use_escapes_that_yaml_does_not_know() -> None:
    """A JSON file with surrogate pairs is read."""
    assert read('{"a": "\\ud83d\\ude00", "b": [1.0, 1e400, 2]}')["b"][::2] == [1, 2]


def test_json_with_a_duplicate_key_is_refused() -> None:
    """JSON has no more right to ambiguity than YAML."""
    assert faults('{"a": 1, "a": 2}') == ["f:1:10: a: the key 'a' is given twice; the first is on line 1"]


TEXT = """# head
x: 1
---
spec:
  targets:
    environments: [dev, staging]
  base: &b {q: 1}
  m:
    <<: *b
    z: 1
"""


@pytest.mark.parametrize(
    ("path", "value_at", "key_at"),
    [
        ((), (4, 1), (4, 1)),
        (("spec", "targets", "environments", 1), (6, 25), (6, 25)),
        (("spec", "targets", "environments"), (6, 19), (6, 5)),
        (("spec", "missing"), (4, 1), (4, 1)),
        (("spec", "targets", "missing", "deeper"), (5, 3), (5, 3)),
        (("spec", "m", "q"), (7, 16), (7, 13)),
        (("spec", "m", "z"), (10, 8), (10, 5)),
    ],
)
def test_positions_of_fields(path: tuple[str | int, ...], value_at: tuple[int, int], key_at: tuple[int, int]) -> None:
    """A path leads to the value or the key; one that leads nowhere, to the deepest key on its way."""
    document = load_documents(TEXT.encode(), "f")[1]
    assert (document.position(path), document.position(path, key=True)) == (value_at, key_at)


def test_positions_after_a_broken_document() -> None:
    """Lines count from the start of the file, not from where reading went on."""
    documents, _ = parse_documents(b"a: [\n---\nb:\n  c: 1\n", "f")
    assert documents[0].position(("b", "c")) == (4, 6)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(), below, max_size=4),
    max_leaves=20,
)  # fmt: skip


def canonical(value: Any) -> Any:
    """Return `value` with whole floats as integers, as Go's encoder writes them."""
    if isinstance(value, dict):
        return {key: canonical(below) for key, below in value.items()}
    if isinstance(value, list):
        return [canonical(below) for below in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    return value


@given(JSON)
def test_json_is_read_as_itself(value: Any) -> None:
    """Whatever JSON can say survives."""
    documents = load_documents(json.dumps({"v": value}).encode(), "f")
    assert documents[0].value == {"v": canonical(value)}


@given(st.text(max_size=30))
def test_no_text_breaks_the_resolver(text: str) -> None:
    """Any scalar resolves to a JSON type."""
    assert isinstance(resolve_plain(text), str | int | float | None)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    """Garbage gives faults or documents, never another exception."""
    parse_documents(data, "f")


@given(st.text(alphabet="ab:-[]{}&*!<>|'\"?#%, \n01", max_size=60))
def test_no_yaml_like_text_breaks_the_reader(text: str) -> None:
    """Text made of YAML's own characters gives faults or documents, never another exception."""
    for document in parse_documents(text.encode(), "f")[0]:
        json.dumps(document.value)
        document.position(("a", 0, "b"))


def test_paths_are_written_as_people_write_them() -> None:
    """Names with dots are quoted."""
    assert format_path(("metadata", "labels", "a.b/c", 0)) == 'metadata.labels["a.b/c"][0]'
