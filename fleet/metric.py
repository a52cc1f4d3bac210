"""The registry that `/metrics` renders. A metric is declared beside the code that moves it; names are `fleet_<noun>_<unit>`."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry(auto_describe=True)

SECONDS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)
"""Few buckets: at hundreds of clusters each one is thousands of lines per scrape."""

LONG_SECONDS = (10.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)
"""For what takes minutes and waits for people."""


def counter(name: str, text: str, *labels: str) -> Counter:
    """Declare a counter; labels must be bounded (cluster, environment, app, verb, code)."""
    return Counter(name, text, labels, registry=REGISTRY)


def gauge(name: str, text: str, *labels: str) -> Gauge:
    """Declare a gauge."""
    return Gauge(name, text, labels, registry=REGISTRY)


def histogram(name: str, text: str, *labels: str, buckets: Sequence[float] = SECONDS) -> Histogram:
    """Declare a histogram of seconds."""
    return Histogram(name, text, labels, registry=REGISTRY, buckets=buckets)
