"""Rollouts on the status page, as a browser shows them."""

import msgspec

from fleet.hub.rolloutview import GateRow
from tests.browser.chromium import Browser
from tests.harness.hub import FakeHub, event
from tests.harness.rollout import cluster_row, rollout_detail, rollout_row, stage_row

BOXES = "[...document.querySelectorAll('.stage')].map(e => { const b = e.getBoundingClientRect(); return [b.x, b.y, b.right]; })"


async def test_stages_stand_beside_each_other(browser: Browser, site: str) -> None:
    """As columns, each with its clusters as chips and its gates; nothing reaches out of the window."""
    await browser.open(site)
    boxes = await browser.run(BOXES)
    assert len(boxes) == 3
    assert len({y for _, y, _ in boxes}) == 1
    assert boxes == sorted(boxes)
    assert all(right <= 1400 for _, _, right in boxes)
    text = await browser.run("document.querySelector('article').innerText")
    for shown in ("shop#42", "↻ Running", "prod waits: eu-2", "… eu-2", "batch 1 of 2", "1 of 2 approvals (petra)"):
        assert shown in text


async def test_stages_stand_below_each_other_on_a_phone(browser: Browser, site: str) -> None:
    """And the page is no wider than the phone."""
    await browser.open(site, width=390, height=844)
    boxes = await browser.run(BOXES)
    assert len({x for x, _, _ in boxes}) == 1
    assert all(right <= 390 for _, _, right in boxes)


async def test_colours_follow_the_scheme(browser: Browser, site: str) -> None:
    """Dark text on light ground, or the other way around."""
    colours = []
    for scheme in ("light", "dark"):
        await browser.open(site, scheme=scheme)
        colours.append(await browser.run("getComputedStyle(document.querySelector('.stage h4')).color"))
    assert colours == ["rgb(27, 36, 48)", "rgb(228, 233, 239)"]


async def test_what_is_left_counts_down(browser: Browser, site: str) -> None:
    """By the hub's clock, between two looks."""
    await browser.open(site)
    left = "document.querySelector('time[data-at]').textContent"
    await browser.until(f"/^4m0s$|^3m5[789]s$/.test({left})")
    first = await browser.run(left)
    await browser.until(f"{left} !== {first!r}")


async def test_the_page_follows_the_rollout(browser: Browser, site: str, hub: FakeHub) -> None:
    """An event makes it look again; a rollout that is over and went well leaves the page."""
    await browser.open(site)
    await browser.until("document.getElementById('link').dataset.state === 'live'")
    paused = rollout_row(state="Paused", waits_for="waits for somebody: night")
    hub.rollouts.details = [rollout_detail(paused)]
    hub.happen(event(3, kind="rollout", app="shop"))
    await browser.until("document.querySelector('article').innerText.includes('waits for somebody: night')")
    hub.rollouts.details = [msgspec.structs.replace(rollout_detail(), rollout=rollout_row(state="Succeeded"))]
    hub.happen(event(4, kind="rollout", app="shop"))
    await browser.until("!document.querySelector('article')")


async def test_a_gate_that_opens_makes_it_look_again(browser: Browser, site: str, hub: FakeHub) -> None:
    """Without an event: the end of a soak is none."""
    soak = GateRow(kind="Soak", message="it must stay healthy", at="2030-01-31T12:00:02Z")
    hub.rollouts.details = [
        rollout_detail(None, stage_row("prod", "Running", cluster_row("a", "Soaking", gates=(soak,))))
    ]
    await browser.open(site)
    await browser.until("document.getElementById('link').dataset.state === 'live'")
    await browser.until("/^[12]s$/.test(document.querySelector('time[data-at]').textContent)")
    hub.rollouts.details = [rollout_detail(None, stage_row("prod", "Running", cluster_row("a", "Done")))]
    await browser.until("document.querySelector('.stage').innerText.includes('✓ a')")
