"""`${VAR}`: the forms, what is refused, and that values stay scalars."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.document import Document, load_documents
from fleet.render.substitute import SubstitutionError, Variables, substitute, substitute_text

VALUES = {
    "A": "abcDEF",
    "EMPTY": "",
    "P": "/home/me/a.tar.gz",
    "N": "6",
    "LIST": "[a, b]",
    "LINES": "one\ntwo: 3\n- x",
    "YES": "yes",
}

# (as written, as expanded); the forms of Flux's envsubst
FORMS = [
    ("plain", "plain"), ("${A}", "abcDEF"), ("x${A}y${N}", "xabcDEFy6"), ("$A", "$A"), ("$", "$"), ("a$", "a$"), ("$$", "$"), ("$$$$", "$$"),
    ("$${A}", "${A}"), ("$$${A}", "$abcDEF"), ("some $${var=${A}}", "some ${var=abcDEF}"), ("}", "}"), ("{A}", "{A}"),
    ("${X:-d}", "d"), ("${X:=d}", "d"), ("${X=d}", "d"), ("${X-d}", "d"), ("${A:-d}", "abcDEF"), ("${A=d}", "abcDEF"), ("${A-d}", "abcDEF"),
    ("${EMPTY:-d}", "d"), ("${EMPTY:=d}", "d"), ("${EMPTY=d}", "d"), ("${EMPTY-d}", ""), ("${X:-}", ""), ("${X:-a:b/c}", "a:b/c"),
    ("${X:-${A}}", "abcDEF"), ("${X:-pre${A}-${N}post}", "preabcDEF-6post"), ("${X:-${Y:-z}}", "z"), ('${X:-"q"}', '"q"'),
    ("${#A}", "6"), ("${A^^}", "ABCDEF"), ("${A,,}", "abcdef"), ("${A^}", "AbcDEF"), ("${A,}", "abcDEF"), ("${EMPTY^}", ""),
    ("${A:2}", "cDEF"), ("${A:1:2}", "bc"), ("${A:9}", ""), ("${A:0:99}", "abcDEF"), ("${A: -2}", "EF"), ("${A:1:-1}", "bcDE"), ("${A:4:-4}", ""),
    ("${A: -99}", "abcDEF"), ("${A:${#EMPTY}:1}", "a"),
    ("${P#*/}", "home/me/a.tar.gz"), ("${P##*/}", "a.tar.gz"), ("${P%.*}", "/home/me/a.tar"), ("${P%%.*}", "/home/me/a"), ("${A#x}", "abcDEF"),
    ("${A#a?}", "cDEF"), ("${A%[A-F]}", "abcDE"),
    ("${A/b/X}", "aXcDEF"), ("${P//a/X}", "/home/me/X.tXr.gz"), ("${A/#abc/X}", "XDEF"), ("${A/#bc/X}", "abcDEF"), ("${A/%DEF/X}", "abcX"),
    ("${A/%x/X}", "abcDEF"), ("${A/b/}", "acDEF"), ("${A/b}", "acDEF"), (r"${P//\//-}", "-home-me-a.tar.gz"), ("${A/#/x-}", "x-abcDEF"),
    ("${A/%/-x}", "abcDEF-x"), ("${A//c/${N}}", "ab6DEF"), ("${A//x/y}", "abcDEF"), ("${A///y}", "abcDEF"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "expanded"), FORMS)
def test_form(written: str, expanded: str) -> None:
    """Each form gives what a shell, or Flux where it differs, gives."""
    assert substitute_text(written, Variables(VALUES)) == expanded


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("${X}", "X is not set"),
        ("${X^^}", "X is not set"),
        ("${#X}", "X is not set"),
        ("${X:1}", "X is not set"),
        ("${X/a/b}", "X is not set"),
        ("${X%a}", "X is not set"),
        ("${X:-${Y}}", "Y is not set"),
        ("${A:-${Y}}", "Y is not set"),
        ("${}", "variable's name"),
        ("${1}", "variable's name"),
        ("${ A}", "variable's name"),
        ("${A", "no operator"),
        ("${A:-x", "closing brace"),
        ("${A!}", "no operator"),
        ("${A:?x}", "no whole number"),
        ("${A:x}", "no whole number"),
        ("${A:1:y}", "no whole number"),
        ("${A:99999999999}", "no whole number"),
        ("${X:-" * 30 + "}" * 30, "nested deeper"),
    ],
)
def test_refused(written: str, says: str) -> None:
    """What has no value is an error that names the variable."""
    with pytest.raises(SubstitutionError, match=says):
        substitute_text(written, Variables(VALUES))


def test_explosion() -> None:
    """A text that grows without bounds is refused before it is built."""
    with pytest.raises(SubstitutionError, match="grows beyond"):
        substitute_text("${BIG//a/${BIG}}", Variables({"BIG": "a" * 5000}))


@given(st.text().filter(lambda text: "$" not in text))
def test_text_without_dollar(text: str) -> None:
    """A text without `$` is never changed."""
    assert substitute_text(text, Variables({})) == text


@given(st.text(alphabet="${}AX:-=/#%^,\\ 1a", max_size=40))
def test_any_text(text: str) -> None:
    """Any text is expanded or refused, and nothing else happens."""
    with contextlib.suppress(SubstitutionError):
        assert isinstance(substitute_text(text, Variables(VALUES)), str)


def expand(text: str) -> tuple[Any, list[str], Document]:
    """Substitute the one object of a text."""
    (document,) = load_documents(text.encode(), "f.yaml")
    value, faults = substitute(document.value, Variables(VALUES), document.is_plain)
    return value, [fault.message for fault in faults], document


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${N}", 6),
        ('"${N}"', "6"),
        ("'${N}'", "6"),
        ("|-\n    ${N}", "6"),
        ("${N}m", "6m"),
        ("${YES}", True),
        ("'${YES}'", "yes"),
        ("${EMPTY}", None),
        ("${X:-0.5}", 0.5),
        ("${X:-.nan}", ".nan"),
        ("${LIST}", "[a, b]"),
        ("${LINES}", "one\ntwo: 3\n- x"),
        ('["${N}", "a ${LIST}"]', ["6", "a [a, b]"]),
        ("$${N}", "${N}"),
    ],
)
def test_scalar_kinds(written: str, value: Any) -> None:
    """A plain scalar becomes what YAML reads there, a quoted one stays a string, and no value brings structure."""
    assert expand(f"apiVersion: example.com/v1\nkind: X\nspec:\n  field: {written}\n")[0]["spec"]["field"] == value


@pytest.mark.parametrize(
    "text",
    [
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  a: ${N}\n  b: ${YES}\n  c: ${EMPTY}\n",
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\n  labels:\n    a: ${N}\n    b: ${YES}\n    c: ${EMPTY}\n",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\nstringData:\n  a: ${N}\n  b: ${YES}\n  c: ${EMPTY}\n",
    ],
)
def test_text_fields(text: str) -> None:
    """Where Kubernetes wants text the result is text, quoted or not."""
    value = expand(text)[0]
    found = value.get("data") or value.get("stringData") or value["metadata"]["labels"]
    assert found == {"a": "6", "b": "yes", "c": ""}


def test_environment_value() -> None:
    """The value of an environment variable stays text."""
    env = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - env:\n    - name: A\n      value: ${N}\n    args:\n    - ${N}\n"
    container = expand(env)[0]["spec"]["containers"][0]
    assert (container["env"][0]["value"], container["args"]) == ("6", ["6"])


def test_keys() -> None:
    """Keys are expanded, and one that becomes its neighbour is refused."""
    value, faults, _ = expand("data:\n  ${A}: 1\n  ${N}: 2\n")
    assert value == {"data": {"abcDEF": 1, "6": 2}}
    assert faults == []
    assert "stands beside it" in expand("data:\n  a: 1\n  ${X:-a}: 2\n")[1][0]


@pytest.mark.parametrize("name", ["fleet/substitute", "kustomize.toolkit.fluxcd.io/substitute"])
def test_opt_out(name: str) -> None:
    """An object whose annotation opts out is passed over."""
    text = f"metadata:\n  annotations:\n    {name}: disabled\nspec: ${{X}}\n"
    assert expand(text)[:2] == ({"metadata": {"annotations": {name: "disabled"}}, "spec": "${X}"}, [])


def test_every_fault_at_its_place() -> None:
    """All unset variables of an object are listed, each at its field."""
    (document,) = load_documents(b"a: ${X}\nb:\n- ${Y}\n", "f.yaml")
    faults = substitute(document.value, Variables({}), document.is_plain)[1]
    assert [document.position(fault.path) for fault in faults] == [(1, 4), (3, 3)]


def test_used_variables() -> None:
    """Every variable asked for is remembered, set or not."""
    variables = Variables(VALUES)
    substitute_text("${A} ${X:-d} $${N}", variables)
    assert variables.used == {"A", "X"}
