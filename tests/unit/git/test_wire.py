"""Git's wire protocol as a poll reads it: what servers send, and what they should not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import FetchFailed
from fleet.git.wire import (
    Mark,
    encode_line,
    parse_advertisement,
    parse_ls_refs,
    split_lines,
    write_ls_refs,
)

A, B, C = "a" * 40, "b" * 40, "c" * 40
FLUSH = Mark.FLUSH.value
SERVICE = encode_line("# service=git-upload-pack") + FLUSH


def test_a_request_for_refs_is_what_git_sends() -> None:
    """Command, delimiter, arguments, flush."""
    assert write_ls_refs(["refs/heads/main"]) == (
        b"0014command=ls-refs\n00010009peel\n001fref-prefix refs/heads/main\n0000"
    )


def test_refs_are_read_with_tags_peeled() -> None:
    """Attributes are passed over but for `peeled`, which replaces the tag object by its commit."""
    answer = b"".join(
        [
            encode_line(f"{A} HEAD symref-target:refs/heads/main"),
            encode_line(f"{A} refs/heads/main"),
            encode_line(f"{B} refs/tags/v1 peeled:{C}"),
            FLUSH,
        ]
    )
    assert parse_ls_refs(answer) == {"HEAD": A, "refs/heads/main": A, "refs/tags/v1": C}
    assert parse_ls_refs(FLUSH) == {}


def test_an_advertisement_of_version_2_is_recognised() -> None:
    """With and without the service line before it."""
    capabilities = b"".join(
        encode_line(line) for line in ("version 2", "agent=git/2", "ls-refs=unborn", "fetch=shallow")
    )
    for answer in (SERVICE + capabilities + FLUSH, capabilities + FLUSH):
        assert parse_advertisement(answer).version == 2


def test_an_advertisement_of_an_old_version_lists_refs() -> None:
    """Capabilities are cut off, peeled lines replace their tag, and the line of an empty repository is no ref."""
    head = f"{A} HEAD\0multi_ack thin-pack object-format=sha1"
    lines = [head, f"{A} refs/heads/main", f"{B} refs/tags/v1", f"{C} refs/tags/v1^{{}}"]
    refs = {"HEAD": A, "refs/heads/main": A, "refs/tags/v1": C}
    body = b"".join(map(encode_line, lines)) + FLUSH
    assert parse_advertisement(SERVICE + body).refs == refs
    assert parse_advertisement(encode_line("version 1") + body).refs == refs
    assert parse_advertisement(SERVICE + encode_line(f"{'0' * 40} capabilities^{{}}\0x") + FLUSH).refs == {}
    assert parse_advertisement(SERVICE + FLUSH).refs == {}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<!doctype html><html>",
        b"000",
        b"0005",
        b"0003",
        b"fff1" + b"x" * 70000,
        encode_line("no sha at all"),
        encode_line("oneword"),
        encode_line(f"{A} refs/heads/main"),
        encode_line(f"{A} refs/heads/main") + Mark.DELIMITER.value,
    ],
)
def test_what_is_no_list_of_refs_is_refused(answer: bytes) -> None:
    """Nothing cut short, misshapen or foreign is read as fewer refs."""
    with pytest.raises(FetchFailed) as caught:
        parse_ls_refs(answer)
    assert caught.value.reason == "ProtocolError"


@pytest.mark.parametrize("answer", [b"", b"<!doctype html><html>", b"0000", encode_line("hello")])
def test_what_is_no_advertisement_is_refused(answer: bytes) -> None:
    """An empty answer or a web page is not an empty repository."""
    with pytest.raises(FetchFailed):
        parse_advertisement(answer)


def test_what_the_server_says_is_passed_on() -> None:
    """An ERR line becomes the message, on one line and without control characters."""
    with pytest.raises(FetchFailed, match="the server says: access denied") as caught:
        parse_ls_refs(encode_line("ERR access denied\x1b[31m\nnow"))
    assert "\x1b" not in caught.value.message


def test_sha256_repositories_are_refused_by_name() -> None:
    """Their ids are longer, and version 2 says so beforehand."""
    with pytest.raises(FetchFailed, match="SHA-256"):
        parse_ls_refs(encode_line(f"{'a' * 64} refs/heads/main") + FLUSH)
    with pytest.raises(FetchFailed, match="SHA-256"):
        parse_advertisement(encode_line("version 2") + encode_line("object-format=sha256") + FLUSH)


@given(st.binary(max_size=200))
def test_no_bytes_surprise_the_reader(data: bytes) -> None:
    """Whatever arrives is read or refused as FetchFailed."""
    for parse in (parse_ls_refs, parse_advertisement):
        try:
            parse(data)
        except FetchFailed:
            continue


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\n"), max_size=100)))
def test_lines_survive_the_way(texts: list[str]) -> None:
    """What was encoded is split into the same lines."""
    sent = [text for text in texts if not text.startswith("ERR ")]
    assert list(split_lines(b"".join(map(encode_line, sent)))) == [text.encode() for text in sent]
