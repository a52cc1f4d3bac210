"""The life of a sealing key, as far as it goes by itself."""

import asyncio
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from fleet.errors import SealError, StoreError
from fleet.secrets.key import Algorithm, KeyState, derive_public
from fleet.secrets.master import FileSource
from fleet.store.database import Statement
from fleet.store.record import write_at
from tests.integration.secrets.keys.conftest import RENEW, Fleet, Office

P, A, RETIRING, RETIRED = KeyState.PENDING, KeyState.ACTIVE, KeyState.RETIRING, KeyState.RETIRED


async def test_a_cluster_gets_a_key_when_it_is_met(office: Office, fleet: Fleet) -> None:
    """The key is made, backed up and used, each written to the audit log; its halves fit."""
    fleet.clusters["never-met"] = "dev"
    await office.keeper.tend_once()
    assert office.states() == [A]
    assert office.rows("never-met") == []
    assert fleet.names() == ["KeyMade", "KeysBackedUp", "KeyActivated"]
    key = office.keeper.keyring.get("dev-1", office.active())
    assert derive_public(key.box_key) == key.public.public
    assert derive_public(key.age_key) == key.public.age_public
    assert (key.public.uid, key.public.environment) == ("uid-dev-1", "dev")


async def test_nothing_happens_twice(office: Office, fleet: Fleet) -> None:
    """Looking again changes nothing and wakes nobody."""
    await office.keeper.tend_once()
    woken: list[int] = []
    office.keeper.keyring.on_change(lambda: woken.append(1))
    before = len(fleet.acts)
    await office.keeper.tend_once()
    assert (woken, len(fleet.acts)) == ([], before)


async def test_a_key_is_not_offered_before_a_backup_holds_it(office: Office, fleet: Fleet) -> None:
    """Without a backup the key waits; when somebody confirms one, it is used at once, and opens all the while."""
    office.backups = None
    await office.reopen()
    await office.keeper.tend_once()
    assert office.states() == [P]
    assert office.keeper.keyring.offered("dev-1", Algorithm.X25519) is None
    assert office.keeper.keyring.usable("dev-1", Algorithm.X25519)
    _, backup = await office.desk.back_up()
    assert office.states() == [P]
    await office.desk.confirm(backup.digest, "safe.example:/keys.db")
    assert office.states() == [A]
    with pytest.raises(SealError, match="did not make that backup"):
        await office.desk.confirm("0" * 64, "elsewhere")


async def test_the_database_itself_refuses_a_key_without_backup(office: Office) -> None:
    """A bug in the hub cannot use one either."""
    office.backups = None
    await office.reopen()
    await office.keeper.tend_once()
    with pytest.raises(StoreError, match="only when a confirmed backup holds it"):
        await office.store.run([office.store.set_state(office.rows()[0], KeyState.ACTIVE)])


async def test_a_key_is_renewed_after_ninety_days(office: Office, fleet: Fleet) -> None:
    """The loop sleeps until then; the successor is used, the old key opens what it sealed."""
    async with asyncio.timeout(RENEW.total_seconds() * 3):
        task = asyncio.ensure_future(office.keeper.run())
        await asyncio.sleep(10)
        first = office.active()
        await asyncio.sleep(RENEW.total_seconds() - 20)
        assert office.active() == first
        await asyncio.sleep(40)
        assert office.active() != first
        assert office.states() == [RETIRING, A]
        assert office.rows()[0].replaced_by == office.active()
        assert office.keeper.keyring.get("dev-1", first).public.kid == first
        await asyncio.sleep(RENEW.total_seconds())
        assert office.states() == [RETIRING, RETIRING, A]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_renewal_waits_for_its_backup(office: Office, fleet: Fleet) -> None:
    """While the directory for backups is gone the old key stays in use and the trouble is told; then it goes on."""
    await office.keeper.tend_once()
    first = office.active()
    assert office.backups is not None
    for path in office.backups.iterdir():
        path.unlink()
    office.backups.rmdir()
    office.backups.write_text("in the way")
    await asyncio.sleep(RENEW.total_seconds() + 1)
    with pytest.raises(SealError, match="no backup of the sealing keys") as caught:
        await office.keeper.tend_once()
    assert caught.value.reason == "BackupFailed"
    assert (office.active(), office.states()) == (first, [A, P])
    office.backups.unlink()
    await office.keeper.tend_once()
    assert office.states() == [RETIRING, A]


async def test_a_rebuilt_cluster_keeps_its_keys(office: Office, fleet: Fleet) -> None:
    """Once another identity is accepted the keys serve it; before, they are bound to the old one."""
    await office.keeper.tend_once()
    kid = office.active()
    fleet.uids["dev-1"] = "uid-rebuilt"
    await office.keeper.tend_once()
    assert office.keeper.keyring.get("dev-1", kid).public.uid == "uid-rebuilt"
    assert ("KeyRebound", "dev-1") in [(action, cluster) for action, cluster, _ in fleet.acts]
    await office.reopen()
    await office.keeper.tend_once()
    assert office.active() == kid


async def test_a_renamed_cluster_keeps_its_keys(office: Office, fleet: Fleet) -> None:
    """The identity is the uid: under its new name the cluster opens what was sealed under the old one."""
    await office.keeper.tend_once()
    kid = office.active()
    del fleet.clusters["dev-1"], fleet.uids["dev-1"]
    fleet.meet("dev-one", "uid-dev-1")
    await office.keeper.tend_once()
    assert office.active("dev-one") == kid
    assert office.rows("dev-1") == []


async def test_no_key_is_made_where_git_needs_a_lost_one(office: Office, fleet: Fleet) -> None:
    """An empty hub over a repository with sealed values makes no key by itself; it says which are missing."""
    await office.use("0123456789abcdef0123")
    await office.keeper.tend_once()
    assert office.rows() == []
    assert office.keeper.unknown == {"dev-1": ["0123456789abcdef0123"]}
    with pytest.raises(SealError, match="fleet keys restore") as caught:
        office.keeper.keyring.get("dev-1", "0123456789abcdef0123")
    assert caught.value.reason == "UnknownKey"
    made = await office.desk.rotate("dev-1", Algorithm.X25519, "by ada: start over")
    assert (office.states(), office.active()) == ([A], made.kid)


async def test_no_key_is_made_before_git_was_read(office: Office, fleet: Fleet) -> None:
    """What Git holds for a cluster must be known first."""
    fleet.unscanned.add("dev-1")
    await office.keeper.tend_once()
    assert office.rows() == []
    fleet.unscanned.clear()
    await office.keeper.tend_once()
    assert office.states() == [A]


@pytest.mark.parametrize("column", ["cluster", "uid", "private", "public", "age_public", "algorithm"])
async def test_a_changed_row_is_found_out(column: str, office: Office, fleet: Fleet, tmp_path: Path) -> None:
    """Whoever writes to the database file cannot pass one cluster's key off as another's; other keys go on."""
    fleet.meet("prod-1", environment="prod")
    await office.keeper.tend_once()
    kid = office.active()
    office.close()
    with closing(sqlite3.connect(tmp_path / "data" / "fleet.db")) as connection:
        values = {
            "cluster": "'other'",
            "uid": "'uid-x'",
            "algorithm": "'age'",
            "private": "(SELECT private FROM seal_key WHERE cluster = 'prod-1')",
            "public": "(SELECT public FROM seal_key WHERE cluster = 'prod-1')",
            "age_public": "(SELECT age_public FROM seal_key WHERE cluster = 'prod-1')",
        }
        connection.execute(f"UPDATE seal_key SET {column} = {values[column]} WHERE cluster = 'dev-1'")
        connection.commit()
    await office.open()
    await office.keeper.tend_once()
    [((cluster, _), error)] = office.keeper.keyring.broken.items()
    assert "does not open with the master key" in str(error)
    with pytest.raises(SealError):
        office.keeper.keyring.get(cluster, kid)
    assert kid not in [key.public.kid for key in office.keeper.keyring.every()]
    assert office.keeper.keyring.offered("prod-1", Algorithm.X25519) is not None


async def test_the_life_of_a_key_goes_one_way(office: Office) -> None:
    """The database refuses a step back, whoever asks for it."""
    await office.keeper.tend_once()
    row = office.rows()[0]
    for state in ("pending", "retired", "destroyed"):
        with pytest.raises(StoreError, match="does not go back"):
            await office.store.run([office.store.set_state(row, state)])


async def test_one_key_is_active(office: Office) -> None:
    """A second active key of a cluster and algorithm is refused by the database."""
    await office.keeper.tend_once()
    row = office.rows()[0]
    twin = {**{f: getattr(row, f) for f in row.__slots__}, "kid": "f" * 20}
    with pytest.raises(StoreError, match="UNIQUE"):
        await office.database.write([_plain_insert(twin)])


def _plain_insert(fields: dict[str, object]) -> Statement:
    values = {k: write_at(cast("datetime", v)) if k.endswith("_at") else v for k, v in fields.items()}
    columns = ", ".join(values)
    return Statement(
        f"INSERT INTO seal_key ({columns}) VALUES ({', '.join('?' * len(values))})", tuple(values.values())
    )


async def test_a_hub_without_its_master_key_says_so_and_goes_on(office: Office, tmp_path: Path) -> None:
    """The loop keeps running, nothing opens, no key is made anew; when the file is back everything is as before."""
    await office.keeper.tend_once()
    kid = office.active()
    path = tmp_path / "data" / "master.key"
    saved = path.read_bytes()
    path.unlink()
    await office.reopen()
    task = asyncio.ensure_future(office.keeper.run())
    await asyncio.sleep(5)
    assert office.trouble().startswith("KeysLocked: ")
    assert "put it back" in office.trouble()
    assert not path.exists()
    assert [row.kid for row in office.rows()] == [kid]
    with pytest.raises(SealError, match="put it back"):
        office.keeper.keyring.get("dev-1", kid)
    path.write_bytes(saved)
    path.chmod(0o600)
    await asyncio.sleep(60)
    assert not office.trouble()
    assert office.active() == kid
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_another_master_key_opens_nothing(office: Office, tmp_path: Path) -> None:
    """A wrong key is told from a missing one, by name, and replaces nothing."""
    await office.keeper.tend_once()
    office.source = FileSource(tmp_path / "other.key")
    FileSource(tmp_path / "other.key").make()
    await office.reopen()
    with pytest.raises(SealError, match="are encrypted under") as caught:
        await office.keeper.tend_once()
    assert caught.value.reason == "KeysLocked"


async def test_a_stolen_data_directory_without_the_master_key_opens_nothing(
    office: Office, fleet: Fleet, tmp_path: Path
) -> None:
    """No private half, and not the master key, is found in any byte of it, backups and all."""
    office.source = FileSource(tmp_path / "elsewhere.key")
    await office.reopen()
    await office.keeper.tend_once()
    await office.desk.ensure_rsa("dev-1")
    await office.desk.rotate("dev-1", Algorithm.X25519, "once more")
    needles = [tmp_path.joinpath("elsewhere.key").read_bytes().strip()]
    needles += [bytes.fromhex(needles[0].decode())]
    for key in office.keeper.keyring.every():
        needles += [key.secret, key.secret[-32:], key.secret.hex().encode()]
    assert office.keeper.signer is not None
    needles.append(bytes(office.keeper.signer))
    office.close()
    files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert len(files) > 2
    for path in files:
        content = path.read_bytes()
        assert not [needle for needle in needles if needle in content], path
    await office.open()


async def test_renewal_is_soon_enough_for_a_hub_that_was_away(office: Office) -> None:
    """A key that became due while the hub was stopped is renewed at its start."""
    await office.keeper.tend_once()
    office.close()
    await asyncio.sleep((RENEW + timedelta(days=30)).total_seconds())
    await office.open()
    await office.keeper.tend_once()
    assert office.states() == [RETIRING, A]


async def test_a_rename_to_a_name_that_has_keys_changes_nothing(office: Office, fleet: Fleet) -> None:
    """The keys that are there stay in use; the others wait, and nothing else is held up by them."""
    fleet.meet("dev-2")
    await office.keeper.tend_once()
    kid = office.active("dev-2")
    uid = fleet.uids.pop("dev-1")
    del fleet.clusters["dev-1"]
    fleet.meet("dev-2", uid)
    fleet.meet("dev-3")
    await office.keeper.tend_once()
    assert office.active("dev-2") == kid
    assert office.states("dev-3") == [A]
