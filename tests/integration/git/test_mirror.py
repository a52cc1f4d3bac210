"""A mirror of a repository on this machine: what moves its revision, what holds it, and what it costs."""

import shutil
from pathlib import Path

import pytest

from fleet.child import InlineWorkers, Job
from fleet.errors import ChildCrashed, RevisionMissing
from fleet.git.order import FETCH
from fleet.git.repository import remote_key, store_name
from fleet.git.tree import open_tree
from tests.harness.gitrepo import GitRepository
from tests.integration.git.conftest import Site, make_document, open_site


async def test_a_branch_is_followed_and_readable(tmp_path: Path, repository: GitRepository) -> None:
    """Each commit becomes the document's revision, is told once, and its files are in the clone."""
    first = repository.commit(files={"a.yaml": "a: 1\n"})
    async with open_site(tmp_path / "store", [make_document("config", repository.path)], InlineWorkers()) as site:
        assert site.revision() == ""
        await site.mirror.sync()
        assert (site.revision(), site.mirror.snapshot("config").ref, site.error()) == (first, "refs/heads/main", "")
        second = repository.commit(files={"a.yaml": "a: 2\n"})
        await site.mirror.sync()
        snapshot = site.mirror.snapshot("config")
        assert open_tree(snapshot.store, first).read("a.yaml") == b"a: 1\n"
        assert open_tree(snapshot.store, second).read("a.yaml") == b"a: 2\n"
        assert [told.revision for told in site.told] == [first, second]


async def test_an_idle_poll_only_lists_refs(tmp_path: Path, repository: GitRepository) -> None:
    """When nothing moved, a poll is one job that lists refs, and nobody is told; only the time of the check moves."""
    repository.commit()
    async with open_site(tmp_path / "store", [make_document("config", repository.path)], InlineWorkers()) as site:
        await site.mirror.sync()
        site.workers.take()
        before = site.mirror.snapshot("config").checked_at
        await site.mirror.sync()
        assert site.workers.take() == ["list_refs"]
        assert len(site.told) == 1
        after = site.mirror.snapshot("config").checked_at
        assert before is not None
        assert after is not None
        assert after > before


async def test_documents_share_one_fetch(tmp_path: Path, repository: GitRepository) -> None:
    """Branch, tag, version range and commit of one remote are four documents, one listing and one fetch."""
    old = repository.commit()
    repository.tag("v1.2.0", message="annotated")
    repository.tag("v1.10.0-rc.1")
    tagged = repository.commit()
    repository.tag("v1.9.0")
    repository.tag("v2.0.0")
    tip = repository.commit()
    documents = [
        make_document("branch", repository.path),
        make_document("tag", repository.path, ref={"tag": "v1.2.0"}),
        make_document("semver", repository.path, ref={"semver": "^1.2"}),
        make_document("commit", repository.path, ref={"commit": old}),
    ]
    assert len({remote_key(document) for document in documents}) == 1
    async with open_site(tmp_path / "store", documents, InlineWorkers()) as site:
        await site.mirror.sync()
        assert [site.revision(document.name) for document in documents] == [tip, old, tagged, old]
        assert site.mirror.snapshot("semver").ref == "refs/tags/v1.9.0"
        assert site.workers.take().count("fetch") == 1
        await site.mirror.sync()
        assert site.workers.take() == ["list_refs"]


async def test_a_missing_branch_keeps_what_is_in_force(tmp_path: Path, repository: GitRepository) -> None:
    """A branch that goes is an error with the names there are; the revision stays, and follows when it is back."""
    first = repository.commit()
    repository.git("branch", "live")
    document = make_document("config", repository.path, ref={"branch": "live"})
    async with open_site(tmp_path / "store", [document], InlineWorkers()) as site:
        await site.mirror.sync()
        repository.git("branch", "-D", "live")
        await site.mirror.sync()
        assert site.error() == "RevisionMissing: there is no branch live in the remote; it has main"
        assert site.revision() == first
        repository.git("branch", "life")
        await site.mirror.sync()
        assert "did you mean life?" in site.error()
        repository.git("branch", "live", repository.commit())
        await site.mirror.sync()
        assert (site.error(), site.revision()) == ("", repository.head())


async def test_an_empty_remote_is_an_error_until_something_is_pushed(tmp_path: Path, repository: GitRepository) -> None:
    """A repository without commits is named as empty."""
    async with open_site(tmp_path / "store", [make_document("config", repository.path)], InlineWorkers()) as site:
        await site.mirror.sync()
        assert "the remote is empty: push a commit" in site.error()
        first = repository.commit()
        await site.mirror.sync()
        assert (site.error(), site.revision()) == ("", first)


async def test_no_repository_is_an_error_until_there_is_one(tmp_path: Path) -> None:
    """A path that does not exist, or is no repository, is named."""
    path = tmp_path / "repo"
    async with open_site(tmp_path / "store", [make_document("config", path)], InlineWorkers()) as site:
        await site.mirror.sync()
        assert site.error() == f"RepositoryNotFound: there is no directory {path}"
        path.mkdir()
        await site.mirror.sync()
        assert f"{path} is not a Git repository" in site.error()
        first = GitRepository(path).commit()
        await site.mirror.sync()
        assert (site.error(), site.revision()) == ("", first)


async def test_rewritten_history_is_held(tmp_path: Path, repository: GitRepository) -> None:
    """A tip that does not contain the good commit is not taken, costs no fetch per poll, and is lifted by restoring."""
    base = repository.commit()
    good = repository.commit(files={"a": "1"})
    async with open_site(tmp_path / "store", [make_document("config", repository.path)], InlineWorkers()) as site:
        await site.mirror.sync()
        repository.git("reset", "-q", "--hard", base)
        repository.commit(files={"a": "2"})
        await site.mirror.sync()
        assert site.error().startswith("HistoryRewritten: branch main was rewritten")
        assert site.revision() == good
        site.workers.take()
        await site.mirror.sync()
        assert site.workers.take() == ["list_refs"]
        repository.git("reset", "-q", "--hard", good)
        await site.mirror.sync()
        assert (site.error(), site.revision()) == ("", good)


async def test_a_shortened_branch_is_held_too(tmp_path: Path, repository: GitRepository) -> None:
    """A reset to an ancestor rewrites history as well."""
    base = repository.commit()
    good = repository.commit()
    async with open_site(tmp_path / "store", [make_document("config", repository.path)], InlineWorkers()) as site:
        await site.mirror.sync()
        repository.git("reset", "-q", "--hard", base)
        await site.mirror.sync()
        assert "HistoryRewritten" in site.error()
        assert site.revision() == good


async def test_rewrites_are_followed_where_allowed(tmp_path: Path, repository: GitRepository) -> None:
    """Of two documents on one branch only the one that allows rewrites moves; allowing it later moves the other."""
    base = repository.commit()
    good = repository.commit(files={"a": "1"})
    strict = make_document("strict", repository.path)
    loose = make_document("loose", repository.path, allowRewrites=True)
    async with open_site(tmp_path / "store", [strict, loose], InlineWorkers()) as site:
        await site.mirror.sync()
        repository.git("reset", "-q", "--hard", base)
        new = repository.commit(files={"a": "2"})
        await site.mirror.sync()
        assert (site.revision("strict"), site.revision("loose")) == (good, new)
        site.mirror.follow([make_document("strict", repository.path, allowRewrites=True), loose])
        await site.mirror.sync()
        assert (site.revision("strict"), site.error("strict")) == (new, "")


async def test_a_moved_tag_is_held(tmp_path: Path, repository: GitRepository) -> None:
    """A tag that was moved off its commit is a rewrite; another tag in a range is not."""
    base = repository.commit()
    good = repository.commit()
    repository.tag("v1.0.0")
    document = make_document("config", repository.path, ref={"semver": "1.x"})
    async with open_site(tmp_path / "store", [document], InlineWorkers()) as site:
        await site.mirror.sync()
        repository.git("tag", "-f", "v1.0.0", base)
        await site.mirror.sync()
        assert "HistoryRewritten: tag v1.0.0 was moved" in site.error()
        assert site.revision() == good
        repository.git("tag", "v1.0.1", base)
        await site.mirror.sync()
        assert (site.revision(), site.error()) == (base, "")


async def test_another_ref_is_no_rewrite(tmp_path: Path, repository: GitRepository) -> None:
    """Editing the document to follow an unrelated branch takes it; a branch that is not there keeps the old revision."""
    main = repository.commit()
    repository.git("checkout", "-q", "--orphan", "other")
    other = repository.commit(files={"b": "1"})
    async with open_site(tmp_path / "store", [make_document("config", repository.path)], InlineWorkers()) as site:
        await site.mirror.sync()
        site.mirror.follow([make_document("config", repository.path, ref={"branch": "nope"})])
        await site.mirror.sync()
        assert (site.revision(), "RevisionMissing" in site.error()) == (main, True)
        site.mirror.follow([make_document("config", repository.path, ref={"branch": "other"})])
        await site.mirror.sync()
        assert (site.revision(), site.error()) == (other, "")


async def test_branch_names_may_stand_in_each_others_way(tmp_path: Path, repository: GitRepository) -> None:
    """A branch `a` that is replaced by `a/b` is followed: old names are dropped before new ones are written."""
    repository.commit()
    repository.git("branch", "a")
    async with open_site(
        tmp_path / "store", [make_document("config", repository.path, ref={"branch": "a"})], InlineWorkers()
    ) as site:
        await site.mirror.sync()
        repository.git("branch", "-D", "a")
        tip = repository.commit()
        repository.git("branch", "a/b")
        site.mirror.follow([make_document("config", repository.path, ref={"branch": "a/b"})])
        await site.mirror.sync()
        assert (site.revision(), site.error()) == (tip, "")


async def test_a_commit_that_no_ref_leads_to_is_searched_once(tmp_path: Path, repository: GitRepository) -> None:
    """A commit nobody has is an error that fetches again only when the remote's refs changed."""
    repository.commit()
    document = make_document("config", repository.path, ref={"commit": "1" * 40})
    async with open_site(tmp_path / "store", [document], InlineWorkers()) as site:
        await site.mirror.sync()
        assert "RevisionMissing: commit 1111111 is not in the remote" in site.error()
        assert site.workers.take().count("fetch") == 1
        await site.mirror.sync()
        assert "fetch" not in site.workers.take()
        repository.commit()
        await site.mirror.sync()
        assert site.workers.take().count("fetch") == 1


async def test_a_restart_needs_no_remote(tmp_path: Path, repository: GitRepository) -> None:
    """With the remote gone, the last good revision is known from the store, and the remote's absence is the error."""
    good = repository.commit(files={"a": "1"})
    documents = [make_document("config", repository.path)]
    async with open_site(tmp_path / "store", documents, InlineWorkers()) as site:
        await site.mirror.sync()
    shutil.rmtree(repository.path)
    async with open_site(tmp_path / "store", documents, InlineWorkers()) as site:
        await site.mirror.sync()
        assert site.revision() == good
        assert "RepositoryNotFound" in site.error()
        assert [(told.revision, told.error is None) for told in site.told] == [(good, True), (good, False)]


async def test_a_restart_remembers_what_was_held(tmp_path: Path, repository: GitRepository) -> None:
    """History rewritten before a restart is still held after it."""
    base = repository.commit()
    good = repository.commit(files={"a": "1"})
    documents = [make_document("config", repository.path)]
    async with open_site(tmp_path / "store", documents, InlineWorkers()) as site:
        await site.mirror.sync()
    repository.git("reset", "-q", "--hard", base)
    repository.commit(files={"a": "2"})
    async with open_site(tmp_path / "store", documents, InlineWorkers()) as site:
        await site.mirror.sync()
        assert (site.revision(), "HistoryRewritten" in site.error()) == (good, True)


def _truncate(store: Path) -> None:
    for pack in (store / "current").glob("objects/pack/*.pack"):
        pack.chmod(0o600)
        pack.write_bytes(pack.read_bytes()[:40])


def _forget_objects(store: Path) -> None:
    shutil.rmtree(store / "current" / "objects" / "pack")


def _break_config(store: Path) -> None:
    (store / "current" / "HEAD").unlink()


def _break_notes(store: Path) -> None:
    (store / "current" / "good.json").write_text("{")


def _lose_clone(store: Path) -> None:
    shutil.rmtree((store / "current").resolve())


@pytest.mark.parametrize("damage", [_truncate, _forget_objects, _break_config, _break_notes, _lose_clone])
async def test_a_damaged_clone_is_fetched_anew_at_start(
    tmp_path: Path, repository: GitRepository, damage: object
) -> None:
    """Whatever happened to the clone while the hub was down, the next poll has a good one."""
    good = repository.commit(files={"a": "1"})
    documents = [make_document("config", repository.path)]
    async with open_site(tmp_path / "store", documents, InlineWorkers()) as site:
        await site.mirror.sync()
    assert callable(damage)
    damage(tmp_path / "store")
    async with open_site(tmp_path / "store", documents, InlineWorkers()) as site:
        await site.mirror.sync()
        assert (site.revision(), site.error()) == (good, "")
        assert open_tree(site.mirror.snapshot("config").store, good).read("a") == b"1"


@pytest.mark.parametrize("damage", [_truncate, _forget_objects, _break_config, _lose_clone])
async def test_a_damaged_clone_is_fetched_anew_while_running(
    tmp_path: Path, repository: GitRepository, damage: object
) -> None:
    """A fetch into a broken clone replaces it in the same poll; what was good stays good."""
    first = repository.commit(files={"a": "1"})
    async with open_site(tmp_path / "store", [make_document("config", repository.path)], InlineWorkers()) as site:
        await site.mirror.sync()
        assert callable(damage)
        damage(tmp_path / "store")
        second = repository.commit(files={"a": "2"})
        await site.mirror.sync()
        assert (site.revision(), site.error()) == (second, "")
        assert await site.mirror.contains(first, second)
        assert open_tree(site.mirror.snapshot("config").store, first).read("a") == b"1"


async def test_a_reader_may_distrust_the_clone(tmp_path: Path, repository: GitRepository) -> None:
    """After a reader's complaint the next poll replaces the clone although nothing moved."""
    good = repository.commit(files={"a": "1"})
    async with open_site(tmp_path / "store", [make_document("config", repository.path)], InlineWorkers()) as site:
        await site.mirror.sync()
        _truncate(tmp_path / "store")
        site.mirror.distrust()
        await site.mirror.sync()
        assert (site.revision(), site.error()) == (good, "")
        assert open_tree(site.mirror.snapshot("config").store, good).read("a") == b"1"


async def test_kept_commits_survive_a_new_clone(tmp_path: Path, repository: GitRepository) -> None:
    """A commit in force somewhere is fetched into a replaced clone even when it is in no followed branch."""
    repository.commit()
    repository.git("checkout", "-q", "-b", "side")
    side = repository.commit(files={"s": "1"})
    repository.git("checkout", "-q", "main")
    async with open_site(tmp_path / "store", [make_document("config", repository.path)], InlineWorkers()) as site:
        await site.mirror.sync()
        await site.mirror.keep([side])
        await site.mirror.sync()
        assert await site.mirror.find(side[:8]) == side
        _truncate(tmp_path / "store")
        site.mirror.distrust()
        await site.mirror.sync()
        assert await site.mirror.find(side[:8]) == side


async def test_questions_about_history(tmp_path: Path, repository: GitRepository) -> None:
    """Ancestry, prefixes and descriptions are answered from the clone; what nobody knows is RevisionMissing."""
    first = repository.commit("Add the shop\n\nBecause.")
    second = repository.commit("x" * 300)
    async with open_site(tmp_path / "store", [make_document("config", repository.path)], InlineWorkers()) as site:
        with pytest.raises(RevisionMissing, match="not been fetched"):
            await site.mirror.find(first)
        await site.mirror.sync()
        mirror = site.mirror
        assert await mirror.contains(first, second)
        assert not await mirror.contains(second, first)
        assert await mirror.find(first[:7].upper()) == first
        infos = await mirror.describe([second, "0" * 40, first])
        assert [(info.revision, info.author, info.subject) for info in infos] == [
            (second, "Ada", "x" * 200),
            (first, "Ada", "Add the shop"),
        ]
        for wrong in ("0" * 12, "abc", "main", "../.."):
            with pytest.raises(RevisionMissing):
                await mirror.find(wrong)
        with pytest.raises(RevisionMissing):
            await mirror.contains("0" * 40, second)


async def test_a_crashed_worker_is_an_error_state(tmp_path: Path, repository: GitRepository) -> None:
    """A worker that dies in a fetch is shown and leaves the revision; the next poll goes on."""
    first = repository.commit()
    async with open_site(tmp_path / "store", [make_document("config", repository.path)], InlineWorkers()) as site:
        await site.mirror.sync()

        def die(job: Job) -> None:
            if job == FETCH:
                raise ChildCrashed("the fetch worker died (SIGKILL)")

        site.workers.before = die
        second = repository.commit()
        await site.mirror.sync()
        assert (site.revision(), site.error()) == (first, "ChildCrashed: the fetch worker died (SIGKILL)")
        site.workers.before = lambda job: None
        await site.mirror.sync()
        assert (site.revision(), site.error()) == (second, "")


async def test_documents_come_and_go(tmp_path: Path, repository: GitRepository) -> None:
    """A document that is no longer followed has no snapshot; one that comes back is known at once from the store."""
    good = repository.commit()
    one, two = make_document("one", repository.path), make_document("two", repository.path)
    async with open_site(tmp_path / "store", [one, two], InlineWorkers()) as site:
        await site.mirror.sync()
        site.mirror.follow([one])
        with pytest.raises(KeyError):
            site.mirror.snapshot("two")
        site.mirror.follow([one, two])
        assert site.revision("two") == good
        site.mirror.follow([one])
        await site.mirror.sync()
        assert site.revision("one") == good
    async with open_site(tmp_path / "store", [one], InlineWorkers()) as site:
        await site.mirror.sync()
        site.mirror.follow([one, two])
        assert site.revision("two") == good


def test_remotes_are_told_apart_by_address_and_credentials(tmp_path: Path) -> None:
    """Equal keys have equal directories, others have others, and a directory's name tells the repository."""
    plain = make_document("a", "https://git.example.com/team/config.git")
    same = make_document("b", "https://git.example.com/team/config.git/", ref={"branch": "x"})
    other = make_document("c", "https://git.example.com/team/config.git", auth={"tokenFile": Path("/keys/token")})
    assert remote_key(plain) == remote_key(same) != remote_key(other)
    assert store_name(plain) == store_name(same) != store_name(other)
    assert store_name(plain).startswith("config.git-")


def _count_packs(site: Site) -> int:
    return len(list(Path(site.mirror.snapshot("config").store).glob("objects/pack/*.pack")))


async def test_packs_are_merged(tmp_path: Path, repository: GitRepository) -> None:
    """Many small fetches do not leave ever more packs, and nothing is lost by merging them."""
    first = repository.commit(files={"a": "0"})
    async with open_site(tmp_path / "store", [make_document("config", repository.path)], InlineWorkers()) as site:
        await site.mirror.sync()
        for number in range(53):
            repository.commit(files={"a": f"{number}"})
            await site.mirror.sync()
        assert _count_packs(site) < 10
        assert open_tree(site.mirror.snapshot("config").store, first).read("a") == b"0"
        assert await site.mirror.contains(first, site.revision())


async def test_what_a_killed_writer_left_is_removed(tmp_path: Path, repository: GitRepository) -> None:
    """Locks, half packs and half clones of a killed worker stand in nobody's way."""
    repository.commit()
    async with open_site(tmp_path / "store", [make_document("config", repository.path)], InlineWorkers()) as site:
        await site.mirror.sync()
        clone = tmp_path / "store" / "current"
        (clone / "refs/fleet/tip/heads/main.lock").touch()
        (clone / "objects/pack/pack_git2_abc123").write_bytes(b"half")
        (clone / "objects/pack/pack-1234.pack").write_bytes(b"PACK")
        (tmp_path / "store" / "clone-7").mkdir()
        tip = repository.commit()
        await site.mirror.sync()
        assert (site.revision(), site.error()) == (tip, "")
        assert not list(clone.glob("objects/pack/pack_git2_*"))
        assert not list(clone.glob("objects/pack/pack-1234.*"))
        assert not (tmp_path / "store" / "clone-7").exists()


async def test_rewritten_history_is_held_even_when_the_clone_is_lost(tmp_path: Path, repository: GitRepository) -> None:
    """A clone damaged while the history was rewritten: what was good is not there any more, and is not replaced."""
    base = repository.commit()
    good = repository.commit(files={"a": "1"})
    documents = [make_document("config", repository.path)]
    async with open_site(tmp_path / "store", documents, InlineWorkers()) as site:
        await site.mirror.sync()
    repository.git("reset", "-q", "--hard", base)
    repository.commit(files={"a": "2"})
    _truncate(tmp_path / "store")
    for _ in range(2):
        async with open_site(tmp_path / "store", documents, InlineWorkers()) as site:
            await site.mirror.sync()
            assert (site.revision(), "HistoryRewritten" in site.error()) == (good, True)


async def test_a_kept_commit_that_is_gone_costs_nothing(tmp_path: Path, repository: GitRepository) -> None:
    """A commit that the remote does not have is searched once; idle polls stay one listing."""
    repository.commit()
    async with open_site(tmp_path / "store", [make_document("config", repository.path)], InlineWorkers()) as site:
        await site.mirror.sync()
        await site.mirror.keep(["1" * 40])
        await site.mirror.sync()
        site.workers.take()
        await site.mirror.sync()
        assert site.workers.take() == ["list_refs"]


async def test_a_commit_that_is_not_whole_is_never_in_force(tmp_path: Path, repository: GitRepository) -> None:
    """A remote whose tip names a file that does not exist, or a file where a directory should be, is an error."""
    good = repository.commit(files={"a": "1"})
    async with open_site(tmp_path / "store", [make_document("config", repository.path)], InlineWorkers()) as site:
        await site.mirror.sync()
        blob = repository.blob(b"no directory")
        for tree in (b"100644 a\0" + bytes.fromhex("1" * 40), b"40000 d\0" + bytes.fromhex(blob)):
            written = repository.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=tree)
            broken = repository.git("commit-tree", "-p", good, "-m", "broken", written)
            repository.git("update-ref", "refs/heads/main", broken)
            await site.mirror.sync()
            assert site.revision() == good
            assert site.error().startswith("FetchFailed: ")
        repository.git("update-ref", "refs/heads/main", good)
        await site.mirror.sync()
        assert (site.revision(), site.error()) == (good, "")


async def test_a_lost_commit_is_not_taken_for_a_rewrite(tmp_path: Path, repository: GitRepository) -> None:
    """A clone that silently lost the good commit is replaced; history is judged in the new one."""
    repository.commit(files={"a": "1"})
    async with open_site(tmp_path / "store", [make_document("config", repository.path)], InlineWorkers()) as site:
        await site.mirror.sync()
        forget = tmp_path / "store" / "current" / "objects" / "pack"
        for path in forget.iterdir():
            path.unlink()
        tip = repository.commit(files={"a": "2"})
        await site.mirror.sync()
        assert (site.revision(), site.error()) == (tip, "")
