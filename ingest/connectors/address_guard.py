"""Which addresses of the web may be asked: one strict way to read a URL, and a guard against being sent inside.

Whoever can write a page, a redirect, a sitemap or a DNS record could otherwise have us fetch what only our own network
may reach (server-side request forgery). Two rules hold that off:

    a URL is read once, strictly, into an `Address`; what browsers would repair is refused
    a host is resolved once, for each connection; every address it has must be public, and one of these is connected to

The ranges are those of IANA's special-purpose registries (RFC 6890 and updates) and the clouds' metadata services.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urljoin

from policies.errors import DocumentRejected

MAX_URL_CHARS = 2_000
DEFAULT_PORTS = {"http": 80, "https": 443}
Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Sequence[str]]
"""Gives a host's addresses as text. Raises `OSError` where it has none or nobody can tell."""

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\xa0\\]")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_IPV4 = re.compile(r"(?:(?:0|[1-9][0-9]{0,2})\.){3}(?:0|[1-9][0-9]{0,2})")
_BRACKETED = re.compile(r"\[([0-9a-fA-F:.]+)\](?::([0-9]{0,5}))?")
_NAMED = re.compile(r"([^:\[\]]+)(?::([0-9]{0,5}))?")
_ESCAPE = re.compile(r"%([0-9a-fA-F]{2})|[^A-Za-z0-9._~!$&'()*+,;=:@/?-]")  # what is no `pchar` of RFC 3986
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")

SECRET_PARAMETER = re.compile(
    r"(?:^|[_-])(?:token|secret|api[_-]?key|apikey|access[_-]?key|sig|signature|sas|passw(?:or)?d|authorization)$",
    re.IGNORECASE,
)
"""Names of query parameters that hold what no reader of a document may see."""


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


_PRIVATE = _networks(
    *("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
    *("198.18.0.0/15", "::1/128", "fc00::/7", "fe80::/10"),
)
"""What an operator may open; everything else that is not public stays shut."""
_NOT_PUBLIC = _networks(
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24"),
    *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    # Of IPv6 only 2000::/3 is in public use; in it: protocol assignments with Teredo, documentation, 6to4.
    *("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"),
)
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_METADATA = frozenset(
    map(
        ipaddress.ip_address,
        (
            *("169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.42.42", "100.100.100.200"),
            *("168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:42::42"),
        ),
    )
)


class AddressRefused(DocumentRejected):
    """An address that is not asked: misspelt, not public or on a port that is shut. Says nothing of what is there."""


@dataclass(frozen=True, slots=True)
class Address:
    """A URL in its one spelling, without fragment. `host` is lower case, in ASCII, an IPv6 address without brackets."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def origin(self) -> str:
        """`scheme://host[:port]`, the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}")

    @property
    def url(self) -> str:
        """The whole, as it is asked for and as it names a page."""
        return self.origin + self.target

    @property
    def path(self) -> str:
        """What stands before the query."""
        return self.target.partition("?")[0]

    @property
    def is_loopback(self) -> bool:
        """Whether it can only mean this machine."""
        return self.host == "localhost" or (_is_literal(self.host) and ipaddress.ip_address(self.host).is_loopback)


def parse_address(url: str, base: str | None = None) -> Address:
    """Read an absolute URL, or one relative to `base`. Raises `AddressRefused` for all that is not plainly well-formed.

    Case, default port, escapes, dot segments and a trailing dot of the host are normalised, the fragment is dropped.
    """
    if len(url) > MAX_URL_CHARS or _FORBIDDEN.search(url):
        raise AddressRefused("no valid URL: too long, or with white space, a backslash or a control character")
    if base is not None:
        try:
            url = urljoin(base, url)
        except ValueError as error:
            raise AddressRefused("no valid URL") from error
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in DEFAULT_PORTS:
        raise AddressRefused("no valid URL: it must begin with http:// or https://")
    end = next((index for index, character in enumerate(rest) if character in "/?#"), len(rest))
    host, port = _authority(rest[:end], DEFAULT_PORTS[scheme])
    path, mark, query = rest[end:].partition("#")[0].partition("?")
    return Address(scheme, host, port, _without_dots(normal_path(path)) + (mark and mark + normal_path(query)))


def normal_path(text: str) -> str:
    """Escape what must be, and nothing else, in capitals (RFC 3986, 6.2.2). Raises `AddressRefused` for surrogates."""
    try:
        return _ESCAPE.sub(_escaped, text)
    except UnicodeEncodeError as error:
        raise AddressRefused("no valid URL: it holds what is no character") from error


def _escaped(match: re.Match[str]) -> str:
    if match.group(1):
        character = chr(int(match.group(1), 16))
        return character if _UNRESERVED.fullmatch(character) else match.group().upper()
    return "".join(f"%{byte:02X}" for byte in match.group().encode())


def _without_dots(path: str) -> str:
    """Resolve `.` and `..` (RFC 3986, 5.2.4)."""
    kept: list[str] = []
    names = path.split("/")[1:]
    for name in names:
        if name == "..":
            del kept[-1:]
        elif name != ".":
            kept.append(name)
    if names and names[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def _authority(text: str, default_port: int) -> tuple[str, int]:
    if "@" in text or "%" in text:
        raise AddressRefused("no valid URL: a user name, password, zone or escape stands before the path")
    match = _BRACKETED.fullmatch(text) or _NAMED.fullmatch(text)
    if match is None:
        raise AddressRefused("no valid URL: its host or port is misspelt")
    port = int(match.group(2)) if match.group(2) else default_port
    if not 0 < port < 65_536:
        raise AddressRefused("no valid URL: there is no such port")
    return (_ipv6(match.group(1)) if text.startswith("[") else _host(match.group(1))), port


def _ipv6(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError as error:
        raise AddressRefused("no valid URL: its host is no IPv6 address") from error


def _host(text: str) -> str:
    """A name or an IPv4 address in the usual spelling; `0x7f.1`, `2130706433` and `0177.0.0.1` are refused."""
    if not text.isascii():
        text = _ascii_name(text)
    host = text.lower().removesuffix(".")
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        if not _IPV4.fullmatch(host) or any(int(label) > 255 for label in labels):
            raise AddressRefused("no valid URL: its host is an address in an unusual spelling")
    elif len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise AddressRefused("no valid URL: its host is no valid name")
    return host


def _ascii_name(text: str) -> str:
    import idna

    try:
        return idna.encode(text, uts46=True, std3_rules=True).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise AddressRefused("no valid URL: its host is no valid international name") from error


def _is_literal(host: str) -> bool:
    return ":" in host or _IPV4.fullmatch(host) is not None


# ---- the guard


def opened_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Read the networks that an operator opens. Raises `ValueError` for what is none, or not private."""
    networks = []
    for text in texts:
        network = ipaddress.ip_network(text)
        if not any(network.version == wide.version and network.subnet_of(wide) for wide in _PRIVATE):  # type: ignore[arg-type]
            raise ValueError(f"{text} is no private network; public addresses need no opening")
        networks.append(network)
    return tuple(networks)


def system_addresses(host: str, port: int) -> list[str]:
    """Ask the system's resolver. Raises `OSError`."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class AddressGuard:
    """Says which addresses a connection may go to. Holds no state: each connection is judged anew."""

    def __init__(
        self,
        opened: Collection[Network] = (),
        ports: Collection[int] | None = None,
        private_hosts: Collection[str] | None = None,
        resolve: Resolve = system_addresses,
    ) -> None:
        """Open nothing but `opened`. `ports`: those that may be asked; any, where none are given.

        `private_hosts`: the hosts that may lie in an opened network, so that no other page sends us inside by a
        redirect or a link; any, where none are given.
        """
        self._opened = tuple(opened)
        self._ports = ports
        self._private_hosts = private_hosts
        self._resolve = resolve

    def check(self, address: Address) -> None:
        """Refuse what can be refused without a resolver. Raises `AddressRefused`."""
        self._check_port(address.port)
        if _is_literal(address.host):
            self._judge(address.host, [address.host])

    def addresses(self, host: str, port: int) -> list[str]:
        """Resolve a host, once, to the addresses that a connection is then made to.

        Raises `AddressRefused` where any of them is not public and not opened, `OSError` where it has none.
        """
        self._check_port(port)
        if not _is_literal(host):
            host = _host(host)
        found = [host] if _is_literal(host) else list(dict.fromkeys(self._resolve(host, port)))
        if not found:
            raise OSError("no address")
        self._judge(host, found)
        return found

    def _check_port(self, port: int) -> None:
        if self._ports is not None and port not in self._ports:
            raise AddressRefused("its port is shut; the source's setting ports can open it")

    def _judge(self, host: str, found: Sequence[str]) -> None:
        opened = self._opened if self._private_hosts is None or host in self._private_hosts else ()
        for text in found:
            if "%" in text or not is_permitted(ipaddress.ip_address(text), opened):
                raise AddressRefused(
                    "its address is not public; the source's setting allow_private can open a network for its own hosts"
                )


def is_permitted(address: Ip, opened: Collection[Network] = ()) -> bool:
    """Say whether an address may be connected to: public, or in an opened network; metadata services never."""
    address = _embedded(address) or address
    if address in _METADATA or address.is_multicast or address.is_unspecified:
        return False
    if any(address in network for network in opened):
        return True
    if any(address in network for network in _NOT_PUBLIC) or not address.is_global:
        return False
    return isinstance(address, ipaddress.IPv4Address) or (address in _PUBLIC_6 and not _is_isatap(address))


def _embedded(address: Ip) -> ipaddress.IPv4Address | None:
    """The IPv4 address that a mapped or NAT64 one leads to."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped


def _is_isatap(address: ipaddress.IPv6Address) -> bool:
    """A tunnel to the IPv4 address in its last 32 bits (RFC 5214)."""
    return (int(address) >> 32) & 0xFDFFFFFF == 0x5EFE
