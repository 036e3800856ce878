"""OpenLDAP's slapd with a small company in it: nested groups, a circle, disabled people, names with odd characters."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.certificates import self_signed
from tests.servers import Server, free_port, program

BASE = "dc=example,dc=org"
PEOPLE, GROUPS = f"ou=people,{BASE}", f"ou=groups,{BASE}"
READER, READER_PASSWORD = f"cn=reader,{BASE}", "reads-everything"
CUT_READER = f"cn=cut,{BASE}"
"""A bind account to whom the server gives one entry at most."""
ROOT, ROOT_PASSWORD = f"cn=root,{BASE}", "may-do-anything"
PASSWORD = "correct horse"

_CONFIG = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
attributetype ( 1.2.840.113556.1.4.8 NAME 'userAccountControl' EQUALITY integerMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )
attributetype ( 1.2.840.113556.1.4.159 NAME 'accountExpires' EQUALITY integerMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )
objectclass ( 1.3.6.1.4.1.99999.1 NAME 'adAccount' SUP top AUXILIARY MAY ( userAccountControl $ accountExpires ) )
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
pidfile {home}/pid
TLSCertificateFile {cert}
TLSCertificateKeyFile {key}
database mdb
suffix "{base}"
rootdn "{root}"
rootpw {root_password}
directory {home}/data
dbnosync
limits dn.exact="{cut}" size=1 size.prtotal=1
limits dn.exact="{reader}" size=unlimited
overlay memberof
memberof-group-oc groupOfNames
"""


class LdapServer(Server):
    """`port` for ldap:// and StartTLS, `tls_port` for ldaps://; `ca_file` is whom to believe; its name is localhost."""

    def __init__(self, home: Path) -> None:
        found = program("slapd")
        (home / "data").mkdir()
        key, self.ca_file = self_signed(home, "server")
        self.tls_port = free_port()
        names = {"base": BASE, "root": ROOT, "root_password": ROOT_PASSWORD, "cut": CUT_READER, "reader": READER}
        (home / "slapd.conf").write_text(_CONFIG.format(home=home, cert=self.ca_file, key=key, **names))
        super().__init__(
            home,
            lambda port, home: [
                *(found, "-d", "0", "-f", str(home / "slapd.conf")),
                *("-h", f"ldap://localhost:{port} ldaps://localhost:{self.tls_port}"),
            ],
        )

    @property
    def url(self) -> str:
        return f"ldap://localhost:{self.port}"

    def start(self) -> None:
        new = not (self.home / "data" / "data.mdb").exists()
        super().start()
        if new:
            with self.connection() as connection:
                for dn, classes, values in _entries():
                    connection.add(dn, classes, values)

    def connection(self) -> Any:
        """Connect as who may do anything."""
        import ldap3

        server = ldap3.Server("localhost", self.port, get_info=ldap3.NONE)
        return ldap3.Connection(server, ROOT, ROOT_PASSWORD, auto_bind=True, raise_exceptions=True)

    def change(self, dn: str, **values: list[str]) -> None:
        """Set attributes of an entry."""
        import ldap3

        with self.connection() as connection:
            connection.modify(dn, {name: [(ldap3.MODIFY_REPLACE, value)] for name, value in values.items()})

    def remove(self, dn: str) -> None:
        with self.connection() as connection:
            connection.delete(dn)

    def add_person(self, uid: str, **values: Any) -> None:
        with self.connection() as connection:
            connection.add(*_person(uid, **values))

    def _answers(self) -> bool:
        with socket.socket() as asking:
            return asking.connect_ex(("127.0.0.1", self.port)) == 0 and super()._answers()


Entry = tuple[str, list[str], Mapping[str, Any]]


def person_dn(uid: str) -> str:
    from ldap3.utils.dn import escape_rdn

    return f"uid={escape_rdn(uid)},{PEOPLE}"


def group_dn(name: str) -> str:
    return f"cn={name},{GROUPS}"


def _person(uid: str, password: str = PASSWORD, **values: Any) -> Entry:
    classes = ["inetOrgPerson", *(["adAccount"] if "userAccountControl" in values else [])]
    return person_dn(uid), classes, {"cn": uid, "sn": uid, "userPassword": password, **values}


def _group(name: str, *members: str) -> Entry:
    return group_dn(name), ["groupOfNames"], {"member": list(members)}


def _entries() -> Iterator[Entry]:
    yield BASE, ["dcObject", "organization"], {"dc": "example", "o": "Example"}
    yield PEOPLE, ["organizationalUnit"], {"ou": "people"}
    yield GROUPS, ["organizationalUnit"], {"ou": "groups"}
    for dn in (READER, CUT_READER):
        yield dn, ["organizationalRole", "simpleSecurityObject"], {"userPassword": READER_PASSWORD}
    yield _person("ada", employeeType="engineer", o="acme")
    yield _person("bob", description="disabled")
    yield _person("carol", o="globex")
    yield _person("star*")
    yield _person("twin", mail="same@example.org")
    yield _person("twin2", mail="same@example.org")
    yield _person("adam", userAccountControl="512", accountExpires="0")
    yield _person("adisabled", userAccountControl="514")
    yield _person("aexpired", userAccountControl="512", accountExpires="116444736000000000")
    yield _group("engineers", person_dn("ada"))
    yield _group("staff", group_dn("engineers"), person_dn("bob"))
    yield _group("all", group_dn("staff"))
    yield _group("circle-a", person_dn("carol"))
    yield _group("circle-b", group_dn("circle-a"))
    yield _group("others", person_dn("star*"))
