"""Public sealing keys, at the addresses where `fleet seal` and an unmodified `kubeseal --cert` look for them."""

from aiohttp import web

from fleet.hub.view import Hub
from fleet.server.identity import Gate
from fleet.server.read import not_found
from fleet.store.token import Role

BUNDLE_PATH = "/v1/seal/keys"
CERTIFICATE_PATH = "/v1/clusters/{name}/cert.pem"


class PublicKeys:
    """Serves what may be shown to anybody; where reading needs a token these do too, unless `anonymous`."""

    def __init__(self, hub: Hub, gate: Gate, *, anonymous: bool) -> None:
        self._hub = hub
        self._gate = gate
        self._anonymous = anonymous

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add the two addresses."""
        router.add_get(BUNDLE_PATH, self._handle_bundle)
        router.add_get(CERTIFICATE_PATH, self._handle_certificate)

    async def _handle_bundle(self, request: web.Request) -> web.StreamResponse:
        await self._admit(request)
        return web.Response(body=self._hub.keys.bundle(), content_type="application/yaml", charset="utf-8")

    async def _handle_certificate(self, request: web.Request) -> web.StreamResponse:
        await self._admit(request)
        name, clusters = request.match_info["name"], [row.name for row in self._hub.clusters()]
        if name not in clusters:
            raise not_found("cluster", name, clusters)
        certificate = await self._hub.keys.certificate(name)
        return web.Response(body=certificate, content_type="application/x-pem-file")

    async def _admit(self, request: web.Request) -> None:
        if not self._anonymous:
            await self._gate.admit(request, Role.VIEWER)
