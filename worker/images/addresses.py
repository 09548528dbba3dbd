"""Which hosts and network addresses may be asked for images."""

from __future__ import annotations

import ipaddress
import socket

import httpx

from worker.errors import ImageFetchError, ImageRefusedError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_ISATAP = {b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe"}
"""Bytes 8 to 11 of an IPv6 address that ends in an IPv4 address (RFC 5214, 6.1)."""
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure's metadata and health, from an address that looks public
        "192.0.0.0/24",  # protocol assignments, some of them global: clouds keep metadata at .192
        "192.88.99.0/24",  # relays of 6to4
        "64:ff9b:1::/48",  # NAT64 of a site (RFC 8215)
        "100::/64",  # discarded
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documents
        "3fff::/20",  # documents
        "5f00::/16",  # segment routing
    )
)
"""Not of the public internet, whatever the `ipaddress` of this Python's version knows."""
_PORTS = {"http": 80, "https": 443}


def origin(url: httpx.URL) -> tuple[str, str, int]:
    """(scheme, host, port) with the port spelled out; the host in lower case without a final dot."""
    return url.scheme, url.host.lower().rstrip("."), url.port or _PORTS.get(url.scheme, 0)


def is_public(address: str) -> bool:
    """True for addresses of the public internet, whatever is embedded in an IPv6 form included.

    False for private, loopback, link-local (cloud metadata), shared, multicast, reserved and unspecified ones.
    """
    parsed: IPAddress = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo[1] if parsed.teredo else None)
        if inner is None and parsed in _NAT64:
            inner = ipaddress.IPv4Address(parsed.packed[-4:])
        if inner is not None:
            return is_public(str(inner))
        if parsed.packed[8:12] in _ISATAP and not is_public(str(ipaddress.IPv4Address(parsed.packed[-4:]))):
            return False
        if parsed.is_site_local:
            return False
    if any(parsed in network for network in _NOT_PUBLIC if network.version == parsed.version):
        return False
    return parsed.is_global and not (parsed.is_multicast or parsed.is_reserved or parsed.is_unspecified)


def resolve(host: str, port: int) -> list[str]:
    """Every address of a host. Raises ImageFetchError where the name has none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ImageFetchError(f"the host {host} of an image is not known: check the address") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def checked_addresses(url: httpx.URL, *, trusted: frozenset[str], any_public: bool) -> list[str]:
    """The addresses that may be connected to for `url`.

    `trusted` holds hosts, as "host" or "host:port"; their addresses may be private. Every other host needs
    `any_public`, and all of its addresses must be public. Callers connect to what is returned rather than
    to the name, so that a name which changes its address in between gains nothing.
    Raises ImageRefusedError, or ImageFetchError where the name is not known.
    """
    _, host, port = origin(url)
    if host in trusted or f"{host}:{port}" in trusted:
        return resolve(host, port)
    if not any_public:
        raise ImageRefusedError(
            f"images from {host} are not allowed: add {host} to BOXLIFT_IMAGE_HOSTS if they should be"
        )
    addresses = resolve(host, port)
    if not all(is_public(address) for address in addresses):
        raise ImageRefusedError(
            f"images from {host} are not allowed, its address is not public: "
            f"add {host} to BOXLIFT_IMAGE_HOSTS if they should be"
        )
    return addresses
