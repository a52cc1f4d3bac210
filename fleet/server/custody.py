"""Operations on whole clusters: whose they are, what they may hold, and which rights they need."""

from fleet.hub.view import ClusterRow, DrainRow, Manifests
from fleet.server.identity import check_environments
from fleet.server.model import AcceptBody, DrainBody, Nothing, ReasonBody, UndrainBody, Undrained
from fleet.server.operation import Call
from fleet.server.read import not_found


async def accept_cluster(call: Call, body: AcceptBody) -> ClusterRow:
    """Take the cluster that answers for the one that was known by this name."""
    row = _require(call, "accepting this cluster")
    return await call.hub.accept_cluster(row.name, uid=body.uid, reason=body.reason, actor=call.actor)


async def take_over_cluster(call: Call, body: ReasonBody) -> ClusterRow:
    """Take a cluster from the hub that holds it."""
    row = _require(call, "this takeover")
    return await call.hub.take_over_cluster(row.name, reason=body.reason, actor=call.actor)


async def drain_cluster(call: Call, body: DrainBody) -> DrainRow:
    """Delete what was applied to a cluster, and keep it away."""
    row = _require(call, "this drain")
    return await call.hub.drain_cluster(row.name, body.app, reason=body.reason, actor=call.actor)


async def undrain_cluster(call: Call, body: UndrainBody) -> Undrained:
    """End the drain of exactly this scope. The cluster may have left the inventory."""
    name = call.path["name"]
    touched = [row.environment for row in call.hub.clusters() if row.name == name] or [""]
    check_environments(call.actor, touched, "this")
    return Undrained(undrained=await call.hub.undrain_cluster(name, body.app, actor=call.actor))


async def get_manifests(call: Call, _: Nothing) -> Manifests:
    """Answer manifests with the rights that the hub and the apps of a cluster need."""
    name = call.path["name"]
    clusters = [row.name for row in call.hub.clusters()]
    if name not in clusters:
        raise not_found("cluster", name, clusters)
    return call.hub.cluster_manifests(name)


def _require(call: Call, act: str) -> ClusterRow:
    """Return the row of the cluster that the path names. Raises: RequestError with status 403 or 404."""
    rows = {row.name: row for row in call.hub.clusters()}
    name = call.path["name"]
    if name not in rows:
        raise not_found("cluster", name, rows)
    check_environments(call.actor, [rows[name].environment], act)
    return rows[name]
