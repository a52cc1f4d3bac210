"""The order in which environments come. Pure."""

from collections.abc import Mapping

from fleet.inventory.schema import Environment


def order_stages(environments: Mapping[str, Environment]) -> tuple[str, ...]:
    """Return the names of environments, each behind all that it comes `after`; by name where nothing else decides."""
    depths: dict[str, int] = {}
    return tuple(sorted(environments, key=lambda name: (_depth(name, environments, depths), name)))


def _depth(name: str, environments: Mapping[str, Environment], depths: dict[str, int]) -> int:
    if name not in depths:
        depths[name] = 0  # a circle is refused elsewhere; here it must only end
        before = [each for each in environments[name].spec.after if each in environments]
        depths[name] = 1 + max((_depth(each, environments, depths) for each in before), default=-1)
    return depths[name]
