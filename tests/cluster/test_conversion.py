"""Custom resources of two versions that a webhook converts, on a real API server."""

import base64
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fleet.kube.gate import Priority
from fleet.sim.authority import Authority
from fleet.sim.program import free_port
from fleet.sim.real import ControlPlane
from tests.cluster.keeper import Keeper, definition, keeping, key, settings
from tests.cluster.test_schema_rules import group, read, widget

__all__ = ["group"]

FIELD = {"v1": "size", "v2": "width"}
"""What one value is called in each version."""


class Converter:
    """Answers ConversionReviews over TLS, while it is up."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority.create("converter")
        self.port = free_port()
        issued = self.authority.issue_server(["127.0.0.1"])
        (directory / "tls.crt").write_bytes(issued.cert_pem)
        (directory / "tls.key").write_bytes(issued.key_pem)
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(directory / "tls.crt", directory / "tls.key")

    @property
    def clause(self) -> dict[str, Any]:
        """What a definition says to be converted by this."""
        bundle = base64.b64encode(self.authority.cert_pem).decode()
        client = {"url": f"https://127.0.0.1:{self.port}/convert", "caBundle": bundle}
        return {"strategy": "Webhook", "webhook": {"clientConfig": client, "conversionReviewVersions": ["v1"]}}

    @asynccontextmanager
    async def up(self) -> AsyncIterator[None]:
        """Serve for the length of the block."""
        app = web.Application()
        app.router.add_post("/convert", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=self._tls).start()
        try:
            yield
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        review = await request.json()
        asked = review["request"]
        done = [convert(each, asked["desiredAPIVersion"]) for each in asked["objects"]]
        response = {"uid": asked["uid"], "result": {"status": "Success"}, "convertedObjects": done}
        return web.json_response({**{k: review[k] for k in ("apiVersion", "kind")}, "response": response})


def convert(body: Mapping[str, Any], to: str) -> dict[str, Any]:
    """Rename the field to what the other version calls it.

    >>> convert({"apiVersion": "g/v1", "spec": {"size": 1}}, "g/v2")
    {'apiVersion': 'g/v2', 'spec': {'width': 1}}
    """
    before, after = (FIELD[version.partition("/")[2]] for version in (body["apiVersion"], to))
    spec = {after if name == before else name: value for name, value in (body.get("spec") or {}).items()}
    return {**body, "apiVersion": to, "spec": spec}


def converted(group: str, converter: Converter) -> dict[str, Any]:
    """Write a definition of Widgets with two versions."""
    crd = definition(group, versions=("v1", "v2"))
    crd["spec"]["conversion"] = converter.clause
    crd["spec"]["versions"][1]["schema"] = {
        "openAPIV3Schema": {
            "type": "object",
            "properties": {"spec": {"type": "object", "properties": {"width": {"type": "integer"}}}},
        }
    }
    return crd


async def stored(keeper: Keeper, group: str, version: str) -> Any:
    """The Widget's spec as a version shows it."""
    which = key("Widget", keeper.namespace, "w", group)
    found = await keeper.connection.api.get(which, priority=Priority.USER, version=version)
    return json.loads(found.body or b"")["spec"] if found is not None else None


@pytest.mark.timeout(240)
async def test_a_converted_kind(plane: ControlPlane, namespace: str, group: str, tmp_path: Path) -> None:
    """A manifest moves to the other version; without the webhook only that kind fails, by its words, until it is back."""
    converter = Converter(tmp_path)
    crd = converted(group, converter)
    which = key("Widget", namespace, "w", group)
    async with keeping(plane, namespace) as keeper:
        async with converter.up():
            keeper.want(crd, widget(group, namespace, size=1), settings(namespace, k="1"))
            await keeper.done()
            uid = await read(keeper, group, lambda body: body["metadata"]["uid"])
            keeper.want(crd, widget(group, namespace, "v2", width=2), settings(namespace, k="1"))
            await keeper.done()
            assert [await stored(keeper, group, version) for version in ("v1", "v2")] == [{"size": 2}, {"width": 2}]
        keeper.want(crd, widget(group, namespace, "v2", width=3), settings(namespace, k="2"))
        report = await keeper.until(lambda report: report.failures)
        assert report.failures.keys() == {which}
        assert "conversion webhook" in report.failures[which].message
        map_ = await keeper.connection.api.get(key("ConfigMap", namespace, "settings"), priority=Priority.USER)
        assert map_ is not None
        assert json.loads(map_.body or b"")["data"] == {"k": "2"}
        async with converter.up():
            await keeper.done()
            assert await stored(keeper, group, "v2") == {"width": 3}
            assert await read(keeper, group, lambda body: body["metadata"]["uid"]) == uid
            assert [note for note in keeper.notes if note.kind in ("drift", "prune")] == []
            await plane.kubectl("delete", "crd", f"widgets.{group}", "--wait=false")
