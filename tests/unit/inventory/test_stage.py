"""The order of environments."""

from fleet.inventory.stage import order_stages
from tests.unit.inventory.build import environment, inventory


def test_each_environment_comes_behind_what_it_follows() -> None:
    """A chain against the alphabet; names decide among equals."""
    made = inventory(
        environment("a-prod", "after: [qa]"),
        environment("qa", "after: [test, dev]"),
        environment("test"),
        environment("dev"),
    )
    assert order_stages(made.environments) == ("dev", "test", "qa", "a-prod")
