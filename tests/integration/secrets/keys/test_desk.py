"""What people do with sealing keys."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from cryptography import x509

from fleet.errors import SealError, StoreError
from fleet.secrets.age import decrypt, format_recipient
from fleet.secrets.backup import verify_backup
from fleet.secrets.desk import Export
from fleet.secrets.foreign import parse_keys
from fleet.secrets.key import Algorithm, KeyState, derive_public
from fleet.secrets.master import EnvironmentSource, FileSource, MasterKey
from fleet.store.database import Statement
from tests.integration.secrets.keys.conftest import Fleet, Office

P, A, RETIRING, RETIRED = KeyState.PENDING, KeyState.ACTIVE, KeyState.RETIRING, KeyState.RETIRED
BREAK_GLASS = bytes(range(1, 33))
RECIPIENT = format_recipient(derive_public(BREAK_GLASS))


@pytest.fixture
async def first(office: Office) -> str:
    """The kid of the cluster's first key, in use."""
    await office.keeper.tend_once()
    await asyncio.sleep(1)
    return office.active()


async def rotated(office: Office) -> str:
    """Make a second key."""
    return (await office.desk.rotate("dev-1", Algorithm.X25519, "asked")).kid


async def test_rotation_keeps_the_old_key_opening(office: Office, first: str) -> None:
    """New values are sealed with the new key, old ones still open."""
    second = await rotated(office)
    assert (office.active(), office.states()) == (second, [RETIRING, A])
    assert office.keeper.keyring.get("dev-1", first).public.state is RETIRING


async def test_a_key_in_use_is_not_retired(office: Office, first: str) -> None:
    """Neither the one that seals, nor one that Git still needs; the refusal names the value."""
    with pytest.raises(SealError, match="fleet keys rotate dev-1") as caught:
        await office.desk.retire(first, reason="old")
    assert caught.value.reason == "KeyActive"
    await rotated(office)
    await office.use(first)
    with pytest.raises(SealError, match=r"apps/shop/secret.yaml shop/db password") as caught:
        await office.desk.retire(first, reason="old")
    assert caught.value.reason == "KeyInUse"
    await office.desk.retire(first, reason="old", force=True)
    assert office.states() == [RETIRED, A]


async def test_a_retired_key_opens_nothing_and_can_come_back(office: Office, first: str) -> None:
    """The error says how; once destroyed it does not come back."""
    await rotated(office)
    await office.desk.retire(first, reason="old")
    with pytest.raises(SealError, match="--undo") as caught:
        office.keeper.keyring.get("dev-1", first)
    assert caught.value.reason == "RetiredKey"
    await office.desk.unretire(first, reason="needed after all")
    assert office.keeper.keyring.get("dev-1", first)
    with pytest.raises(SealError, match="retire it first"):
        await office.desk.destroy(first, reason="gone")
    await office.desk.retire(first, reason="old")
    await office.desk.destroy(first, reason="gone")
    assert office.states() == [KeyState.DESTROYED, A]
    with pytest.raises(SealError, match="private half is gone"):
        office.keeper.keyring.get("dev-1", first)
    with pytest.raises(SealError, match="for good") as caught:
        await office.desk.unretire(first, reason="after all")
    assert caught.value.reason == "KeyNotRetired"


async def test_what_is_destroyed_is_not_in_the_file(office: Office, first: str, tmp_path: Path) -> None:
    """Not even encrypted, not even in the write-ahead log."""
    private = office.rows()[0].private
    assert private is not None
    await rotated(office)
    await office.desk.retire(first, reason="old")
    await office.desk.destroy(first, reason="gone")
    for path in (tmp_path / "data").glob("fleet.db*"):
        assert private not in path.read_bytes(), path


async def test_a_compromised_key_is_out_at_once(office: Office, first: str) -> None:
    """It opens and seals nothing, a new one is in its place, and every value that is known now is named."""
    await office.use(first)
    values = await office.desk.compromise(first, reason="laptop lost")
    assert [(v.path, v.item) for v in values] == [("apps/shop/secret.yaml", "password")]
    assert office.states() == [KeyState.COMPROMISED, A]
    assert office.active() != first
    with pytest.raises(SealError, match="change the value at its source") as caught:
        office.keeper.keyring.get("dev-1", first)
    assert caught.value.reason == "CompromisedKey"
    assert first not in [key.public.kid for key in office.keeper.keyring.usable("dev-1", Algorithm.X25519)]


async def test_a_compromise_does_not_wait_for_a_backup(office: Office, first: str) -> None:
    """With the backup directory gone the key is out all the same; nothing can be sealed before a backup is there."""
    assert office.backups is not None
    for path in office.backups.iterdir():
        path.unlink()
    office.backups.rmdir()
    office.backups.write_text("in the way")
    await office.desk.compromise(first, reason="laptop lost")
    assert office.states() == [KeyState.COMPROMISED, P]
    assert office.trouble().startswith("BackupFailed")
    assert office.keeper.keyring.offered("dev-1", Algorithm.X25519) is None


async def test_rsa_is_made_at_the_first_ask(office: Office, first: str) -> None:
    """The certificate is of the key, for encipherment, and the same at the second ask."""
    assert office.rows(algorithm=Algorithm.RSA) == []
    made = await office.desk.ensure_rsa("dev-1")
    assert made is not None
    again = await office.desk.ensure_rsa("dev-1")
    assert again == made
    certificate = x509.load_pem_x509_certificate(made.public)
    assert certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_encipherment
    assert certificate.not_valid_after_utc > office.clock.now() + (made.renew_at - made.created_at)
    with pytest.raises(SealError, match="was never met"):
        await office.desk.ensure_rsa("nobody")


async def test_imported_keys_open_and_are_not_offered(office: Office, first: str) -> None:
    """What another cluster's controller had opens here; the own key stays the one that seals."""
    rsa = await office.desk.ensure_rsa("dev-1")
    assert rsa is not None
    dump = await office.desk.export(Export(cluster="dev-1", form="bitnami"))
    office.fleet.meet("dev-2")
    await office.keeper.tend_once()
    [row] = await office.desk.take_in("dev-2", parse_keys(dump, "dump.json"))
    assert (row.kid, row.state, row.origin) == (rsa.kid, RETIRING, "imported")
    assert office.keeper.keyring.get("dev-2", rsa.kid)
    assert office.keeper.keyring.offered("dev-2", Algorithm.RSA) is None
    await office.desk.take_in("dev-2", parse_keys(dump, "dump.json"))
    assert len(office.rows("dev-2", Algorithm.RSA)) == 1


async def test_break_glass_brings_everything_back(office: Office, first: str, tmp_path: Path) -> None:
    """With the data directory, the backups and the master key lost, the export opens for its recipient alone."""
    secret = office.keeper.keyring.get("dev-1", first).secret
    sealed = await office.desk.export(Export(recipients=(RECIPIENT,)))
    assert secret not in sealed
    plain = decrypt(sealed, [BREAK_GLASS])
    other = Office(tmp_path / "new", office.fleet)
    await other.open()
    await other.use(first)
    await other.keeper.tend_once()
    assert other.rows() == []
    for key in parse_keys(plain, "export"):
        await other.desk.take_in(key.cluster, [key])
    await asyncio.sleep(1)
    assert other.keeper.keyring.get("dev-1", first).secret == secret
    await other.keeper.tend_once()
    assert other.states() == [RETIRING, A]
    other.close()


async def test_an_export_needs_a_recipient_that_is_one(office: Office, first: str) -> None:
    """A mistyped recipient exports nothing."""
    with pytest.raises(SealError):
        await office.desk.export(Export(recipients=(RECIPIENT[:-1] + "q",)))
    with pytest.raises(SealError, match="no key matches"):
        await office.desk.export(Export(kid="0" * 20, recipients=(RECIPIENT,)))


async def test_a_backup_restores_into_an_empty_directory(office: Office, first: str, tmp_path: Path) -> None:
    """Keys, their states and the signer come back before anything is made in their place."""
    second = await rotated(office)
    signer = office.keeper.signer
    content, _ = await office.desk.back_up()
    new = Office(tmp_path / "new", office.fleet)
    new.root.mkdir()
    (new.root / "master.key").write_bytes((tmp_path / "data" / "master.key").read_bytes())
    (new.root / "master.key").chmod(0o600)
    (new.root / "keys.restore").write_bytes(content)
    (new.root / "keys.restore").chmod(0o600)
    await new.open()
    await new.keeper.tend_once()
    assert (new.active(), new.states()) == (second, [RETIRING, A])
    assert new.keeper.keyring.get("dev-1", first)
    assert new.keeper.signer == signer
    assert not (new.root / "keys.restore").exists()
    new.close()


async def test_a_restore_keeps_what_the_hub_has_by_now(office: Office, first: str, tmp_path: Path) -> None:
    """A key in use stays in use; the one of the backup only opens."""
    content, _ = await office.desk.back_up()
    await office.database.write([Statement("DELETE FROM seal_key")])
    await office.reopen()
    await office.keeper.tend_once()
    newer = office.active()
    (tmp_path / "data" / "keys.restore").write_bytes(content)
    (tmp_path / "data" / "keys.restore").chmod(0o600)
    await office.keeper.tend_once()
    assert office.active() == newer != first
    assert office.keeper.keyring.get("dev-1", first).public.state is RETIRING


async def test_a_restore_without_its_master_key_makes_nothing(office: Office, first: str, tmp_path: Path) -> None:
    """The new directory waits for the key, and says which."""
    content, _ = await office.desk.back_up()
    new = Office(tmp_path / "new", office.fleet)
    new.root.mkdir()
    (new.root / "keys.restore").write_bytes(content)
    (new.root / "keys.restore").chmod(0o600)
    await new.open()
    with pytest.raises(SealError, match="a backup waits to be restored") as caught:
        await new.keeper.tend_once()
    assert caught.value.reason == "KeysLocked"
    assert not (new.root / "master.key").exists()
    assert await new.store.load() == []
    new.close()


async def test_a_master_key_is_replaced_as_a_whole(office: Office, first: str, tmp_path: Path) -> None:
    """Everything opens as before under the new key; the old one opens nothing, and no old backup counts."""
    await office.desk.ensure_rsa("dev-1")
    path = tmp_path / "data" / "master.key"
    old = MasterKey(bytes.fromhex(path.read_text()))
    stale, _ = await office.desk.back_up()
    new_id = await office.desk.rotate_master(None)
    assert new_id != old.id
    assert MasterKey(bytes.fromhex(path.read_text())).id == new_id
    assert not path.with_name("master.key.new").exists()
    verify_backup(stale, old)
    fresh, _ = await office.desk.back_up()
    with pytest.raises(SealError, match="another master key"):
        verify_backup(fresh, old)
    await office.reopen()
    await office.keeper.tend_once()
    assert office.keeper.keyring.get("dev-1", first)
    assert office.keeper.keyring.offered("dev-1", Algorithm.RSA) is not None
    assert all(row.backed_up_at for row in office.keeper.keyring.rows())


async def test_the_old_encryption_is_not_in_the_files(office: Office, first: str, tmp_path: Path) -> None:
    """After a rotation the file and the log hold nothing that the old master key opens."""
    private = office.rows()[0].private
    assert private is not None
    await office.desk.rotate_master(None)
    for path in (tmp_path / "data").glob("fleet.db*"):
        assert private not in path.read_bytes(), path


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_a_cut_off_rotation_is_whole_or_not_at_all(cut: str, office: Office, first: str, tmp_path: Path) -> None:
    """Whether the hub dies before or after the transaction, the next start opens every key."""
    source = FileSource(tmp_path / "data" / "master.key")
    before = source.path.read_bytes()

    class Died(Exception):
        """The power went."""

    async def die(batch: object) -> None:
        raise Died

    def die_later(self: FileSource) -> None:
        raise Died

    with pytest.MonkeyPatch.context() as patch:
        if cut == "before":
            patch.setattr(office.store, "run", die)
        else:
            patch.setattr(FileSource, "adopt_draft", die_later)
        with pytest.raises(Died):
            await office.desk.rotate_master(None)
    assert source.draft.exists()
    assert source.path.read_bytes() == before
    await office.reopen()
    await office.keeper.tend_once()
    assert office.keeper.keyring.get("dev-1", first)
    assert not source.draft.exists()
    assert (source.path.read_bytes() == before) == (cut == "before")


async def test_a_row_that_does_not_open_stops_the_rotation(office: Office, first: str, tmp_path: Path) -> None:
    """Nothing is encrypted anew when one key would be lost with it."""
    before = (tmp_path / "data" / "master.key").read_bytes()
    with closing(sqlite3.connect(tmp_path / "data" / "fleet.db")) as connection:
        connection.execute("UPDATE seal_key SET private = zeroblob(72)")
        connection.commit()
    with pytest.raises(SealError):
        await office.desk.rotate_master(None)
    assert (tmp_path / "data" / "master.key").read_bytes() == before


async def test_a_master_key_moves_to_another_place(office: Office, first: str) -> None:
    """From the file to a variable; a start without the new place opens nothing."""
    there = EnvironmentSource({"HUB_KEY": "ab" * 32}, "HUB_KEY")
    await office.desk.rotate_master(there)
    await office.reopen()
    with pytest.raises(SealError, match="environment variable HUB_KEY"):
        await office.keeper.tend_once()
    office.source = there
    await office.reopen()
    await office.keeper.tend_once()
    assert office.active() == first
    with pytest.raises(SealError, match="put another there"):
        await office.desk.rotate_master(there)


async def test_acts_do_not_cross(office: Office, first: str) -> None:
    """Two rotations at once are one after the other: one key is in use at the end."""
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(rotated(office))
    assert sorted(office.states()) == sorted([RETIRING, RETIRING, RETIRING, A])


async def test_a_key_that_does_not_exist_is_said_so(office: Office, first: str) -> None:
    """Every act on a kid names what to look at."""
    for act in (office.desk.retire, office.desk.unretire, office.desk.destroy, office.desk.compromise):
        with pytest.raises(SealError, match="fleet keys list") as caught:
            await act("0" * 20, reason="x")
        assert caught.value.reason == "UnknownKey"


async def test_the_usage_index_follows_the_newest_revision(office: Office, fleet: Fleet) -> None:
    """An app's rows are replaced as a whole, and an app that left is forgotten."""
    await office.use("a" * 20)
    await office.use("b" * 20, item="other")
    assert [u.item for u in await office.desk.usage()] == ["other"]
    assert await office.usage.count() == {("dev-1", "b" * 20): 1}
    await office.usage.replace("config", "shop", "2" * 40, [], clusters=["dev-2"])
    assert await office.usage.count() == {("dev-1", "b" * 20): 1}
    await office.usage.keep([])
    assert await office.usage.count() == {}
    with pytest.raises(StoreError):
        await office.database.write([Statement("INSERT INTO seal_usage VALUES (NULL)")])


async def test_a_cluster_is_never_left_without_a_key_to_come(office: Office) -> None:
    """A key that is compromised before it was ever used is replaced, too."""
    office.backups = None
    await office.reopen()
    await office.keeper.tend_once()
    await office.desk.compromise(office.rows()[0].kid, reason="laptop lost")
    await asyncio.sleep(1)
    await office.keeper.tend_once()
    assert office.states() == [KeyState.COMPROMISED, P]


async def test_a_restore_that_cannot_be_done_says_how_to_go_on(office: Office, first: str, tmp_path: Path) -> None:
    """It names its file; once that is removed everything is as before."""
    ready = tmp_path / "data" / "keys.restore"
    ready.write_bytes(b"not a backup")
    ready.chmod(0o600)
    await office.reopen()
    with pytest.raises(SealError, match=r"keys\.restore \(remove it to go on without\): this is no backup"):
        await office.keeper.tend_once()
    with pytest.raises(SealError, match="remove it"):
        office.keeper.keyring.get("dev-1", first)
    ready.unlink()
    await office.keeper.tend_once()
    assert office.active() == first


async def test_a_damaged_key_keeps_no_other_out_of_a_backup(office: Office, first: str, tmp_path: Path) -> None:
    """New keys of other clusters are backed up and used as ever."""
    with closing(sqlite3.connect(tmp_path / "data" / "fleet.db")) as connection:
        connection.execute("UPDATE seal_key SET private = zeroblob(72)")
        connection.commit()
    office.fleet.meet("dev-2")
    await office.keeper.tend_once()
    assert office.states("dev-2") == [A]
    with pytest.raises(SealError, match="does not open"):
        office.keeper.keyring.get("dev-1", first)


async def test_a_backup_knows_of_a_compromise(office: Office, first: str, tmp_path: Path) -> None:
    """One is made at once, also for a key that was not in use any more, so that a restore does not bring it back."""
    await rotated(office)
    await asyncio.sleep(1)
    await office.desk.compromise(first, reason="laptop lost")
    newest = max((tmp_path / "data" / "backups").iterdir(), key=lambda path: path.name)
    new = Office(tmp_path / "new", office.fleet)
    new.root.mkdir()
    for name, content in (
        ("master.key", (tmp_path / "data" / "master.key").read_bytes()),
        ("keys.restore", newest.read_bytes()),
    ):
        (new.root / name).write_bytes(content)
        (new.root / name).chmod(0o600)
    await new.open()
    await new.keeper.tend_once()
    assert new.states() == [KeyState.COMPROMISED, A]
    new.close()
