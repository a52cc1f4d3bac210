"""Reading files of a commit: nothing but the object store is touched, nothing outside the tree can be named."""

from pathlib import Path

import pytest

from fleet.errors import PathMissing, RevisionMissing, SourceError, TreeRefused
from fleet.git.tree import REFUSED, EntryKind, Tree, WalkLimits, ids, open_tree
from tests.harness.gitrepo import GitRepository


def _open(repository: GitRepository, revision: str, **options: int) -> Tree:
    return open_tree(str(repository.path), revision, **options)


def test_files_and_directories_are_found_and_read(repository: GitRepository) -> None:
    """A path resolves to its entry, the root is the empty string, and what is not there is None."""
    tree = _open(repository, repository.commit(files={"apps/shop/a.yaml": "a: 1\n", "README.md": "hi"}))
    root, directory, file = tree.resolve(""), tree.resolve("apps/shop"), tree.resolve("apps/shop/a.yaml")
    assert root is not None
    assert root.kind is EntryKind.DIRECTORY
    assert directory is not None
    assert directory.kind is EntryKind.DIRECTORY
    assert file is not None
    assert (file.kind, file.size, file.mode) == (EntryKind.FILE, 5, 0o100644)
    assert tree.read("./apps//shop/a.yaml") == b"a: 1\n"
    assert tree.listing(".") == ["README.md", "apps"]
    assert [tree.resolve(path) for path in ("nope", "apps/nope", "README.md/x", "apps/shop/a.yaml/x")] == [None] * 4


def test_errors_say_what_is_wrong_with_the_question(repository: GitRepository) -> None:
    """Reading what is missing, a directory as a file, or listing a file is refused by name."""
    tree = _open(repository, repository.commit(files={"d/a": "1"}))
    with pytest.raises(PathMissing, match="there is no d/b in revision"):
        tree.read("d/b")
    with pytest.raises(TreeRefused, match="d is a directory"):
        tree.read("d")
    with pytest.raises(TreeRefused, match="d/a is a file"):
        tree.listing("d/a")
    with pytest.raises(PathMissing):
        tree.listing("e")


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "a/..", "a\\b", "a\0b", ".."])
def test_paths_out_of_the_tree_are_refused(repository: GitRepository, path: str) -> None:
    """A path with .., a backslash, NUL or a leading slash is refused before anything is looked up."""
    tree = _open(repository, repository.commit(files={"a/b": "1"}))
    with pytest.raises(TreeRefused):
        tree.resolve(path)
    assert tree.reads == {}


def test_links_are_followed_inside_the_tree(repository: GitRepository) -> None:
    """Links to files, to directories, through other links and to the root resolve as a checkout would show them."""
    repository.write({"base/deep/x.yaml": "x", "base/y.yaml": "y"})
    repository.link("apps/file.yaml", "../base/y.yaml")
    repository.link("apps/dir", "../base/deep/")
    repository.link("apps/chain", "dir")
    repository.link("apps/up", "dir/../y.yaml")  # `..` after a link leads to the parent of its target
    repository.link("apps/whole", "..")
    tree = _open(repository, repository.commit())
    assert tree.read("apps/file.yaml") == b"y"
    assert tree.read("apps/dir/x.yaml") == b"x"
    assert tree.read("apps/chain/x.yaml") == b"x"
    assert tree.read("apps/up") == b"y"
    assert tree.read("apps/whole/base/y.yaml") == b"y"
    assert tree.resolve("apps/dir/nope") is None
    assert tree.resolve("apps/file.yaml/nope") is None


_ZOO = {
    "absolute": ("/etc/passwd", "LinkEscapes"),
    "parent": ("..", "LinkEscapes"),
    "far": ("../../../../etc/passwd", "LinkEscapes"),
    "roundabout": ("d/../../x", "LinkEscapes"),
    "through": ("inner/../../../x", "LinkEscapes"),
    "backslash": ("d\\..\\x", "LinkEscapes"),
    "drive": ("C:\\x", "LinkEscapes"),
    "dangling": ("nowhere", "LinkDangling"),
    "below-file": ("d/f/x", "LinkDangling"),
    "self": ("self", "LinkLoop"),
    "ping": ("pong", "LinkLoop"),
    "pong": ("ping", "LinkLoop"),
    "six": ("five", "LinkLoop"),
    "into-git": (".git/config", "LinkDangling"),
}


@pytest.mark.parametrize("name", _ZOO)
def test_links_that_lead_elsewhere_are_refused(repository: GitRepository, name: str) -> None:
    """Escapes, loops, long chains and links to nothing are each refused by their reason, and never read as absent."""
    repository.write({"d/f": "1"})
    repository.link("inner", "d")
    for link, (target, _) in _ZOO.items():
        repository.link(link, target)
    for link, target in {"five": "four", "four": "three", "three": "two", "two": "one", "one": "d/f"}.items():
        repository.link(link, target)
    tree = _open(repository, repository.commit())
    assert tree.read("five") == b"1"
    with pytest.raises(TreeRefused) as caught:
        tree.resolve(name)
    assert caught.value.reason == _ZOO[name][1]
    with pytest.raises(TreeRefused):
        tree.resolve(f"{name}/below")


def test_a_loop_of_directories_ends_by_depth(repository: GitRepository) -> None:
    """A link to a directory above itself makes a walk end with a refusal and not run for ever."""
    repository.write({"a/f": "1"})
    repository.link("a/again", ".")
    tree = _open(repository, repository.commit())
    with pytest.raises(TreeRefused):
        list(tree.walk("a"))


def test_submodules_are_refused(repository: GitRepository) -> None:
    """A submodule on the way or at the end of a path is named."""
    commit = repository.put_tree({"sub": ("160000", "1" * 40), "f": ("100644", repository.blob(b"1"))})
    tree = _open(repository, commit)
    assert tree.read("f") == b"1"
    for path in ("sub", "sub/x"):
        with pytest.raises(TreeRefused, match="sub is a submodule") as caught:
            tree.resolve(path)
        assert caught.value.reason == "Submodule"


def test_lfs_pointers_are_refused(repository: GitRepository) -> None:
    """The pointer that LFS leaves in place of a file is never taken for the file."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12\n"
    tree = _open(repository, repository.commit(files={"big.yaml": pointer}))
    with pytest.raises(TreeRefused, match="LFS") as caught:
        tree.read("big.yaml")
    assert caught.value.reason == "LfsPointer"


def test_blobs_over_the_limit_are_refused_unread(repository: GitRepository) -> None:
    """The size comes from the object's header; a file over the limit resolves but is not read."""
    tree = _open(repository, repository.commit(files={"big": b"\0" * (2 << 20), "fit": b"x" * 10, "over": b"x" * 11}))
    entry = tree.resolve("big")
    assert entry is not None
    assert entry.size == 2 << 20
    with pytest.raises(TreeRefused) as caught:
        tree.read("big")
    assert caught.value.reason == "BlobTooLarge"
    small = _open(repository, tree.revision, most_blob_bytes=10)
    assert small.read("fit") == b"x" * 10
    with pytest.raises(TreeRefused):
        small.read("over")


@pytest.mark.parametrize("name", ["a\\b", "..", "bad\\..\\x"])
def test_names_that_are_paths_elsewhere_are_refused(repository: GitRepository, name: str) -> None:
    """A tree entry whose name would be a path on some system is refused."""
    commit = repository.put_tree({name: ("100644", repository.blob(b"1"))})
    tree = _open(repository, commit)
    with pytest.raises(TreeRefused):
        tree.listing("")


def test_names_that_are_not_utf8_are_refused(repository: GitRepository) -> None:
    """A file name that no YAML document could name is refused."""
    blob = repository.blob(b"1")
    tree_id = repository.git("mktree", "-z", stdin=f"100644 blob {blob}\t".encode() + b"\xff\xfe\0")
    tree = _open(repository, repository.git("commit-tree", "-m", "raw", tree_id))
    with pytest.raises(TreeRefused, match="UTF-8"):
        tree.listing("")


def test_walk_yields_every_file_once_and_obeys_its_limits(repository: GitRepository) -> None:
    """A walk is in order, follows links and refuses too many files or levels."""
    repository.write({"a/2": "2", "a/1": "1", "a/b/3": "3", "z": "z"})
    repository.link("a/link", "../z")
    tree = _open(repository, repository.commit())
    assert [path for path, _ in tree.walk("a")] == ["a/1", "a/2", "a/b/3", "a/link"]
    assert [path for path, _ in tree.walk("")][-1] == "z"
    with pytest.raises(TreeRefused, match="more than 2 files"):
        list(tree.walk("a", WalkLimits(most_files=2)))
    with pytest.raises(TreeRefused, match="nested"):
        list(tree.walk("a", WalkLimits(most_depth=0)))


def test_reads_are_recorded_and_compared_at_another_revision(repository: GitRepository) -> None:
    """Reads hold every lookup, found or missing; `ids` tells at another revision whether any answer changed."""
    repository.write({"app/a": "1", "base/x": "x", "other": "o"})
    repository.link("app/link", "../base/x")
    first = repository.commit()
    tree = _open(repository, first)
    tree.read("app/a")
    tree.read("app/link")
    tree.resolve("app/missing")
    assert set(tree.reads) == {"app/a", "app/link", "app/missing"}
    assert tree.reads["app/missing"] == ""
    path, paths = str(repository.path), list(tree.reads)
    second = repository.commit(files={"other": "changed"})
    assert ids(path, second, paths) == list(tree.reads.values())
    third = repository.commit(files={"base/x": "changed", "app/missing": "now"})
    changed = dict(zip(paths, ids(path, third, paths), strict=True))
    assert [name for name in paths if changed[name] != tree.reads[name]] == ["app/link", "app/missing"]
    (repository.path / "app" / "link").unlink()
    repository.link("app/link", "/etc/passwd")
    assert ids(path, repository.commit(), ["app/link"]) == [REFUSED]


def test_equal_content_behind_another_link_is_the_same_read(repository: GitRepository) -> None:
    """What counts is what a path leads to, not how."""
    repository.write({"a": "same", "b": "same"})
    repository.link("link", "a")
    first = repository.commit()
    (repository.path / "link").unlink()
    repository.link("link", "b")
    second = repository.commit()
    path = str(repository.path)
    assert ids(path, first, ["link"]) == ids(path, second, ["link"])


def test_a_revision_that_is_not_there_is_named(repository: GitRepository) -> None:
    """A missing commit, and the id of something that is not a commit, are missing revisions."""
    repository.commit(files={"a": "1"})
    for revision in ("0" * 40, repository.git("rev-parse", "HEAD^{tree}")):
        with pytest.raises(RevisionMissing):
            _open(repository, revision)


def test_a_damaged_clone_is_a_source_error(repository: GitRepository, tmp_path: Path) -> None:
    """A directory that is no repository, and an object that is truncated, are errors of the clone, not of the app."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError) as caught:
        open_tree(str(tmp_path / "empty"), "0" * 40)
    assert caught.value.reason == "CloneDamaged"
    tree = _open(repository, repository.commit(files={"a": "1"}))
    oid = repository.git("rev-parse", "HEAD:a")
    damaged = repository.path / ".git" / "objects" / oid[:2] / oid[2:]
    damaged.chmod(0o644)
    damaged.write_bytes(b"rubbish")
    with pytest.raises(SourceError) as caught:
        tree.read("a")
    assert caught.value.reason == "CloneDamaged"
