"""`fleet restart`: new pods for an app's workloads."""

import click

from fleet.cli.client import Client
from fleet.cli.exit import Failure
from fleet.cli.option import connected, find_target


@click.command(name="restart")
@click.argument("name", metavar="APP | CLUSTER/APP")
@click.argument("workload", metavar="[KIND/NAME]", default="")
@click.option("--cluster", default="", metavar="NAME", help="The cluster; may be left out if the app goes to one only.")
@click.option("-n", "--namespace", default="", metavar="NAME", help="Only workloads of this namespace.")
@connected
def command(client: Client, *, name: str, workload: str, cluster: str, namespace: str) -> None:
    """Restart the workloads of an app on a cluster, or one of them.

    Deployments, StatefulSets and DaemonSets get new pods in their own rolling way; it is not drift.
    """
    kind, slash, workload_name = workload.partition("/")
    if workload and not (slash and kind and workload_name):
        raise Failure(f"{workload!r} is not KIND/NAME; write for example deployment/web")
    cluster, app = find_target(client, name, cluster)
    body = {"kind": kind, "namespace": namespace, "name": workload_name}
    number = client.post("targets", cluster, app, "restart", body=body)["restarted"]
    click.echo(f"restarted {number} workload{'' if number == 1 else 's'} of {cluster}/{app}")
