"""The data directory: private, made once, held by one hub."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from fleet.errors import DataDirectoryInUse, StoreError
from fleet.store.directory import hold_directory

HOLD = """
import sys
from pathlib import Path
from fleet.store.directory import hold_directory
with hold_directory(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def mode(path: Path) -> int:
    """Permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_made_is_private(tmp_path: Path) -> None:
    """Directories have mode 0700 and files 0600, whatever the umask."""
    path = tmp_path / "new" / "data"
    with hold_directory(path) as directory:
        assert {mode(path), mode(directory.git)} == {0o700}
        files = [entry for entry in path.iterdir() if entry.is_file()]
        assert {entry.name for entry in files} == {"lock", "hub.id", "digest.key"}
        assert {mode(entry) for entry in files} == {0o600}
        assert {directory.database.parent, directory.admin_token.parent} == {path}


def test_a_directory_that_was_open_is_closed(tmp_path: Path) -> None:
    """An empty directory made by somebody's mkdir, and a data directory opened later, are taken back to 0700, and told."""
    path = tmp_path / "data"
    path.mkdir()
    for opened in (0o755, 0o750):
        path.chmod(opened)
        with capture_logs() as logs, hold_directory(path):
            assert mode(path) == 0o700
        assert [(entry["log_level"], entry["mode"]) for entry in logs] == [("warning", f"{opened:04o}")]
    with capture_logs() as logs, hold_directory(path):
        assert logs == []


def test_a_directory_with_other_content_is_not_closed(tmp_path: Path) -> None:
    """A directory that holds something else may be others' too: its mode stays, with a warning."""
    path = tmp_path / "shared"
    path.mkdir()
    path.chmod(0o755)
    (path / "notes.txt").write_text("ours, too")
    with capture_logs() as logs, hold_directory(path):
        assert mode(path) == 0o755
    assert [entry["log_level"] for entry in logs] == ["warning"]


def test_identity_and_key_stay(tmp_path: Path) -> None:
    """Hub id and digest key are made with the directory and never change; another directory has others."""
    with hold_directory(tmp_path / "a") as first:
        pass
    with hold_directory(tmp_path / "a") as again:
        assert (again.hub_id, again.digest_key) == (first.hub_id, first.digest_key)
    with hold_directory(tmp_path / "b") as other:
        assert other.hub_id != first.hub_id
        assert other.digest_key != first.digest_key
    assert (len(first.hub_id), len(first.digest_key)) == (16, 32)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """A directory that another hub holds is refused by that hub's process id, and free again when it dies."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DataDirectoryInUse, match=f"process id {holder.pid}; stop it"), hold_directory(tmp_path):
            pass
        holder.kill()
        holder.wait()
        with hold_directory(tmp_path):
            pass


def test_a_second_hub_in_this_process_is_refused(tmp_path: Path) -> None:
    """The directory is held against everybody, this process included."""
    with hold_directory(tmp_path):
        with pytest.raises(DataDirectoryInUse), hold_directory(tmp_path):
            pass
        with pytest.raises(DataDirectoryInUse), hold_directory(tmp_path):
            pass


def test_a_place_that_cannot_be_used(tmp_path: Path) -> None:
    """Where no directory can be made or read, the error names the place and the way out."""
    occupied = tmp_path / "file"
    occupied.write_text("")
    with pytest.raises(StoreError, match="choose another with --data"), hold_directory(occupied):
        pass
    unreadable = tmp_path / "data"
    (unreadable / "hub.id").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"hub\.id"), hold_directory(unreadable):
        pass


def test_a_half_written_key_is_made_anew(tmp_path: Path) -> None:
    """What a crash left of the first start is not taken for a key."""
    tmp_path.joinpath("digest.key.new").write_bytes(b"half")
    with hold_directory(tmp_path) as directory:
        assert len(directory.digest_key) == 32
    (tmp_path / "digest.key").write_bytes(b"")
    with pytest.raises(StoreError, match=r"digest\.key is damaged"), hold_directory(tmp_path):
        pass
