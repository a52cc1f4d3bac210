"""A browser and a page for every test; skipped where no Chromium is installed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.browser.chromium import Browser, find_chromium, running_browser
from tests.harness.hub import FakeHub
from tests.integration.server.conftest import Api, serving


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    """A browser with an empty profile."""
    path = find_chromium()
    if path is None:
        pytest.skip("NO CHROMIUM on this machine: the web pages are not looked at; install the package chromium")
    async with running_browser(path, tmp_path / "profile") as running:
        yield running


@pytest.fixture
def hub() -> FakeHub:
    """The hub behind the page."""
    return FakeHub()


@pytest.fixture
async def site(hub: FakeHub) -> AsyncIterator[str]:
    """Address of the status page."""
    async with serving(hub) as api:
        yield _url(api)


def _url(api: Api) -> str:
    return f"{api.bound.url}/"
