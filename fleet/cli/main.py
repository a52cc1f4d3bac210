"""`fleet`: the table of commands. A command's module is imported when the command is used, not before."""

import difflib
import importlib
import io
import sys
from typing import Any, NamedTuple

import click

from fleet import __version__
from fleet.cli.exit import Exit, Failure


class Entry(NamedTuple):
    """One command as `fleet --help` shows it."""

    section: str
    help: str
    """The first line of the command's own help; a test keeps the two equal."""


COMMANDS = {
    "run": Entry("The hub", "Run the hub: keep every cluster of the inventory equal to Git."),
    "demo": Entry("The hub", "Run nine simulated clusters, a Git repository and a hub, and tell a day of their life."),
    "doctor": Entry("The hub", "Check this machine and the way to the hub, and say what to do."),
    "validate": Entry("Inventory", "Check the inventory files in DIR and print every problem as FILE:LINE:COLUMN."),
    "schema": Entry("Inventory", "Print the JSON Schema of inventory documents: of KIND, or of all kinds."),
    "status": Entry("Look", "Show how everything is, or one app, or the objects of CLUSTER/APP."),
    "diff": Entry("Look", "Show what differs between Git and the clusters, field by field."),
    "plan": Entry("Look", "Show what a rollout would do: which clusters when, what changes, what is refused."),
    "render": Entry("Look", "Print the manifests of an app on a cluster, as they would be applied."),
    "where": Entry("Look", "Show on which clusters a commit runs."),
    "release": Entry("Look", "Show the releases of an app: what changed, where each runs, what is held."),
    "at": Entry("Look", "Show which release every target had at a past moment."),
    "events": Entry("Look", "Show what happened, newest last."),
    "audit": Entry("Look", "Show every act that changed something: who, what, why, and what it was before."),
    "wait": Entry("Look", "Wait until targets have a state."),
    "rollout": Entry("Act", "Watch and steer releases on their way through environments."),
    "sync": Entry("Act", "Fetch and reconcile now."),
    "pause": Entry("Act", "Stop writing to an app, a cluster or an environment; watching goes on."),
    "resume": Entry("Act", "End a pause."),
    "approve": Entry("Act", "Allow a deletion that is held because it is large, or takes all of an app."),
    "prune": Entry("Act", "Delete what left Git, although a failed apply blocks that."),
    "rollback": Entry("Act", "Hold an app at an earlier release."),
    "unhold": Entry("Act", "End a hold: let targets follow Git again."),
    "recover": Entry("Act", "Show what a hub that lost its database left behind, and confirm that it may go."),
    "restart": Entry("Act", "Restart the workloads of an app on a cluster, or one of them."),
    "seal": Entry("Secrets", "Encrypt secrets for Git, offline: only the clusters they are for can open them."),
    "cluster": Entry("Act", "Show clusters, and decide whose they are and what may be on them."),
    "keys": Entry("Act", "Show, replace, back up and restore the keys that open sealed values."),
    "token": Entry("Act", "Make, list and revoke the tokens that let people and scripts in."),
}


class LazyGroup(click.Group):
    """A group that reads its help from `COMMANDS` and imports a command's module on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None when there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"fleet.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a wrong name is answered with the nearest right one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f"did you mean {close[0]}?" if close else "see fleet --help"
            ctx.fail(f"no such command: {args[0]}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section, without importing any."""
        width = max(map(len, COMMANDS))
        for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
            with formatter.section(section):
                formatter.write_dl(
                    [(name.ljust(width), entry.help) for name, entry in COMMANDS.items() if entry.section == section]
                )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; fleet's own errors and Ctrl-C end it with their exit codes."""
        from fleet.errors import FleetError

        try:
            return super().invoke(ctx)
        except FleetError as error:
            raise Failure(str(error)) from error
        except KeyboardInterrupt:
            ctx.exit(Exit.INTERRUPTED)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fleet", message="%(prog)s %(version)s")
def cli() -> None:
    """GitOps for every Kubernetes cluster you run, from one process.

    Client commands find the hub by --server or FLEET_SERVER, else on this machine. Exit codes: 0 ok, 1 differs or not
    ready, 2 usage or error, 3 hub unreachable, 4 denied, 124 timeout.
    """


def main() -> None:
    """Run the command line; the entry point of the `fleet` script.

    A terminal that cannot show a character gets its escape, not a traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    cli(prog_name="fleet")


if __name__ == "__main__":
    main()
