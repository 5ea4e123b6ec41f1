"""Addresses of schedulers: what they look like, and which of them are safe to speak to.

Whoever reaches a scheduler can run code on its workers, so plain TCP is for loopback and private
networks alone; elsewhere the connection must be TLS, with certificates that both ends check.
"""

import ipaddress
import re
import socket

from bench.rules import UsageError

_FORM = re.compile(r"(tcp|tls)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")


def check_address(address: str, name: str = "--cluster") -> None:
    """Refuses what is no address of a scheduler, or one in public reach without TLS.

    Nothing is looked up and nothing connected to.

    Raises:
        UsageError: With what to do.

    Example:

    >>> check_address("tcp://127.0.0.1:8786")
    >>> check_address("tcp://8.8.8.8:8786")
    Traceback (most recent call last):
    bench.rules.UsageError: --cluster tcp://8.8.8.8:8786 is in public reach and not encrypted: ...
    """
    parts = _FORM.fullmatch(address)
    if not parts or not 0 < int(parts[3]) < 2**16:
        raise UsageError(
            f"{name} must be a scheduler's address, tcp://HOST:PORT or tls://HOST:PORT. "
            f"Received: {address!r}."
        )
    if parts[1] == "tcp" and _is_public(parts[2].strip("[]")):
        raise _public(address, name)


def resolve(address: str, name: str = "--cluster") -> None:
    """The same of an address with a host's name, after looking that up.

    Raises:
        UsageError: The name is not known, or belongs to a public address and there is no TLS.
    """
    scheme, host, port = _FORM.fullmatch(address).groups()  # type: ignore[union-attr]
    host = host.strip("[]")
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, int(port))}
    except OSError as error:
        raise UsageError(f"{name} {address} names a host that is not known: {error}.") from None
    if scheme == "tcp" and any(map(_is_public, found)):
        raise _public(address, name)


def _is_public(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
        return address.is_global or address.is_unspecified  # which is to listen to everybody
    except ValueError:
        return False  # a name: `resolve` looks at it


def _public(address: str, name: str) -> UsageError:
    return UsageError(
        f"{name} {address} is in public reach and not encrypted: use a tls:// address, a tunnel by "
        "ssh, or a private network."
    )
