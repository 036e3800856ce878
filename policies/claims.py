"""From a token's claims to a caller: typed, required, translated; nothing is cut, dropped or guessed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from policies.errors import TokenRejected
from policies.issuers import DEFAULT_MARKS, SERVICE, ClaimNames, Issuer, NameMap, claim, is_service
from policies.principals import Principal, bare_name

MAX_NAMES = 10_000
_REFUSED_KINDS = frozenset({"id", "refresh", "offline", "logout"})
_OF_IDENTITY_TOKENS = frozenset({"at_hash", "c_hash", "s_hash"})
"""Claims that OpenID Connect gives to identity tokens alone: those tell a web page who signed in, and open nothing."""


@dataclass(frozen=True, slots=True)
class Named:
    """Whom the claims name. `directory_id`: under which id to ask for the groups, where the token keeps them back."""

    principal: Principal
    directory_id: str | None = None


def read_claims(claims: Mapping[str, Any], issuer: Issuer, reserved: Collection[str] = ()) -> Named:
    """Read the claims, names in NFC and as they are called here. Raises `TokenRejected` naming what is wrong.

    `reserved`: what no subject of this issuer may begin with, because another issuer's subjects do.
    """
    _require_kind(claims, issuer)
    elsewhere = _groups_elsewhere(claims, issuer)
    # `sub` is required even where another claim is the subject: RFC 9068 asks for it, and what has none is no token.
    own = _name(claims.get("sub"), "sub")
    tenant = _tenant(claims, issuer)
    groups = _mapped(_names(claim(claims, issuer.claims.groups, []), "groups"), issuer.groups, "groups")
    marks = DEFAULT_MARKS if issuer.services is None else issuer.services.marks
    if is_service(claims, marks):
        subject, roles = _service(claims, issuer, reserved)
    else:
        _require_claims(claims, issuer)
        given = own if issuer.claims.subject == "sub" else _name(claim(claims, issuer.claims.subject), "subject")
        _require_own(given, issuer, (SERVICE, *reserved))
        subject = _name(issuer.subject_prefix + given, "subject")
        roles = _mapped(_names(claim(claims, issuer.claims.roles, []), "roles"), issuer.roles, "roles")
    who = Principal(subject, tenant, roles, groups)
    return Named(who, _name(claim(claims, issuer.directory_id), "directory_id") if elsewhere else None)


def _require_kind(claims: Mapping[str, Any], issuer: Issuer) -> None:
    """See that this is an access token for us: not another kind, not for another application."""
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not all(isinstance(name, str) for name in audiences):
        raise TokenRejected("claim_aud")
    if not any(name in audiences for name in issuer.audiences):
        raise TokenRejected("audience")
    for marker in ("typ", "token_use"):
        if str(claims.get(marker, "")).lower() in _REFUSED_KINDS:
            raise TokenRejected("kind")
    if not _OF_IDENTITY_TOKENS.isdisjoint(claims):
        raise TokenRejected("kind")


def _require_claims(claims: Mapping[str, Any], issuer: Issuer) -> None:
    for name, wanted in issuer.required.items():
        value = claim(claims, name)
        said = value.split(" ") if isinstance(value, str) else value  # scopes stand in one text (RFC 6749, 3.3)
        if not isinstance(said, list) or not (wanted in said or wanted == value):
            raise TokenRejected("required_claim")


def _require_own(name: str, issuer: Issuer, reserved: Collection[str]) -> None:
    if not issuer.subject_prefix and name.startswith(tuple(reserved)):
        raise TokenRejected("reserved_subject")


def _tenant(claims: Mapping[str, Any], issuer: Issuer) -> str:
    if issuer.tenant is not None:
        return bare_name(issuer.tenant)
    tenant = _name(claim(claims, issuer.claims.tenant), "tenant")
    if issuer.tenants is not None and tenant not in issuer.tenants:
        raise TokenRejected("tenant")
    return tenant


def _service(claims: Mapping[str, Any], issuer: Issuer, reserved: Collection[str]) -> tuple[str, frozenset[str]]:
    known = issuer.services
    if known is None:
        raise TokenRejected("service")
    client = _name(claim(claims, known.client_id), "client_id")
    _require_own(client, issuer, reserved)
    roles = known.roles.get(client)
    if roles is None:
        raise TokenRejected("service")
    return _name(SERVICE + issuer.subject_prefix + client, "client_id"), roles


def _groups_elsewhere(claims: Mapping[str, Any], issuer: Issuer) -> bool:
    """Say whether the groups are not in the token and can be asked for. Raises `TokenRejected` for what cannot.

    Where there are too many groups, Entra ID leaves them out and points elsewhere (OpenID Connect 5.6.2, distributed
    claims), or says only `hasgroups`. To go on without them would be to ignore every rule that denies one of them. The
    pointer is never followed: whoever is asked stands in the configuration.
    """
    elsewhere = claims.get("_claim_names", {})
    if not isinstance(elsewhere, dict):
        raise TokenRejected("distributed_claims")
    names = issuer.claims
    if any(_left_out(name, elsewhere) for name in (names.subject, names.tenant, names.roles)):
        raise TokenRejected("distributed_claims")
    left_out = _left_out(names.groups, elsewhere) or _too_many(claims, names)
    if left_out and not issuer.completes_groups:
        raise TokenRejected("distributed_claims")
    return left_out


def _left_out(name: str, elsewhere: Mapping[str, Any]) -> bool:
    # Of a nested claim, such as Keycloak's, any object around it may be what is elsewhere.
    parts = name.split(".")
    return any(".".join(parts[:count]) in elsewhere for count in range(1, len(parts) + 1))


def _too_many(claims: Mapping[str, Any], names: ClaimNames) -> bool:
    return claims.get("hasgroups", False) is not False and claim(claims, names.groups) is None


def _mapped(names: frozenset[str], by: NameMap, kind: str) -> frozenset[str]:
    try:
        return by.named_here(names)
    except ValueError:
        raise TokenRejected(f"claim_{kind}") from None


def _name(value: Any, kind: str) -> str:
    try:
        if isinstance(value, str):
            return bare_name(value)
    except ValueError:
        raise TokenRejected(f"claim_{kind}") from None
    raise TokenRejected(f"claim_{kind}")


def _names(value: Any, kind: str) -> frozenset[str]:
    if not isinstance(value, list) or len(value) > MAX_NAMES:
        raise TokenRejected(f"claim_{kind}")
    return frozenset(_name(item, kind) for item in value)
