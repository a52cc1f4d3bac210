"""Rendering from real repositories, in this process and in limited children."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fleet.child import InlineWorkers, Job, Limits, ProcessWorkers, Workers
from fleet.errors import ChildCrashed, ChildError, PathMissing, Quarantined, RenderError, RevisionMissing, TreeRefused
from fleet.render.renderer import CachingRenderer, Rendered, RenderInput
from fleet.settings import Settings
from tests.integration.render.repository import Bare, Link, Submodule

KEY = b"k" * 16
CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\n"


class CountingWorkers:
    """Counts the jobs that reach the workers behind it."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self.jobs: Counter[str] = Counter()

    async def call(self, job: Job, payload: bytes, *, deadline_s: float) -> bytes:
        self.jobs[job.function] += 1
        await asyncio.sleep(0)
        return await self._workers.call(job, payload, deadline_s=deadline_s)


class Setting:
    """A repository and a renderer that reads it."""

    def __init__(self, tmp_path: Path, workers: Workers, kustomize: str = "", **more: Any) -> None:
        self.bare = Bare(tmp_path / "repository.git")
        self.workers = CountingWorkers(workers)
        settings = Settings(data=tmp_path / "data", kustomize=kustomize)
        self.renderer = CachingRenderer(self.workers, settings, **more)

    def input(self, files: dict[str, str], path: str = "app", **more: Any) -> RenderInput:
        """Commit files and return the input that renders a path of them."""
        revision = self.bare.commit(files)
        return RenderInput(repository=self.bare.path, revision=revision, path=path, digest_key=KEY, **more)

    async def render(self, files: dict[str, str], path: str = "app", **more: Any) -> Rendered:
        """Commit files and render a path of them."""
        return await self.renderer.render(self.input(files, path, **more))


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    """Return a setting that renders in this process."""
    return Setting(tmp_path, InlineWorkers())


@pytest.fixture
async def processes() -> AsyncIterator[ProcessWorkers]:
    """Return limited child processes."""
    workers = ProcessWorkers({"render": Limits(size=1)})
    try:
        yield workers
    finally:
        await workers.close()


async def test_plain_directory(setting: Setting) -> None:
    """A directory of YAML becomes manifests in key order."""
    rendered = await setting.render(
        {"app/b.yaml": CONFIG % "b", "app/sub/a.yml": CONFIG % "a", "other/x.yaml": "["}, namespace="team"
    )
    assert [(str(m.key), str(m.origin)) for m in rendered.manifests] == [
        ("ConfigMap team/a", "app/sub/a.yml:1"),
        ("ConfigMap team/b", "app/b.yaml:1"),
    ]
    assert len(rendered.digest) == 32


async def test_in_child_processes(tmp_path: Path, processes: ProcessWorkers, kustomize: str) -> None:
    """Children give what this process gives: manifests, flags, problems, Kustomize output."""
    files = {
        "app/x.yaml": CONFIG % "x"
        + "  annotations: {fleet/prune: disabled, argocd.argoproj.io/sync-wave: '3'}\ndata: {r: '${R}'}\n",
        "built/kustomization.yaml": "resources: [../app/x.yaml]\nnamePrefix: p-\n",
        "broken/x.yaml": "a: [\n",
    }
    answers = []
    for name, workers in (("a", processes), ("b", InlineWorkers())):
        (tmp_path / name).mkdir()
        setting = Setting(tmp_path / name, workers, kustomize)
        plain = await setting.render(files, substitute=True, variables=(("R", "6"),))
        built = await setting.render(files, "built")
        with pytest.raises(RenderError) as broken:
            await setting.render(files, "broken")
        with pytest.raises(PathMissing) as missing:
            await setting.render(files, "nope")
        answers.append((plain, built, broken.value.problems, broken.value.reason, str(missing.value)))
    assert answers[0] == answers[1]
    plain, built, *_ = answers[0]
    assert (plain.manifests[0].flags.prune, plain.manifests[0].flags.wave) == (False, 3)
    assert built.manifests[0].key.name == "p-x"


async def test_unrelated_commit_is_free(setting: Setting) -> None:
    """A commit that touches nothing an app reads gives the same object without a render."""
    files = {"app/x.yaml": CONFIG % "x", "other/y.yaml": "1"}
    first = await setting.render(files)
    again = await setting.render({**files, "other/y.yaml": "2", "new.txt": ""})
    assert again is first
    assert setting.workers.jobs == {"render": 1, "check": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"app/x.yaml": CONFIG % "yy"},
        {"app/z.yaml": CONFIG % "z"},
        {"app/kustomization.yaml": "resources: [x.yaml]\n"},
        {"app/linked.yaml": Link("../other/z.yaml")},
        {"other/y.yaml": CONFIG % "changed"},
    ],
)
async def test_related_commit_renders(tmp_path: Path, kustomize: str, change: dict[str, str]) -> None:
    """Any change to what was read, through a link as well, renders again."""
    setting = Setting(tmp_path, InlineWorkers(), kustomize)
    files = {
        "app/x.yaml": CONFIG % "x",
        "app/y.yaml": Link("../other/y.yaml"),
        "other/y.yaml": CONFIG % "y1",
        "other/z.yaml": CONFIG % "z2",
    }
    first = await setting.render(files)
    again = await setting.render({**files, **change})
    assert again is not first
    assert again.digest != first.digest or "app/kustomization.yaml" in change


async def test_reads_of_a_build(tmp_path: Path, kustomize: str) -> None:
    """A build depends on its closure alone: a neighbour's change is free, a new kustomization.yml is not."""
    setting = Setting(tmp_path, InlineWorkers(), kustomize)
    files = {
        "app/kustomization.yaml": "resources: [../base]\n",
        "base/kustomization.yaml": "resources: [x.yaml]\n",
        "base/x.yaml": CONFIG % "x",
    }
    first = await setting.render(files)
    assert await setting.render({**files, "app/README.md": "hello", "base/unused.yaml": "["}) is first
    assert await setting.render({**files, "base/x.yaml": CONFIG % "y"}) is not first
    with pytest.raises(RenderError, match="keep one"):
        await setting.render({**files, "base/kustomization.yml": ""})


async def test_another_tool_builds_again(tmp_path: Path, kustomize: str) -> None:
    """A build by one binary is never taken for another's."""
    tool = tmp_path / "kustomize"
    tool.write_text(f'#!/bin/sh\nexec {kustomize} "$@"\n')
    tool.chmod(0o755)
    setting = Setting(tmp_path, InlineWorkers(), str(tool))
    files = {"app/kustomization.yaml": "resources: [x.yaml]\n", "app/x.yaml": CONFIG % "x"}
    first = await setting.render(files)
    tool.write_text(f'#!/bin/sh\n# newer\nexec {kustomize} "$@"\n')
    again = await setting.render({**files, "other": ""})
    assert again is not first
    assert again.digest == first.digest


async def test_concurrent_callers_share_one_render(setting: Setting) -> None:
    """Equal requests at one time are one render, and a hundred apps are one look-up at the next commit."""
    files = {f"apps/{n}/x.yaml": CONFIG % f"x{n}" for n in range(20)}
    inputs = [setting.input(files, f"apps/{n}") for n in range(20)]

    async def render_all(inputs: list[RenderInput]) -> list[Rendered]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(setting.renderer.render(i)) for i in inputs]
        return [task.result() for task in tasks]

    first = await render_all(inputs * 3)
    assert setting.workers.jobs == {"render": 20, "check": first and setting.workers.jobs["check"]}
    setting.workers.jobs.clear()
    revision = setting.bare.commit({**files, "README": ""})
    again = await render_all([replace(i, revision=revision) for i in inputs])
    assert [found is known for found, known in zip(again, first, strict=False)] == [True] * 20
    assert setting.workers.jobs == {"check": 1}


async def test_cancelled_caller_hands_over(setting: Setting) -> None:
    """When the caller at work is cancelled, the next one in line renders."""
    i = setting.input({"app/x.yaml": CONFIG % "x"})
    async with asyncio.TaskGroup() as group:
        first = group.create_task(setting.renderer.render(i))
        second = group.create_task(setting.renderer.render(i))
        await asyncio.sleep(0)
        first.cancel()
    assert first.cancelled()
    assert len(second.result().manifests) == 1


async def test_variables_that_do_not_matter(setting: Setting) -> None:
    """Clusters that differ only in what the app never asks for share one render."""
    files = {"app/x.yaml": CONFIG % "x" + "data: {a: '${A}', b: '${B:-none}'}\n"}
    i = setting.input(files, substitute=True, variables=(("A", "1"), ("CLUSTER", "one")))
    first = await setting.renderer.render(i)
    assert await setting.renderer.render(replace(i, variables=(("CLUSTER", "two"), ("A", "1")))) is first
    other = await setting.renderer.render(replace(i, variables=(("A", "1"), ("B", "2"))))
    assert other is not first
    assert await setting.renderer.render(replace(i, variables=(("A", "1"), ("C", "2")))) is first
    assert setting.workers.jobs["render"] == 2
    plain = replace(i, substitute=False)
    assert await setting.renderer.render(plain) is await setting.renderer.render(replace(plain, variables=()))


async def test_inputs_that_matter(setting: Setting) -> None:
    """Namespace, created namespace and digest key are part of the input."""
    i = setting.input({"app/x.yaml": CONFIG % "x"})
    found = [
        await setting.renderer.render(replace(i, **more))
        for more in ({}, {"namespace": "a"}, {"namespace": "a", "create_namespace": True}, {"digest_key": b"o" * 16})
    ]
    assert len({rendered.digest for rendered in found}) == 4


async def test_failure_is_remembered(setting: Setting) -> None:
    """A broken revision is rendered once, however many clusters ask."""
    i = setting.input({"app/x.yaml": "a: [\n"})
    for _ in range(3):
        with pytest.raises(RenderError):
            await setting.renderer.render(i)
    assert setting.workers.jobs == {"render": 1}


async def test_missing_tool_is_asked_for_again(tmp_path: Path) -> None:
    """What the machine lacks is looked for at every try, since no commit brings it."""
    setting = Setting(tmp_path, InlineWorkers(), str(tmp_path / "none"))
    i = setting.input({"app/kustomization.yaml": "resources: [x.yaml]\n", "app/x.yaml": CONFIG % "x"})
    for _ in range(2):
        with pytest.raises(RenderError, match="not found"):
            await setting.renderer.render(i)
    assert setting.workers.jobs["render"] == 2


class DyingWorkers:
    """Workers whose processes die of every input."""

    async def call(self, job: Job, payload: bytes, *, deadline_s: float) -> bytes:
        raise ChildCrashed("the render worker died (SIGKILL)")


async def test_a_killer_is_tried_once(tmp_path: Path) -> None:
    """An input that kills a worker is not tried again for every cluster's variables."""
    setting = Setting(tmp_path, DyingWorkers())
    i = setting.input({"app/x.yaml": CONFIG % "x"}, substitute=True)
    with pytest.raises(ChildCrashed):
        await setting.renderer.render(i)
    with pytest.raises(Quarantined, match="SIGKILL"):
        await setting.renderer.render(replace(i, variables=(("A", "1"),)))
    assert setting.workers.jobs == {"render": 1}
    with pytest.raises(ChildCrashed):
        await setting.renderer.render(replace(i, revision="2" * 40))


async def test_clusters_with_other_values_do_not_wait(setting: Setting) -> None:
    """Once an app's variables are known, clusters with different values render side by side, equal ones together."""
    i = setting.input({"app/x.yaml": CONFIG % "x" + "data: {a: '${A}'}\n"}, substitute=True, variables=(("A", "0"),))
    await setting.renderer.render(i)
    async with asyncio.TaskGroup() as group:
        inputs = [replace(i, variables=(("A", str(n % 3)), ("CLUSTER", str(n)))) for n in range(12)]
        tasks = [group.create_task(setting.renderer.render(other)) for other in inputs]
    assert len({task.result().digest for task in tasks}) == 3
    assert setting.workers.jobs["render"] == 3


async def test_revert_is_free(setting: Setting) -> None:
    """Going back to what was rendered before costs a look-up."""
    first = await setting.render({"app/x.yaml": CONFIG % "x"})
    await setting.render({"app/x.yaml": CONFIG % "other"})
    assert await setting.render({"app/x.yaml": CONFIG % "x", "README": ""}) is first


async def test_cache_is_bounded(tmp_path: Path) -> None:
    """The least recently used render goes first."""
    setting = Setting(tmp_path, InlineWorkers(), most_bytes=4000)
    inputs = [setting.input({f"a{n}/x.yaml": CONFIG % "x" for n in range(4)}, f"a{n}") for n in range(4)]
    found = [await setting.renderer.render(i) for i in inputs]
    assert await setting.renderer.render(inputs[3]) is found[3]
    assert await setting.renderer.render(inputs[0]) is not found[0]


@pytest.mark.parametrize(
    ("files", "error", "says"),
    [
        ({"other": ""}, PathMissing, "there is no app"),
        ({"app/x.yaml": Link("/etc/passwd")}, TreeRefused, "app/x.yaml is a link out of the repository"),
        ({"app/x.yaml": Link("../../etc/passwd")}, TreeRefused, "out of the repository"),
        ({"app": Link("../app")}, TreeRefused, "out of the repository"),
        ({"app": Link("app")}, TreeRefused, "more than 5 links"),
        ({"app/x.yaml": Link("y.yaml"), "app/y.yaml": Link("x.yaml")}, TreeRefused, "more than 5 links"),
        ({"app/again": Link("."), "app/x.yaml": CONFIG % "x"}, TreeRefused, "more than 5 links"),
        ({"app": Submodule("1" * 40)}, TreeRefused, "app is a submodule"),
        ({"app/sub": Submodule("1" * 40)}, TreeRefused, "app/sub is a submodule"),
        ({"app/x.yaml": "version https://git-lfs.github.com/spec/v1\noid sha256:1\n"}, TreeRefused, "Git LFS pointer"),
        ({"app/x.yaml": "a" * (2 << 20)}, TreeRefused, "2097152 bytes"),
        ({"app/x.yaml": "# only a comment\n"}, RenderError, "nothing was rendered"),
        ({"app/README.md": ""}, RenderError, "nothing was rendered"),
    ],
)
async def test_refused_trees(setting: Setting, files: dict[str, str], error: type[Exception], says: str) -> None:
    """What a tree may not hold, or lacks, is named; it is never an app without objects."""
    with pytest.raises(error, match=says):
        await setting.render(files)


async def test_links_inside_the_tree(setting: Setting) -> None:
    """Links to files and directories resolve where they stay inside."""
    files = {
        "app/x.yaml": Link("../shared/x.yaml"),
        "app/more": Link("../shared/dir"),
        "shared/x.yaml": CONFIG % "x",
        "shared/dir/y.yaml": CONFIG % "yy",
    }
    found = await setting.render(files)
    assert [str(m.origin) for m in found.manifests] == ["app/x.yaml:1", "app/more/y.yaml:1"]


async def test_missing_revision(setting: Setting) -> None:
    """A revision that the clone does not hold is looked for again at the next try."""
    i = setting.input({"app/x.yaml": CONFIG % "x"})
    for _ in range(2):
        with pytest.raises(RevisionMissing, match="1111111"):
            await setting.renderer.render(replace(i, revision="1" * 40))
    assert setting.workers.jobs["render"] == 2


def bomb(levels: int, width: int) -> str:
    """Return a ConfigMap whose aliases expand to width ** levels."""
    lines = [f"a0: &a0 [{', '.join('x' * width)}]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return CONFIG % "bomb" + "data:\n" + "".join(f"  {line}\n" for line in lines)


def merge_bomb(levels: int) -> str:
    """Return a document whose merge keys double at every level."""
    lines = ["a0: &a0 {x0: 1}"] + [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], x{n}: 1}}" for n in range(1, levels)]
    return CONFIG % "bomb" + "data:\n" + "".join(f"  {line}\n" for line in lines)


ZOO = {
    "aliases": (bomb(9, 9), "aliases"),
    "wide aliases": (bomb(3, 400), "aliases"),
    "merges": (merge_bomb(40), "aliases"),
    "self": (CONFIG % "x" + "data: &a {b: *a}\n", "contains itself"),
    "deep flow": (CONFIG % "x" + "data: " + "[" * 5000 + "]" * 5000 + "\n", "nested deeper"),
    "deep block": (CONFIG % "x" + "data:\n" + "".join(f"{' ' * n}a:\n" for n in range(1, 900)), "nested deeper"),
    "deep json": ('{"a":' * 5000 + "1" + "}" * 5000, "nested deeper"),
    "long list": (CONFIG % "x" + "---\n" * 200_000, ""),
    "many objects": ("---\n".join(CONFIG % f"x{n}" for n in range(5001)), "more than 5000 objects"),
    "nul": (CONFIG % "x" + "data: {a: \0}\n", "control character"),
    "not text": ("\ud800", "UTF-8"),
    "tag": (CONFIG % "x" + "data: !!python/object/apply:os.system [id]\n", "tag"),
    "nested lists": ("{apiVersion: v1, kind: List, items: [" * 40 + "]}" * 40, "is missing"),
    "long number": (CONFIG % "x" + "data: {a: " + "9" * 100_000 + "}\n", ""),
    "long key": (CONFIG % "x" + "data: {? " + "k" * 100_000 + " : a}\n", ""),
}


@pytest.mark.parametrize("name", ZOO)
async def test_bombs(setting: Setting, name: str) -> None:
    """Every hostile document is refused with a reason or read; none of them takes the reader down."""
    text, says = ZOO[name]
    data = text.encode("utf-8", "surrogatepass")
    i = setting.input({"app/x.yaml": ""})
    i = replace(i, revision=setting.bare.commit_bytes({"app/x.yaml": data}))
    if says:
        with pytest.raises(RenderError, match=says):
            await setting.renderer.render(i)
    else:
        assert (await setting.renderer.render(i)).manifests


async def test_a_child_that_runs_out_of_memory(tmp_path: Path) -> None:
    """A render beyond the child's memory fails alone; the next one works."""
    workers = ProcessWorkers({"render": Limits(size=1, memory_bytes=400 << 20)})
    try:
        setting = Setting(tmp_path, workers)
        big = "b: ${B//a/${B}}${B//a/${B}}"
        lines = "".join(f"- '{big}'\n" for _ in range(400))
        files = {"app/x.yaml": f"apiVersion: x/v1\nkind: X\nmetadata: {{name: x}}\nspec:\n{lines}"}
        with pytest.raises((ChildError, RenderError)):
            await setting.render(files, substitute=True, variables=(("B", "a" * 700),))
        assert (await setting.render({"app/x.yaml": CONFIG % "x"})).manifests
    finally:
        await workers.close()


async def test_secrets_stay_out_of_texts(setting: Setting) -> None:
    """No error and no representation shows a secret's value."""
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\nstringData: {p: hunter2}\n"
    rendered = await setting.render({"app/x.yaml": text})
    assert "hunter2" not in repr(rendered)
    assert "aHVudGVyMg" not in repr(rendered)
    assert rendered.manifests[0].sensitive
    with pytest.raises(RenderError) as caught:
        await setting.render({"app/x.yaml": text.replace("stringData", "data").replace("hunter2", "hunter2!")})
    assert "hunter2" not in str(caught.value.problems)


async def test_every_wire_field_arrives(setting: Setting) -> None:
    """A manifest that crossed to the hub says what its body says."""
    (found,) = (
        await setting.render({"app/x.yaml": "apiVersion: example.com/v1beta1\nkind: Widget\nmetadata: {name: x}\n"})
    ).manifests
    assert (found.version, found.scoped, found.gvk.api_version) == ("v1beta1", False, "example.com/v1beta1")
    assert msgspec.json.decode(found.body)["kind"] == "Widget"
