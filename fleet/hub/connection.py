"""From a Cluster document to the credential that opens it."""

from dataclasses import replace
from pathlib import Path

import yaml

from fleet.errors import ConfigError
from fleet.inventory.schema import Cluster, Connection
from fleet.kube.credential import (
    Credential,
    Direct,
    InCluster,
    KubeconfigFile,
    KubeconfigInline,
    Source,
    load_credential,
)


async def open_credential(cluster: Cluster) -> Credential:
    """Read what a Cluster document points to.

    Raises: ConfigError naming the file and the field.
    """
    connection = cluster.spec.connection
    credential = await load_credential(_source_of(connection, str(cluster.origin), Path(cluster.origin.file).parent))
    return replace(
        credential,
        tls_server_name=connection.tls_server_name or credential.tls_server_name,
        proxy_url=connection.proxy_url or credential.proxy_url,
    )


def _source_of(connection: Connection, origin: str, directory: Path) -> Source:
    if connection.in_cluster:
        return InCluster()
    if connection.kubeconfig is not None:
        context = connection.kubeconfig.context or ""
        if connection.kubeconfig.file is not None:
            return KubeconfigFile(path=connection.kubeconfig.file, context=context)
        assert connection.kubeconfig.inline is not None
        document = _parse_inline(connection.kubeconfig.inline.get_secret_value(), origin)
        return KubeconfigInline(document=document, directory=directory, origin=origin, context=context)
    return Direct(
        server=connection.server or "",
        directory=directory,
        origin=origin,
        ca=connection.ca or "",
        ca_file=str(connection.ca_file or ""),
        token_file=str(connection.token_file or ""),
        certificate_file=str(connection.client_cert_file or ""),
        key_file=str(connection.client_key_file or ""),
    )


def _parse_inline(text: str, origin: str) -> dict[str, object]:
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError:
        document = None
    if not isinstance(document, dict):
        # what the parser says would show the text, and with it keys
        raise ConfigError("kubeconfig.inline is not a YAML mapping", reason="CredentialInvalid", subject=origin)
    return document
