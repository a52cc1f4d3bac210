"""The page about backing sealing keys up, word by word, against a hub that runs as a process."""

import asyncio
from collections.abc import Iterator

import pytest

from fleet.secrets.age import format_identity, format_recipient
from fleet.secrets.key import derive_public
from tests.cluster.shell import Shell, blocks_after, eventually

PAGE = "how-to/back-up-and-restore-sealing-keys.md"
BREAK_GLASS = bytes(range(1, 33))
RUN = "fleet run --inventory clusters.d --data data"


def lines(heading: str, shell: Shell) -> Iterator[str]:
    """The commands below a heading, with the page's disks in the test's directory."""
    for block in blocks_after(PAGE, heading):
        for line in block.text.splitlines():
            here = line.replace("/mnt/safe", f"{shell.directory}/safe").replace("/media/usb", f"{shell.directory}/usb")
            yield here.replace("age1...", format_recipient(derive_public(BREAK_GLASS)))


async def kids(shell: Shell, state: str) -> str:
    """The keys in a state."""
    return await shell.run(f"fleet keys list --state {state} -o name 2>/dev/null")


@pytest.mark.timeout(180)
async def test_the_page_word_by_word(shell: Shell) -> None:
    """Back up, verify, lose everything, restore; lose the master key too, and come back from break-glass."""
    by_itself, by_hand, copy, verify = lines("Back up", shell)
    put_master, restore, start = lines("When the data directory is lost", shell)
    export, import_ = lines("When the master key is lost, too", shell)
    [rotate] = lines("Change the master key", shell)
    async with shell.background(RUN):
        await eventually(shell, "fleet keys list 2>/dev/null", "pending")
        await shell.run(by_hand)
        await eventually(shell, "fleet keys list", "active")
        await shell.run(copy)
        assert "1 key of" in await shell.run(verify)
        first = await kids(shell, "active")
        await shell.run(export)
    await shell.run("rm -r data")
    await shell.run(f"{put_master}\n{restore}")
    async with shell.background(start):
        await eventually(shell, "fleet keys list -o name 2>/dev/null", first)
        assert await kids(shell, "active") == first
        assert "sealing keys" not in await shell.run("fleet status")
        await shell.run(rotate)
        refused = await shell.run(f"{verify} 2>&1 || true")
        assert "another master key" in refused
    await shell.run("rm -r data usb")
    identity = shell.directory / "break-glass.txt"
    identity.write_text(format_identity(BREAK_GLASS) + "\n")
    async with shell.background(f"{by_itself} --inventory clusters.d --data data"):
        await eventually(shell, "fleet keys list -o name --state active 2>/dev/null", "\n")
        await shell.run(import_)
        assert await kids(shell, "retiring") == first
        assert await kids(shell, "active") not in ("", first)
        assert len(list((shell.directory / "safe" / "keys").glob("fleet-keys-*.db"))) >= 1


async def test_the_hub_says_at_start_where_the_master_key_is(shell: Shell) -> None:
    """Whoever starts it the first time learns that there is something to keep."""
    async with shell.background(RUN):
        async with asyncio.timeout(30):
            while not (shell.directory / "data" / "master.key").exists():
                await asyncio.sleep(0.1)
        await eventually(shell, f"cat {shell.log}", "copy it to a safe place")
