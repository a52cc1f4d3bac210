"""Simulated API servers, in-memory networks and virtual time, for tests, benches and the demo.

It stands alone: nothing here is imported from the rest of fleet (a shared decoder would hide a shared bug), and nothing
but the demo, tests and benches imports it.
"""
