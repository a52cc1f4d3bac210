"""Addresses that nothing named in an inventory may lead to unless that is said: metadata services, the link itself. Pure."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

_METADATA_HOSTS = (
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
)
_METADATA = ("100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32", "fd00:ec2::/32", "fd20:ce::254/128")
_FORBIDDEN = tuple(
    map(
        ip_network,
        ("169.254.0.0/16", "fe80::/10", "0.0.0.0/8", "::/128", "224.0.0.0/4", "255.255.255.255/32", "ff00::/8", *_METADATA),
    )
)  # fmt: skip
_NAT64 = ip_network("64:ff9b::/96")


def is_forbidden_host(host: str) -> bool:
    """Tell whether a name or literal address belongs to a metadata service, to the link itself or to many at once.

    >>> is_forbidden_host("169.254.169.254"), is_forbidden_host("2852039166"), is_forbidden_host("10.0.0.1")
    (True, True, False)
    """
    name = host.rstrip(".").lower()
    address = _read_address(name)
    if address is None:
        return name in _METADATA_HOSTS
    return any(
        plain in network for plain in (address, _inner(address)) for network in _FORBIDDEN if network.version == plain.version
    )  # fmt: skip


def _inner(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an IPv6 address leads to, where it does."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _read_address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return _read_old_address(host)


def _read_old_address(host: str) -> IPv4Address | None:
    """Read an IPv4 address as the C library does: fewer parts, hexadecimal, octal."""
    parts = host.split(".")
    if len(parts) > 4 or not all(re.fullmatch(r"0x[0-9a-f]+|[0-9]+", part) for part in parts):
        return None
    try:
        numbers = [int(p, 16 if p.startswith("0x") else 8 if p.startswith("0") else 10) for p in parts]
        head = sum(number << (24 - 8 * index) for index, number in enumerate(numbers[:-1]))
        return IPv4Address(head + numbers[-1])
    except ValueError:
        return None
