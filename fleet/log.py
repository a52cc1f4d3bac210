"""Structured logs: constant event texts with key-values, JSON or for a terminal, redacted at the exit."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from structlog.types import Processor

MASK = "***"
_WORD = r"(?:\b|(?<=\\[nrtbf]))"
"""Where a word begins, also after an escape: `\\nBearer` in JSON or a repr."""
_PATTERNS = (
    (("flt_",), re.compile(r"flt_[A-Za-z0-9_-]{8,}"), MASK),
    (("bearer", "basic"), re.compile(rf"(?i){_WORD}(bearer|basic)\s+[A-Za-z0-9._~+/=-]{{8,}}"), rf"\1 {MASK}"),
    (("@",), re.compile(r"(?<=\w)://[^/\s\"'\\]+@"), f"://{MASK}@"),
    (("eyj",), re.compile(rf"{_WORD}eyJ[\w-]{{10,}}\.[\w-]+\.[\w-]*"), MASK),
    (("age-secret-key-1",), re.compile(r"(?i)AGE-SECRET-KEY-1[A-Z0-9]+"), MASK),
    (
        ("private key",),
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
        MASK,
    ),
    (
        ("token=", "sig=", "signature=", "password=", "secret="),
        re.compile(r"(?i)([?&](?:token|access_token|sig|signature|password|secret)=)[^&\s]+"),
        rf"\1{MASK}",
    ),
)
"""Words of which a text has one (in lower case) before its pattern is worth a search: whole answers pass through here."""


def redact(text: str) -> str:
    """Mask credentials in a text that leaves the process.

    >>> redact("https://user:hunter2@git.example.com/x.git")
    'https://***@git.example.com/x.git'
    """
    lowered = text.lower()
    for words, pattern, mask in _PATTERNS:
        if any(word in lowered for word in words):
            text = pattern.sub(mask, text)
    return text


def _redacted(render: Processor) -> Processor:
    """Redact the line: errors and tracebacks only become text in the renderer."""

    def render_redacted(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        return redact(str(render(logger, method, event)))

    return render_redacted


def configure(*, level: str = "info", form: str = "auto") -> None:
    """Set up structlog once. `form` is `json`, `text`, or `auto` (text on a terminal)."""
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    # plain tracebacks: the default ones show local variables
    console = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    renderer: Processor = console if text else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if text else [structlog.processors.format_exc_info]),
            _redacted(renderer),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
