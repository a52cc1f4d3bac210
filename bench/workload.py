"""What is delivered: apps of four small objects each, as files of a repository and as requests of a bare loop."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

FILES_PER_APP = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """`apps` apps in one namespace; another variant differs in every object."""

    apps: int
    namespace: str

    @property
    def names(self) -> list[str]:
        """The apps, in order."""
        return [f"app-{number:03}" for number in range(self.apps)]

    def files(self, variant: str, names: list[str] | None = None) -> Mapping[str, str]:
        """Return the repository files of some apps (all by default)."""
        return {
            f"apps/{name}/{body['kind'].lower()}.yaml": json.dumps(body, indent=1) + "\n"
            for name in names or self.names
            for _, body in objects(name, self.namespace, variant)
        }

    def requests(self, variant: str, names: list[str] | None = None) -> list[tuple[str, bytes]]:
        """Return (URL path, body) of every object of some apps (all by default)."""
        return [
            (path, json.dumps(body).encode())
            for name in names or self.names
            for path, body in objects(name, self.namespace, variant)
        ]


def objects(name: str, namespace: str, variant: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (URL path, body) of the objects of one app."""
    core, labels = f"/api/v1/namespaces/{namespace}", {"app": name}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    yield (
        f"{core}/serviceaccounts/{name}",
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {**metadata, "annotations": {"variant": variant}}},
    )
    yield (
        f"{core}/configmaps/{name}",
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"variant": variant, "mode": "plain"}},
    )
    yield (
        f"{core}/services/{name}",
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {**metadata, "annotations": {"variant": variant}},
            "spec": {"clusterIP": "None", "selector": labels, "ports": [{"name": "http", "port": 80}]},
        },
    )
    container = {"name": "web", "image": "example.com/web:1", "env": [{"name": "VARIANT", "value": variant}]}
    yield (
        f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}",
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"serviceAccountName": name, "containers": [container]},
                },
            },
        },
    )
