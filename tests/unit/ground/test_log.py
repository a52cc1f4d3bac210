"""Nothing secret leaves through the log."""

import io
import json
import sys
from collections.abc import Iterator

import pytest
import structlog

from fleet.log import configure, redact

CANARY = "hunter2-canary"
JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl-_c2ln"
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}\n-----END RSA PRIVATE KEY-----"


@pytest.fixture(params=["json", "text"])
def form(request: pytest.FixtureRequest) -> Iterator[str]:
    """Either form of the log, set up anew."""
    saved = structlog.get_config()
    yield request.param
    structlog.configure(**saved)


@pytest.fixture
def written(form: str, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the log writes."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure(form=form)
    return stream


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"https://user:{CANARY}@git.example.com/x.git", "https://***@git.example.com/x.git"),
        (f"https://user:p@{CANARY}@git.example.com/x", "https://***@git.example.com/x"),
        (f"https://{CANARY}@git.example.com", "https://***@git.example.com"),
        (f"http://proxy:{CANARY}@[::1]:3128", "http://***@[::1]:3128"),
        (f"Authorization: Bearer {CANARY}", "Authorization: Bearer ***"),
        (f"authorization: basic {CANARY}", "authorization: basic ***"),
        (f"flt_{CANARY}", "***"),
        (f"token {JWT} refused", "token *** refused"),
        (f"key {PEM} end", "key *** end"),
        ("opened with AGE-SECRET-KEY-1QQQSYQCYQ5RQWZQF4Z.", "opened with ***."),
        (f"-----BEGIN PRIVATE KEY-----\n{CANARY}", "***"),
        (f"https://x/?a=1&access_token={CANARY}&b=2", "https://x/?a=1&access_token=***&b=2"),
        (f"/hook?password={CANARY}", "/hook?password=***"),
    ],
)
def test_credentials_are_masked(text: str, shown: str) -> None:
    """Every form in which a credential appears in a text is masked, and only that."""
    assert redact(text) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "ConfigMap shop/web",
        "git@github.com:platform/config.git",
        "https://git.example.com/a@b",
        "https://git.example.com/x.git?ref=main, mail me@example.com",
        "basic auth",
        "-----BEGIN CERTIFICATE-----",
    ],
)
def test_the_rest_stays(text: str) -> None:
    """What is no credential is left as it is."""
    assert redact(text) == text


def test_no_value_of_an_event_leaks(written: io.StringIO) -> None:
    """Strings, containers, errors and tracebacks are masked alike; local variables are never shown."""
    logger = structlog.get_logger()
    secret = f"https://user:{CANARY}@host/x"
    logger.warning(secret, text=secret, listed=[secret], nested={"a": {"b": secret}}, error=OSError(secret))
    logger.warning("lines", text=f"first\nBearer {CANARY}\tflt_{CANARY}", pem=PEM, listed=(f"\nbasic {CANARY}",))
    logger.warning("odd", error=ValueError(f"\nBearer {CANARY}"), found={f"flt_{CANARY}"})
    try:
        held = CANARY.upper()
        raise OSError(secret)
    except OSError:
        logger.exception("failed")
    assert CANARY not in written.getvalue()
    assert held not in written.getvalue()
    assert "OSError" in written.getvalue()


def test_json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each event is one JSON object with level and time, below the level nothing is written."""
    saved = structlog.get_config()
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure(level="warning", form="json")
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud", key={"n": 1}, text='a "quote" and \n a line')
    structlog.configure(**saved)
    (line,) = stream.getvalue().splitlines()
    event = json.loads(line)
    assert {"event": "loud", "level": "warning", "key": {"n": 1}}.items() <= event.items()
    assert event["timestamp"].endswith("Z")


def test_auto_means_json_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody watches, lines are for machines."""
    saved = structlog.get_config()
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure()
    structlog.get_logger().info("hello")
    structlog.configure(**saved)
    assert json.loads(stream.getvalue())["event"] == "hello"
