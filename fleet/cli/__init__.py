"""The `fleet` command: one module per subcommand, each exposing `command`.

Client commands talk to a running hub over HTTP and import neither asyncio nor anything that the hub runs on.
"""
