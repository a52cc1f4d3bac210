"""Simulated API servers, in-memory networks and virtual time, for tests, benches and the demo.

It stands alone: nothing here is imported from the rest of fleet (a shared decoder would hide a shared bug), and nothing
but the demo, tests and benches imports it.

Over TLS, with a kubeconfig file each (`cluster.SimCluster` says what can be seen, done and broken)::

    async with farm.tcp_farm(["dev-1", "prod-1"], directory) as clusters:
        clusters["dev-1"].kubectl("shop").scale("Deployment", "web", 5)
        clusters["prod-1"].die()
        await clusters["prod-1"].revive()

In memory and in virtual time, where `network.MemoryReach` leads to them and `MemoryNetwork.conditions` spoils the way::

    async def main() -> None:
        network = MemoryNetwork(seed=1)
        async with farm.memory_farm(network, ["one", "two"], directory) as clusters:
            ...


    loop.run_virtual(main())
"""
