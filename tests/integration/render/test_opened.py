"""Builds with encrypted sources: opened in the hub, built on tmpfs, never remembered."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fleet.child import Limits, ProcessWorkers, Workers
from fleet.errors import RenderError, SealError
from fleet.render.renderer import CachingRenderer, Rendered, RenderInput
from fleet.settings import Settings
from tests.integration.render.repository import Bare
from tests.integration.render.test_renderer import CountingWorkers

SEALED = "PASSWORD=ENC[AES256_GCM,data:x,iv:y,tag:z,type:str]\nsops_mac=ENC[AES256_GCM,data:x,type:str]\n"
FILES = {
    "app/kustomization.yaml": "secretGenerator: [{name: env, envs: [prod.env]}]\nresources: [c.yaml]\n",
    "app/prod.env": SEALED,
    "app/c.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n",
}


class Opener:
    """Opens every file to the name of the cluster that asks."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.error: SealError | None = None

    async def open_file(self, cluster: str, file: str, data: bytes) -> bytes:
        """Open, or fail as told."""
        assert data.decode() == SEALED
        self.asked.append((cluster, file))
        if self.error is not None:
            raise self.error
        return f"PASSWORD=of-{cluster}\n".encode()


class Setting:
    """A repository, an opener, and a renderer with real workers."""

    def __init__(self, tmp_path: Path, workers: Workers, kustomize: str, **settings: Any) -> None:
        self.bare = Bare(tmp_path / "repository.git")
        self.workers = CountingWorkers(workers)
        self.opener = Opener()
        self.memory = Path("/dev/shm")
        made = Settings(data=tmp_path / "data", kustomize=kustomize, **settings)
        self.renderer = CachingRenderer(self.workers, made, opener=self.opener)

    def input(self, files: dict[str, str], cluster: str = "one", **more: Any) -> RenderInput:
        """Commit files and return the input that renders them for a cluster."""
        revision = self.bare.commit(files)
        given = {"digest_key": b"key", "sops": True, "cluster": cluster, **more}
        return RenderInput(repository=self.bare.path, revision=revision, path="app", **given)


@pytest.fixture
async def workers() -> AsyncIterator[ProcessWorkers]:
    """Return limited child processes."""
    made = ProcessWorkers({"render": Limits(size=1)})
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
def setting(tmp_path: Path, workers: ProcessWorkers, kustomize: str) -> Setting:
    """Return a setting that builds in real workers."""
    return Setting(tmp_path, workers, kustomize)


def secret(rendered: Rendered) -> str:
    """Return the generated Secret's body."""
    return next(m.body.decode() for m in rendered.manifests if m.key.kind == "Secret")


async def test_each_cluster_gets_its_own_build(setting: Setting) -> None:
    """What must be opened is found once; opening and building is done for each cluster, and each time."""
    one = setting.input(FILES)
    rendered = await setting.renderer.render(one)
    other = await setting.renderer.render(replace(one, cluster="two"))
    assert rendered.digest != other.digest
    assert msgspec.json.decode(secret(rendered))["data"] == {"PASSWORD": "b2Ytb25l"}
    again = await setting.renderer.render(one)
    assert again.digest == rendered.digest
    assert again is not rendered
    assert setting.opener.asked == [(cluster, "app/prod.env") for cluster in ("one", "two", "one")]
    assert setting.workers.jobs["render"] == 4
    assert [m.sensitive for m in rendered.manifests] == [False, True]


async def test_nothing_is_left_on_tmpfs(setting: Setting) -> None:
    """The private directory goes with the build, also with one that fails."""
    await setting.renderer.render(setting.input(FILES))
    broken = {**FILES, "app/kustomization.yaml": FILES["app/kustomization.yaml"] + "patches: [{patch: x}]\n"}
    with pytest.raises(RenderError):
        await setting.renderer.render(setting.input(broken))
    assert [each.name for each in setting.memory.iterdir() if each.name.startswith("fleet-")] == []


async def test_a_failure_to_open_is_not_remembered(setting: Setting) -> None:
    """It is asked again each time, and a key that came meanwhile is enough."""
    given = setting.input(FILES)
    setting.opener.error = SealError("app/prod.env: no key", reason="NotARecipient")
    for _ in range(2):
        with pytest.raises(SealError, match="no key"):
            await setting.renderer.render(given)
    setting.opener.error = None
    assert "UEFTU" not in secret(await setting.renderer.render(given))


async def test_other_file_systems_are_refused(
    tmp_path: Path, workers: ProcessWorkers, kustomize: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened values are written to no disk: a directory that is not on tmpfs is refused by name."""
    setting = Setting(tmp_path, workers, kustomize, tmpfs="/proc")
    with pytest.raises(RenderError, match="/proc is not on tmpfs") as caught:
        await setting.renderer.render(setting.input(FILES))
    assert caught.value.reason == "NotOnTmpfs"


async def test_what_a_failing_build_says_is_withheld(setting: Setting) -> None:
    """The tool's own words may quote what was opened; the files that were read are named all the same."""
    patch = "patches: [{path: prod.env}]\nresources: [c.yaml]\n"
    with pytest.raises(RenderError) as caught:
        await setting.renderer.render(setting.input({**FILES, "app/kustomization.yaml": patch}))
    assert "of-one" not in str([*caught.value.problems, caught.value])
    assert caught.value.problems[0].file.startswith("app/")


async def test_without_an_opener_it_is_refused(tmp_path: Path, workers: ProcessWorkers, kustomize: str) -> None:
    """A renderer that opens nothing says which file it would have had to open."""
    setting = Setting(tmp_path, workers, kustomize)
    setting.renderer.opener = None
    with pytest.raises(RenderError, match=r"app/prod\.env: it is encrypted with SOPS"):
        await setting.renderer.render(setting.input(FILES))


async def test_clusters_wait_for_one_look_and_not_for_one_another(setting: Setting) -> None:
    """Many clusters that ask at once share finding out what is sealed."""
    given = setting.input(FILES)
    async with asyncio.TaskGroup() as group:
        for name in ("one", "two", "three"):
            group.create_task(setting.renderer.render(replace(given, cluster=name)))
    assert setting.workers.jobs["render"] == 4
    assert list(await setting.renderer.find_sealed(given)) == ["app/prod.env"]
