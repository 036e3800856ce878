"""Addresses over which passwords, codes and keys may travel: encrypted ones, or ones that never leave this machine."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine, without asking anybody."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def private_address(url: str) -> str:
    """Give back an https address, or an http one of this machine. Raises `ValueError` for any other."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ValueError("this is no address") from error
    plain = parts.scheme == "http" and is_loopback(parts.hostname or "")
    if not parts.hostname or parts.username or parts.fragment or not (parts.scheme == "https" or plain):
        raise ValueError("give an https address without user name (http only for this machine)")
    return url
