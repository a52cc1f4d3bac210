"""Rows on terminals and in pipes, YAML that kubectl reads alike, durations."""

import io
import re
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.cli.client import Message, read_messages
from fleet.cli.duration import format_age, format_duration, parse_at, parse_duration
from fleet.cli.table import align, clean, field, format_yaml, print_rows
from fleet.document import load_documents

_KEYS = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_categories=["Cs", "Cc", "Cf"]), min_size=1
)
_TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.sampled_from(
        ["1e3", "0o10", "08", "y", "=", "~", "<<", "1:30", "1_000", ".5", "- a", "#", "a: b", "a\n\n", " a\nb"]
    ),
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(_KEYS, _VALUES, max_size=4))
def test_yaml_is_read_back_as_it_was(value: dict[str, object]) -> None:
    """The reader that agrees with kubectl finds what was written, whatever the texts look like."""
    documents = load_documents(format_yaml({"kind": "X", "data": value}).encode(), "a.yaml")
    assert [document.value["data"] for document in documents] == [value]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _on_terminal(monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, str]], **environ: str) -> str:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "40", **environ}.items():
        monkeypatch.setenv(name, value)
    screen = _Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    columns = [field("NAME", "name"), field("STATE", "state", state=True), field("MESSAGE", "message")]
    print_rows(rows, columns, "table", lambda row: str(row["name"]))
    return screen.getvalue()


def _strip(text: str) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in text.splitlines()]


ROW = {"name": "dev-1", "state": "Failed", "message": "[red]a long message[/red] that does not fit into one line"}


def test_a_terminal_gets_colour_and_wrapping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Red for Failed; long messages wrap; markup in a message is text."""
    text = _on_terminal(monkeypatch, [ROW])
    assert "\x1b[31mFailed" in text
    assert "[red]" in text
    assert len(text.splitlines()) > 2


def test_a_narrow_terminal_gets_the_message_below(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is cut off, and names and states stay in columns."""
    wide = _on_terminal(monkeypatch, [ROW], COLUMNS="60")
    narrow = _on_terminal(monkeypatch, [ROW, {**ROW, "message": ""}], COLUMNS="40")
    assert [line.split()[:2] for line in _strip(wide)[:2]] == [["NAME", "STATE"], ["dev-1", "Failed"]]
    assert _strip(narrow) == [
        "NAME   STATE",
        "    MESSAGE",
        "dev-1  Failed",
        "    [red]a long message[/red] that does",
        "    not fit into one line",
        "dev-1  Failed",
    ]


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR, as everywhere."""
    assert "\x1b[31m" not in _on_terminal(monkeypatch, [ROW], NO_COLOR="1")


def test_a_pipe_gets_one_line_per_row(capsys: pytest.CaptureFixture[str]) -> None:
    """However long the message is."""
    columns = [field("NAME", "name"), field("MESSAGE", "message")]
    print_rows([ROW], columns, "table", lambda row: str(row["name"]))
    assert capsys.readouterr().out == f"NAME   MESSAGE\ndev-1  {ROW['message']}\n"


@given(st.lists(st.lists(st.text(max_size=5), min_size=2, max_size=2), min_size=1, max_size=4))
def test_aligned_rows_stay_rows(lines: list[list[str]]) -> None:
    """Nothing in a cell makes another line."""
    assert all(len(f"{line}.".splitlines()) == 1 for line in align([[clean(cell) for cell in line] for line in lines]))


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1h30m", 5400), ("2w", 1_209_600), ("1.5h", 5400), ("20ms", 0.02)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    """Weeks to milliseconds, put together."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0s"), (59.9, "59s"), (3600, "1h"), (3605, "1h"), (86_400 * 9 + 60, "9d")]
)
def test_durations_are_written_in_two_units(seconds: float, text: str) -> None:
    """The second unit only where it is next to the first."""
    assert format_duration(seconds) == text


@given(st.integers(0, 10**8))
def test_ages_count_back(seconds: int) -> None:
    """What is shown, read again, is never more than the truth, and near it."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    shown = parse_duration(format_age((now - timedelta(seconds=seconds)).isoformat(), now))
    assert shown <= seconds < shown + max(3600.0, shown / 10) if seconds > 60 else shown == seconds


def test_moments_are_utc() -> None:
    """With an offset or without."""
    assert (
        parse_at("2026-01-02T05:00:00+02:00") == parse_at("2026-01-02T03:00:00") == datetime(2026, 1, 2, 3, tzinfo=UTC)
    )


def test_event_streams_are_parsed() -> None:
    """Heartbeats and empty events say nothing; data may have several lines; the last id counts."""
    stream = b": alive\n\nid: 1\r\n\r\n:\n\nid: 2\nevent: bye\ndata: a\ndata:b\n\nid: 3\ndata: cut off"
    assert list(read_messages(iter(stream.splitlines(keepends=True)))) == [Message("2", "bye", "a\nb")]
