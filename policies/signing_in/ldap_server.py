"""An LDAP server, as little of it as signing in needs: search, and whether a password binds. `ldap3` stays in here."""

from __future__ import annotations

import math
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from policies.errors import ConfigurationError, Unavailable

IN_CHAIN = "1.2.840.113556.1.4.1941"
"""LDAP_MATCHING_RULE_IN_CHAIN, [MS-ADTS] 3.1.1.3.4.4.3: a member by way of any number of groups."""
ACTIVE_DIRECTORY = "1.2.840.113556.1.4.800"
"""The capability by which a server says that it is Active Directory, [MS-ADTS] 3.1.1.3.4.3.1."""
_PAGE = 500
_PAGED = "1.2.840.113556.1.4.319"  # RFC 2696
# RFC 4511: what says that this password does not let this person in, as opposed to a server that cannot tell.
_REFUSALS = frozenset({19, 32, 34, 48, 49, 50, 53})


class TooManyEntries(Unavailable):
    """More entries match than were asked for."""


@dataclass(frozen=True, slots=True)
class LdapEntry:
    """An entry: its name and the values of the attributes that were asked for, by their names in lower case."""

    dn: str
    values: Mapping[str, Sequence[bytes]]

    def texts(self, attribute: str) -> list[str]:
        """Give the values of an attribute as text. Raises `UnicodeDecodeError` for one that is none."""
        return [value.decode("utf-8") for value in self.values.get(attribute.lower(), ())]


@dataclass(frozen=True, slots=True)
class LdapAddress:
    """Where the server is, and how it proves that it is the one. `ca_file`: whom we believe; None: the system's."""

    url: str
    start_tls: bool = False
    ca_file: str | None = None
    timeout_s: float = 5.0


class LdapSearch:
    """A connection on which entries can be searched."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def entries(self, base: str, query: str, attributes: Sequence[str], limit: int) -> list[LdapEntry]:
        """Give all entries below `base` that match. Raises `Unavailable` where the server does not give all of them."""
        return self._entries(base, query, attributes, "SUBTREE", limit)

    def entry(self, dn: str, query: str, attributes: Sequence[str]) -> LdapEntry | None:
        """Give one entry by its name, where it is there and matches."""
        from ldap3.core.exceptions import LDAPNoSuchObjectResult  # type: ignore[import-untyped]

        try:
            return next(iter(self._entries(dn, query, attributes, "BASE", 1)), None)
        except LDAPNoSuchObjectResult:
            return None

    def is_active_directory(self) -> bool:
        """Say whether the server says so itself."""
        found = self.entry("", "(objectClass=*)", ["supportedCapabilities"])
        return found is not None and ACTIVE_DIRECTORY in found.texts("supportedCapabilities")

    def _entries(self, base: str, query: str, attributes: Sequence[str], scope: str, limit: int) -> list[LdapEntry]:
        connection = self._connection
        found: list[LdapEntry] = []
        cookie: bytes | None = None
        while True:
            connection.search(base, query, scope, attributes=list(attributes), paged_size=_PAGE, paged_cookie=cookie)
            # A list that the server cut short is no error to the library.
            if connection.result["result"] != 0:
                raise Unavailable(f"The directory did not give all entries ({connection.result['description']}).")
            for answer in connection.response:
                if answer["type"] == "searchResEntry":  # else a pointer to another server, which is not followed
                    values = {name.lower(): list(texts) for name, texts in answer["raw_attributes"].items()}
                    found.append(LdapEntry(answer["dn"], values))
            if len(found) > limit:
                raise TooManyEntries("The directory found more entries than there can be.")
            cookie = connection.result.get("controls", {}).get(_PAGED, {}).get("value", {}).get("cookie")
            if not cookie:
                return found


class LdapServer:
    """Opens connections. Every failure of the server, or of its certificate, is `Unavailable`."""

    def __init__(self, address: LdapAddress, bind_dn: str, bind_password: str) -> None:
        try:
            import ldap3  # type: ignore[import-untyped]  # noqa: F401
        except ImportError as error:
            raise ConfigurationError("identity.sign_in.ldap: install rayrag[ldap]") from error
        if not bind_password:
            raise ConfigurationError("identity.sign_in.ldap: the bind account's password is empty")
        self._address = address
        self._account = bind_dn, bind_password
        if address.ca_file is not None:
            try:
                ssl.create_default_context(cafile=address.ca_file)
            except OSError as error:
                raise ConfigurationError(f"identity.sign_in.ldap: ca_file {address.ca_file}: {error}") from error

    @contextmanager
    def search(self) -> Iterator[LdapSearch]:
        """Connect as the bind account."""
        from ldap3.core.exceptions import LDAPException

        connection = None
        try:
            connection = self._connection(*self._account)
            connection.bind(read_server_info=False)
            yield LdapSearch(connection)
        except (LDAPException, OSError) as error:
            # Not the library's words: they may quote the account.
            raise Unavailable(f"The directory cannot be asked ({type(error).__name__}).") from error
        finally:
            _close(connection)

    def password_holds(self, dn: str, password: str) -> bool:
        """Say whether this password binds this person, on a connection of its own.

        An empty one would bind too, as nobody (RFC 4513, 5.1.2): it never holds.
        """
        from ldap3.core.exceptions import LDAPException, LDAPOperationResult

        if not dn or not password:
            return False
        connection = None
        try:
            connection = self._connection(dn, password)
            return bool(connection.bind(read_server_info=False))
        except LDAPOperationResult as error:
            if error.result in _REFUSALS:
                return False
            raise Unavailable(f"The directory cannot be asked ({type(error).__name__}).") from error
        except (LDAPException, OSError) as error:
            raise Unavailable(f"The directory cannot be asked ({type(error).__name__}).") from error
        finally:
            _close(connection)

    def _connection(self, dn: str, password: str) -> Any:
        import ldap3

        parts = urlsplit(self._address.url)
        tls = None
        if parts.scheme == "ldaps" or self._address.start_tls:
            tls = ldap3.Tls(validate=ssl.CERT_REQUIRED, ca_certs_file=self._address.ca_file, sni=parts.hostname)
        server = ldap3.Server(
            parts.hostname,
            parts.port or (636 if parts.scheme == "ldaps" else 389),
            use_ssl=parts.scheme == "ldaps",
            tls=tls,
            get_info=ldap3.NONE,
            connect_timeout=self._address.timeout_s,
        )
        connection = ldap3.Connection(
            server,
            dn,
            password,
            authentication=ldap3.SIMPLE,
            auto_referrals=False,
            read_only=True,
            check_names=False,
            raise_exceptions=True,
            receive_timeout=math.ceil(self._address.timeout_s),  # whole seconds only
        )
        connection.open(read_server_info=False)
        if self._address.start_tls:
            connection.start_tls(read_server_info=False)
        return connection


def escaped(text: str) -> str:
    """Spell a text so that in a filter it is only a text (RFC 4515, 3)."""
    from ldap3.utils.conv import escape_filter_chars  # type: ignore[import-untyped]

    return str(escape_filter_chars(text))


def check_filter(query: str, key: str) -> None:
    """Raise `ConfigurationError` naming the key where a filter is none."""
    from ldap3.core.exceptions import LDAPException
    from ldap3.operation.search import parse_filter  # type: ignore[import-untyped]

    try:
        parse_filter(query, None, False, None, None, False)
    except (LDAPException, ValueError) as error:
        raise ConfigurationError(f"{key}: no LDAP filter: {error}") from error


def _close(connection: Any) -> None:
    from ldap3.core.exceptions import LDAPException

    if connection is None:
        return
    try:
        connection.unbind()
    except (LDAPException, OSError):
        connection.strategy.close()
