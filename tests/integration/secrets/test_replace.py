"""The page about replacing a sealing key, word by word, against a hub that runs as a process."""

import os
from pathlib import Path

import pytest

from fleet.sim.cluster import SimCluster
from tests.cluster.shell import Shell, blocks_after, eventually
from tests.harness.fleet import Fleet
from tests.integration.secrets.test_own_keys import RUN, arrives
from tests.integration.secrets.test_rehearsal import kids

PAGE = "how-to/replace-a-sealing-key.md"
KID = "0123456789abcdef0123"
SEAL = (
    'fleet seal secret --name db --namespace default --from-literal password={value} --for cluster=dev-1 --server "$FLEET_SERVER"'
    " 2>/dev/null"
)


def lines(heading: str, kid: str) -> list[str]:
    """The commands below a heading, for this cluster and this key."""
    text = "\n".join(block.text for block in blocks_after(PAGE, heading))
    return [line for line in text.replace("prod-eu-1", "dev-1").replace(KID, kid).splitlines() if line]


@pytest.mark.timeout(120)
async def test_the_page_word_by_word(cluster: SimCluster, fleet: Fleet, shell: Shell) -> None:
    """Replace a key before its time, refused while Git needs it; then say that somebody else may have the new one."""
    async with shell.background(RUN):
        await eventually(shell, "fleet keys list --state active", "dev-1")
        first = (await kids(shell, "active")).strip()
        fleet.repository.commit("sealed", {"app/sealed.yaml": await shell.run(SEAL.format(value="one"))})
        await arrives(shell, cluster, "db", {"password": "one"})
        rotate, usage, retire = lines("Before its time", first)
        await shell.run(rotate)
        await eventually(shell, "fleet keys list --state retiring -o name", first)
        await eventually(shell, "fleet keys list --state active", "dev-1")
        await eventually(shell, usage, "app/sealed.yaml")
        assert "still need" in await shell.run(f"{retire} 2>&1 || true")
        fleet.repository.commit("again", {"app/sealed.yaml": await shell.run(SEAL.format(value="two"))})
        await arrives(shell, cluster, "db", {"password": "two"})
        await eventually(shell, f"{usage} | grep -c sealed.yaml", "0\n")
        assert "is retired" in await shell.run(retire)
        second = (await kids(shell, "active")).strip()
        [compromise] = lines("When somebody else may have it", second)
        await eventually(shell, f"fleet keys usage {second}", "app/sealed.yaml")
        assert "app/sealed.yaml" in await shell.run(compromise)
        await eventually(shell, "fleet status shop", "CompromisedKey")


async def test_the_hub_leaves_no_core(shell: Shell) -> None:
    """What is open in its memory is not written down when it crashes, and other processes of its user cannot read it."""
    async with shell.background(RUN):
        await eventually(shell, "fleet keys list -o name 2>/dev/null", "\n")
        [hub] = [each for each in Path("/proc").glob("[0-9]*") if _is_hub(each, shell.directory)]
        limit = next(
            line for line in (hub / "limits").read_text().splitlines() if line.startswith("Max core file size")
        )
        assert limit.split()[4:6] == ["0", "0"]
        if os.geteuid() != 0:
            assert (hub / "mem").stat().st_uid == 0


def _is_hub(process: Path, directory: Path) -> bool:
    try:
        return b"--keys-backup" in (process / "cmdline").read_bytes() and (process / "cwd").resolve() == directory
    except OSError:
        return False
