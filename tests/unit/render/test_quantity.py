"""Quantities in the API server's form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.render.quantity import canonicalize_quantity

# as kubectl 1.36 prints them back after a round trip through an API server
TABLE = [
    ("1000m", "1"), ("0.5", "500m"), ("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), ("1e3", "1e3"), ("1000", "1k"), ("1024", "1024"),
    ("0", "0"), ("0Gi", "0"), ("-0", "0"), ("100m", "100m"), ("1500m", "1500m"), ("0.1", "100m"), ("1.", "1"), (".5", "500m"), ("+1", "1"),
    ("1Ki", "1Ki"), ("1000Ki", "1000Ki"), ("0.1Ki", "102400m"), ("1.5Ki", "1536"), ("0.5Mi", "512Ki"), ("2048Ki", "2Mi"), ("1e6", "1e6"), ("1E3", "1e3"),
    ("12e4", "120e3"), ("1E", "1E"), ("100M", "100M"), ("1000000k", "1G"), ("1n", "1n"), ("0.1n", "1n"), ("1u", "1u"), ("-1500m", "-1500m"),
    ("-1024Mi", "-1Gi"), ("512", "512"), ("8Ei", "8Ei"), ("1e-3", "1e-3"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "canonical"), TABLE)
def test_form(written: str, canonical: str) -> None:
    """A quantity is written as the API server would."""
    assert canonicalize_quantity(written) == canonical


@pytest.mark.parametrize("text", ["", "x", "1Gib", "1 Gi", "1gi", "--1", "1,5", "1e", "Gi", "1e99999", "٣"])
def test_no_quantity(text: str) -> None:
    """What the API server would refuse has no form."""
    assert canonicalize_quantity(text) is None


@given(st.from_regex(r"[+-]?[0-9]{1,12}(\.[0-9]{0,6})?(Ki|Mi|Gi|Ti|n|u|m|k|M|G|e3)?", fullmatch=True))
def test_idempotent(text: str) -> None:
    """The canonical form is its own canonical form."""
    once = canonicalize_quantity(text)
    assert once is not None
    assert canonicalize_quantity(once) == once
