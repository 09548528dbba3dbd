"""The backend's address: what it is on its own machine, and why Label Studio refuses to call one."""

from __future__ import annotations

import ipaddress
import re

from backend.settings import Settings
from worker.errors import StudioError

BLOCKED = (
    "allow it in Label Studio's own environment: ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false, or "
    "USE_DEFAULT_BANNED_SUBNETS=false; then restart it and run `boxlift connect` again"
)
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - compared, not bound
"""Addresses that stand for all of a machine's → the one to reach it at from itself."""


def is_loopback(host: str) -> bool:
    """Whether only processes of its own machine reach a server that binds to this host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def own_address(settings: Settings) -> str:
    """Where the backend of these settings answers on its own machine."""
    host = _ANY.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def refusal(error: StudioError) -> tuple[str, str] | None:
    """Why Label Studio refused a backend's address, and what to do; None where the error is about something else.

    Only Label Studio's own words count, which no address holds: its status 403 may as well mean the token's user.
    """
    words = re.sub(r"https?://\S+", "", str(error))
    if "reserved network" in words:
        return "it is on a private or loopback network", BLOCKED
    if "resolve hostname" in words:
        return "it does not know this host", "use a name or address that works on Label Studio's machine"
    if "valid URL" in words:
        return "a host name without a dot is no address for it", "use an IP address, or a name with a dot"
    return None
