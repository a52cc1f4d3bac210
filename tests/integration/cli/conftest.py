"""A fake hub for every test."""

from collections.abc import Iterator

import pytest

from tests.integration.cli.hub import FakeHub, serving


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """Serve a hub that knows nothing yet."""
    with serving(FakeHub()) as served:
        yield served
