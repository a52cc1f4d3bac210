"""Files encrypted with SOPS, as the unmodified sops 3.13.3 wrote them: they open whole, or not at all."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.document import load_documents
from fleet.errors import SealError
from fleet.secrets import age, sops
from fleet.secrets.sops import decrypt, detect_format, is_sops
from tests.harness.seal import make_break_glass

FILES = Path(__file__).parent / "vectors" / "sops"
IDENTITY, RECIPIENT = make_break_glass(1)
STRANGER = make_break_glass(3)[0]
SECRET: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "db", "n": 3},
    "stringData": {
        "password": "hunter2",
        "multi": "a\nb\n",
        "b": True,
        "f": 1.5,
        "f2": 1e21,
        "f3": 0.1,
        "i": 16,
        "o": 8,
        "big": 9223372036854775807,
        "qt": "2024-01-02",
        "empty": "",
        "nul": None,
        "til": None,
        "uni": "\u00e9\u4e2d\U0001f600 \u0085 x",
        "tricky": "- a: b # c",
        "x_unencrypted": "plain",
        "fx_unencrypted": 1.5,
        "fi_unencrypted": 31,
        "fb_unencrypted": True,
        "list": ["a", {"b": 2, "c": ["x", "y"]}, ["deep"]],
    },
}


def read(name: str) -> bytes:
    """Return one of the files."""
    return (FILES / name).read_bytes()


def open_yaml(name: str) -> list[Any]:
    """Return the opened documents of a file as kubectl reads them."""
    return [each.value for each in load_documents(decrypt(read(name), "yaml", [IDENTITY]), name)]


@pytest.mark.parametrize("name", ["secret.yaml", "regex.yaml", "suffix.yaml", "mac-only-encrypted.yaml"])
def test_a_yaml_file_opens_to_what_was_encrypted(name: str) -> None:
    """Strings, numbers, truth, null and lists come back whichever rule chose what to encrypt."""
    (found,) = open_yaml(name)
    data = found["stringData"]
    assert {key: value for key, value in data.items() if key in SECRET["stringData"]} == SECRET["stringData"]
    assert found["metadata"] == SECRET["metadata"]
    assert set(data) - set(SECRET["stringData"]) == {"yes", "t", "t2", "ft_unencrypted", "fy_unencrypted"}
    assert "sops" not in found


def test_lines_and_comments_stay() -> None:
    """What was in the clear stands in the same line as before, so that errors name the right one."""
    file = read("regex.yaml")
    before, after = file.decode().splitlines(), decrypt(file, "yaml", [IDENTITY]).decode().splitlines()
    assert [line for line in after if "ENC[" in line and not line.strip().startswith("#")] == []
    same = [number for number, line in enumerate(after) if line == before[number]]
    assert {after[number].strip() for number in same} >= {"# top", "kind: Secret", "name: db # why"}
    assert len(after) == before.index("sops:")


def test_comments_in_lists_are_no_items() -> None:
    """sops encrypts a comment inside a list as an item of it; such an item is gone once opened, and no other."""
    (found,) = open_yaml("comments.yaml")
    assert (found["stringData"], found["lines"]) == ({"a": "b"}, ["x", ["y"], "z"])


def test_every_document_of_a_file_opens() -> None:
    """The block of SOPS is taken out of each document."""
    assert [each["stringData"] for each in open_yaml("two-documents.yaml")] == [{"x": "one"}, {"x": "two"}]


def test_a_json_file_opens() -> None:
    """JSON keeps its order and its kinds."""
    found = json.loads(decrypt(read("values.json"), "json", [IDENTITY]))
    assert found == {
        "a": 1, "b": 1.5, "c": True, "d": None, "e": "x\u00e9\n", "f": [1, {"g": "h"}], "z_unencrypted": 1000,
        "big": float(12345678901234567890), "empty": "", "o": {}, "l": [],
    }  # fmt: skip
    assert list(found) == ["a", "b", "c", "d", "e", "f", "z_unencrypted", "big", "empty", "o", "l"]


def test_numbers_are_taken_as_sops_takes_them() -> None:
    """Whole numbers beyond 2^53, infinities and what only looks like a number pass the MAC and keep their meaning."""
    found = json.loads(decrypt(read("numbers.json"), "json", [IDENTITY]))
    assert found["big"] == found["n_unencrypted"] == 9007199254740993
    assert (found["zero"], found["float"], found["e"]) == (0, 1, 1000)
    text = decrypt(read("numbers.yaml"), "yaml", [IDENTITY]).decode()
    assert text.splitlines()[:5] == [
        "inf: .inf",
        "minus: -.inf",
        "nan: .nan",
        'word: "1e400"',
        "word_unencrypted: 1e400",
    ]


def test_an_env_file_opens() -> None:
    """Lines come back, newlines in values stay escaped; an encrypted comment is an empty line."""
    opened = decrypt(read("prod.env"), "env", [IDENTITY]).decode()
    assert opened == '\nA=1\nB=hello world\nC=multi\\nline\nD=\nE_unencrypted=plain\nF="q"\n'


def test_a_binary_file_opens_to_the_byte() -> None:
    """Bytes that are no text come back."""
    assert decrypt(read("binary.bin"), "binary", [IDENTITY]) == bytes(range(256))
    assert decrypt(read("text.txt"), detect_format("text.txt"), [age.format_identity(IDENTITY)]) == b"hello\n"


@pytest.mark.parametrize("name", sorted(path.name for path in FILES.iterdir()))
def test_every_format_is_told_to_be_encrypted(name: str) -> None:
    """What sops wrote is known as such; what it opens to is not."""
    assert is_sops(read(name))
    assert not is_sops(decrypt(read(name), detect_format(name), [IDENTITY]))


def test_a_decoded_document_is_told_to_be_encrypted() -> None:
    """A mapping with SOPS's block counts; one that only has a key of that name does not."""
    assert is_sops({"sops": {"mac": "x"}})
    assert not is_sops({"sops": "x"})
    assert not is_sops({"data": {}})


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("regex.yaml", "name: db", "name: other"),
        ("regex.yaml", "kind: Secret\n", "kind: Secret\nextra: yes\n"),
        ("regex.yaml", '    "n": 3\n', ""),
        ("regex.yaml", '"n": 3\n', '"n": 4\n'),
        ("values.json", '"empty": ""', '"empty": "x"'),
        ("prod.env", "E_unencrypted=plain", "E_unencrypted=other"),
        ("mac-only-encrypted.yaml", 'empty: ""', "empty: x"),
    ],
)
def test_an_edit_in_the_clear_is_noticed(name: str, old: str, new: str) -> None:
    """Nothing in the file can be changed without sops, or, where it says so, nothing encrypted."""
    edited = read(name).decode().replace(old, new, 1)
    assert edited != read(name).decode()
    if name.startswith("mac-only"):
        decrypt(edited.encode(), "yaml", [IDENTITY])
        return
    with pytest.raises(SealError, match="MAC is wrong") as caught:
        decrypt(edited.encode(), detect_format(name), [IDENTITY])
    assert caught.value.reason == "Corrupt"


def test_a_value_in_the_clear_where_it_was_encrypted_is_noticed() -> None:
    """An encrypted value cannot be replaced by a plain one, also where the MAC is over encrypted values only."""
    text = re.sub(r"password: ENC\[.*\]", "password: mine", read("mac-only-encrypted.yaml").decode())
    with pytest.raises(SealError, match="MAC is wrong"):
        decrypt(text.encode(), "yaml", [IDENTITY])


def test_a_moved_value_is_refused_by_name() -> None:
    """A value under another key does not open, and the message has the key."""
    text = read("regex.yaml").decode().replace("password: ENC", "passwort: ENC")
    with pytest.raises(SealError, match=r"stringData\.passwort was changed, or moved") as caught:
        decrypt(text.encode(), "yaml", [IDENTITY])
    assert caught.value.reason == "Corrupt"


def test_a_file_without_a_mac_is_refused() -> None:
    """Taking the MAC out does not turn verification off."""
    text = re.sub(r"    mac: .*\n", "", read("regex.yaml").decode())
    with pytest.raises(SealError, match="no mac"):
        decrypt(text.encode(), "yaml", [IDENTITY])


def test_a_stranger_is_told_the_recipients() -> None:
    """Without a fitting identity the message names whom the file is for."""
    with pytest.raises(SealError, match=f"db.yaml: encrypted for .*{RECIPIENT}") as caught:
        decrypt(read("secret.yaml"), "yaml", [STRANGER], name="db.yaml")
    assert caught.value.reason == "NotARecipient"


@pytest.mark.parametrize(
    ("block", "named"),
    [
        ({"pgp": [{"fp": "x"}]}, "PGP"),
        ({"kms": [{"arn": "x"}], "hc_vault": [{"vault_address": "x"}]}, "AWS KMS and Vault"),
        ({"age": []}, "no key that fleet knows"),
        ({"key_groups": [{"age": []}, {"age": []}]}, "several key groups"),
    ],
)
def test_other_keys_than_age_are_refused_by_name(block: dict[str, Any], named: str) -> None:
    """A file for PGP or a KMS is Unsupported, and the message says which and what is supported."""
    body = json.dumps({"a": "ENC[AES256_GCM,data:x,iv:x,tag:x,type:str]", "sops": {"mac": "x", **block}})
    with pytest.raises(SealError, match=f"b.json: .*{named}") as caught:
        decrypt(body.encode(), "json", [IDENTITY], name="b.json")
    assert caught.value.reason == "Unsupported"


@pytest.mark.parametrize("name", ["regex.yaml", "values.json", "prod.env", "binary.bin"])
@given(at=st.floats(0, 1, exclude_max=True), byte=st.integers(1, 255))
def test_a_flipped_byte_never_opens_to_something_else(name: str, at: float, byte: int) -> None:
    """Whatever byte is changed: a SealError, or the values that the file opened to before."""
    data = bytearray(read(name))
    data[int(len(data) * at)] ^= byte
    with contextlib.suppress(SealError):
        opened = decrypt(bytes(data), detect_format(name), [IDENTITY])
        assert read_values(opened, name) == read_values(decrypt(read(name), detect_format(name), [IDENTITY]), name)


def read_values(content: bytes, name: str) -> list[Any]:
    """Return what a MAC of SOPS covers: the values in order, neither null nor empty, without the names of plain keys."""
    if name.endswith(".yaml"):
        return list(flatten([each.value for each in load_documents(content, "x")]))
    if name.endswith(".json"):
        return list(flatten(json.loads(content)))
    if name.endswith(".env"):
        lines = [line for line in content.split(b"\n") if not line.startswith(b"#")]
        return [line.partition(b"=")[2] for line in lines if line.partition(b"=")[2]]
    return [content]


def flatten(value: Any) -> Iterator[Any]:
    """Iterate over the values of a document."""
    if isinstance(value, dict | list):
        for below in value.values() if isinstance(value, dict) else value:
            yield from flatten(below)
    elif value not in (None, ""):
        yield value


@pytest.mark.parametrize("form", list(sops.Format))
@given(data=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_only_seal_errors_come_out_of_the_parsers(form: sops.Format, data: bytes) -> None:
    """Bytes that sops never wrote are refused, of whatever format they are said to be."""
    with pytest.raises(SealError):
        decrypt(data, form, [IDENTITY])


@given(cut=st.integers(0, 3000), start=st.integers(0, 3000))
def test_only_seal_errors_come_out_of_pieces(cut: int, start: int) -> None:
    """A piece of a file is refused, or opens to the whole."""
    whole = read("regex.yaml")
    with contextlib.suppress(SealError):
        decrypt(whole[:start] + whole[start + cut :], "yaml", [IDENTITY])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x 1\nb: *x\nsops: {mac: x}\n", r"anchors|aliases"),
        ("a: !!binary aGk=\nsops: {mac: x}\n", "tags"),
        ("1: a\nsops: {mac: x}\n", "not a string"),
        ("a: 1\na: 2\nsops: {mac: x}\n", "given twice on line 2"),
        ("[" * 200 + "]" * 200, "deeper than 100"),
        ("- a\n", "no block of SOPS"),
        ("a: 1\nsops: [x]\n", "not a mapping"),
    ],
)
def test_what_sops_never_writes_is_refused(text: str, said: str) -> None:
    """Aliases, tags, other keys than strings and deep nesting are refused before anything is opened."""
    with pytest.raises(SealError, match=said):
        decrypt(text.encode(), "yaml", [IDENTITY])


@pytest.mark.parametrize("first", [True, False])
def test_flow_style_yaml_opens_too(*, first: bool) -> None:
    """A file in braces loses SOPS's block and keeps the rest, wherever the block stands."""
    body = json.loads(read("values.json"))
    block = body.pop("sops")
    order = {"sops": block, **body} if first else {**body, "sops": block}
    (found,) = load_documents(decrypt(json.dumps(order).encode(), "yaml", [IDENTITY]), "x")
    assert found.value == json.loads(decrypt(read("values.json"), "json", [IDENTITY]))


def test_a_large_file_is_refused_before_it_is_read() -> None:
    """More than 5 MiB of YAML are not parsed."""
    with pytest.raises(SealError, match="too many"):
        decrypt(b"a: " + b"x" * sops.FILE_BYTES, "yaml", [IDENTITY])
