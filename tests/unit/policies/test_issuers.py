"""What is set for each issuer: whom it may name, how its names are called here, and which programs are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from policies.errors import ConfigurationError, TokenRejected
from policies.issuers import ClaimNames, Issuer, NameMap, ServiceMark, Services, require_apart
from policies.keys import PemFile
from policies.principals import Principal
from policies.tokens import TokenVerifier, VerifiedToken
from tests.unit.policies.forged import AUDIENCE, ISSUER, KEYS, STRANGER, claims, public_pem, signed

OTHER = "https://other.example"


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "issuer.pem"
    path.write_bytes(public_pem(KEYS["ES256"]))
    path.with_name("other.pem").write_bytes(public_pem(STRANGER))
    return path


def issuer(pem: Path, name: str = ISSUER, **parts: Any) -> Issuer:
    return Issuer(name, parts.pop("audience", AUDIENCE), ("ES256",), PemFile(pem), **parts)


def verified(*issuers: Issuer, header: dict[str, Any] | None = None, **changes: Any) -> VerifiedToken:
    token = signed({"alg": "ES256", **(header or {})}, claims(**changes), "ES256")
    return TokenVerifier(issuers).verify(token)


def caller(*issuers: Issuer, **changes: Any) -> Principal:
    return verified(*issuers, **changes).principal


def reason(*issuers: Issuer, **changes: Any) -> str:
    with pytest.raises(TokenRejected) as raised:
        verified(*issuers, **changes)
    return raised.value.reason


def test_a_verified_token_says_who_signed_it_and_from_when_to_when(pem: Path) -> None:
    found = verified(issuer(pem), iat=(now := claims()["iat"]), exp=now + 60, jti="t-1")

    assert (found.issuer, found.token_id, found.issued_at, found.expires_at) == (ISSUER, "t-1", now, now + 60)
    assert verified(issuer(pem)).token_id is None


# ---- the person


def test_the_person_may_be_in_another_claim_and_sub_is_still_required(pem: Path) -> None:
    entra = issuer(pem, claims=ClaimNames(subject="oid"))

    assert caller(entra, oid="8f1c", sub="pairwise").subject == "8f1c"
    assert reason(entra, sub="ada") == "claim_subject"
    assert reason(entra, oid=["8f1c"]) == "claim_subject"
    assert reason(entra, oid="8f1c", sub=...) == "claim_sub"


def test_a_prefix_keeps_the_people_of_two_issuers_apart(pem: Path) -> None:
    both = issuer(pem), issuer(pem, OTHER, subject_prefix="okta:")

    assert caller(*both).subject == "ada"
    assert caller(*both, iss=OTHER).subject == "okta:ada"
    assert reason(*both, sub="okta:ada") == "reserved_subject", "or the first could name the second's people"
    assert caller(*both, iss=OTHER, sub="okta:ada").subject == "okta:okta:ada"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {}),
        ({"tenant": "acme"}, {}),
        ({"tenant": "acme"}, {"tenant": "acme"}),
        ({"tenant": "acme"}, {"tenants": frozenset({"acme", "rival"})}),
        ({"shared_subjects": True}, {}),
        ({"subject_prefix": "a:"}, {"subject_prefix": "a:"}),
        ({"tenant": "caf\u00e9"}, {"tenant": "cafe\u0301"}),
        ({"tenants": frozenset({"caf\u00e9"})}, {"tenants": frozenset({"cafe\u0301", "acme"})}),
    ],
)
def test_two_issuers_that_could_name_the_same_person_stop_the_start(
    pem: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    pair = issuer(pem, **first), issuer(pem, OTHER, **second)

    with pytest.raises(ConfigurationError, match=r"identity\.issuers\.1\.subjects"):
        TokenVerifier(pair)
    with pytest.raises(ConfigurationError, match=r"identity\.issuers\.2\.subjects"):
        require_apart([pair[0], issuer(pem, "x", tenant="elsewhere", subject_prefix="x:"), pair[1]])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"tenant": "acme"}, {"tenant": "rival"}),
        ({"tenant": "acme"}, {"tenants": frozenset({"rival"})}),
        ({"shared_subjects": True}, {"shared_subjects": True}),
        ({"subject_prefix": "a:"}, {"subject_prefix": "b:"}),
        ({"subject_prefix": "a:"}, {}),
    ],
)
def test_two_issuers_that_cannot_may_stand_side_by_side(
    pem: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    assert TokenVerifier([issuer(pem, **first), issuer(pem, OTHER, **second)])


def test_an_issuer_names_no_tenant_that_is_not_its_own(pem: Path) -> None:
    some = issuer(pem, tenants=frozenset({"acme", "acme-labs"}))

    assert caller(some, tenant="acme-labs").tenant == "acme-labs"
    assert reason(some, tenant="rival") == "tenant"
    assert reason(some, tenant=...) == "claim_tenant"
    with pytest.raises(ConfigurationError, match="not both"):
        issuer(pem, tenant="acme", tenants=frozenset({"acme"}))


@pytest.mark.parametrize("written", ["caf\u00e9", "cafe\u0301"])
@pytest.mark.parametrize("claimed", ["caf\u00e9", "cafe\u0301"])
def test_a_tenant_is_the_same_in_either_spelling(pem: Path, written: str, claimed: str) -> None:
    assert caller(issuer(pem, tenants=frozenset({written})), tenant=claimed).tenant == "caf\u00e9"


@pytest.mark.parametrize("kind", ["groups", "roles"])
def test_no_issuer_gives_names_behind_the_prefix_of_another_in_the_same_tenant(pem: Path, kind: str) -> None:
    okta = issuer(pem, OTHER, subject_prefix="okta:", **{kind: NameMap(prefix="okta:")})
    one = issuer(pem, **{kind: NameMap({"okta:own": "own"})})
    elsewhere = issuer(pem, tenant="rival", subject_prefix="r:")

    assert getattr(caller(one, okta, iss=OTHER, **{kind: ["staff"]}), kind) == {"okta:staff"}
    assert reason(one, okta, **{kind: ["staff", "okta:staff"]}) == f"claim_{kind}"
    assert getattr(caller(one, okta, **{kind: ["staff", "okta:own", "oktas"]}), kind) == {"staff", "own", "oktas"}
    apart = issuer(pem, OTHER, tenant="acme", **{kind: NameMap(prefix="okta:")})
    assert getattr(caller(elsewhere, apart, **{kind: ["okta:staff"]}), kind) == {"okta:staff"}


# ---- what the token is for


def test_one_of_several_audiences_is_enough_and_no_other_is(pem: Path) -> None:
    entra = issuer(pem, audience=("api://rayrag", "11b6"))

    assert caller(entra, aud="11b6") and caller(entra, aud=["mail", "api://rayrag"])
    assert reason(entra, aud=AUDIENCE) == "audience"
    assert reason(entra, aud="api://rayrag,11b6") == "audience"
    with pytest.raises(ConfigurationError, match="audience"):
        issuer(pem, audience=("a", ""))


def test_an_issuer_may_be_held_to_one_type_of_token(pem: Path) -> None:
    strict = issuer(pem, types=frozenset({"at+jwt"}))

    assert verified(strict, header={"typ": "at+jwt"})
    assert reason(strict, header={"typ": "JWT"}) == "type"
    assert reason(strict) == "type"


@pytest.mark.parametrize(
    ("value", "holds"),
    [
        ("ask", True), ("read ask write", True), (["read", "ask"], True),
        ("asking", False), ("ask\tread", False), ("", False), ([], False), (["ask read"], False), (True, False),
        (None, False), ({"ask": 1}, False), (..., False),
    ],
)  # fmt: skip
def test_a_claim_may_be_required_to_say_something(pem: Path, value: Any, holds: bool) -> None:
    scoped = issuer(pem, required={"scp": "ask"})
    if holds:
        assert caller(scoped, scp=value)
    else:
        assert reason(scoped, scp=value) == "required_claim"


# ---- groups and roles


def test_names_of_groups_and_roles_become_those_of_here(pem: Path) -> None:
    mapped = issuer(pem, groups=NameMap({"0f3a": "finance"}), roles=NameMap({"Rag.User": "user"}, keep_unmapped=False))

    who = caller(mapped, groups=["0f3a", "77c0"], roles=["Rag.User", "admin"])

    assert (who.groups, who.roles) == ({"finance", "77c0"}, {"user"})


def test_a_kept_name_gets_its_prefix_and_a_mapped_one_does_not(pem: Path) -> None:
    mapped = issuer(pem, groups=NameMap({"0f3a": "finance"}, prefix="entra:"))

    assert caller(mapped, groups=["0f3a", "77c0"]).groups == {"finance", "entra:77c0"}
    assert reason(mapped, groups=["x" * 256]) == "claim_groups", "longer than a name, with its prefix"


def test_nobody_takes_a_groups_rights_by_naming_theirs_like_it(pem: Path) -> None:
    mapped = issuer(pem, groups=NameMap({"0f3a": "finance"}))

    assert caller(mapped, groups=["finance", "x"]).groups == {"x"}
    assert caller(mapped, groups=["finance", "0f3a"]).groups == {"finance"}
    assert caller(issuer(pem, groups=NameMap({"finance": "finance"})), groups=["finance"]).groups == {"finance"}


# ---- services

SHAPES: list[tuple[str, ServiceMark, str, dict[str, Any]]] = [
    ("Entra ID", ServiceMark("idtyp", equals="app"), "azp", {"idtyp": "app", "azp": "job"}),
    ("Entra ID without idtyp", ServiceMark("oid", same_as="sub"), "azp", {"oid": "77", "sub": "77", "azp": "job"}),
    (
        "Keycloak",
        ServiceMark("preferred_username", starts_with="service-account-"),
        "client_id",
        {"preferred_username": "service-account-job", "client_id": "job"},
    ),
    ("Okta", ServiceMark("uid", absent=True), "cid", {"cid": "job", "sub": "job"}),
    ("Auth0", ServiceMark("gty", equals="client-credentials"), "azp", {"gty": "client-credentials", "azp": "job"}),
]
PERSON = {"idtyp": "user", "oid": "8f1c", "preferred_username": "ada", "uid": "00u1", "gty": "password", "azp": "web"}


@pytest.mark.parametrize(("mark", "client_id", "shape"), [row[1:] for row in SHAPES], ids=[row[0] for row in SHAPES])
def test_a_services_token_is_known_and_has_the_roles_that_stand_here(
    pem: Path, mark: ServiceMark, client_id: str, shape: dict[str, Any]
) -> None:
    known = issuer(pem, services=Services((mark,), client_id, {"job": frozenset({"ingest"})}))

    service = caller(known, **{**shape, "roles": ["admin"], "groups": ["g"]})
    assert (service.subject, service.roles, service.groups) == ("service:job", {"ingest"}, {"g"})
    person = caller(known, **PERSON)
    assert (person.subject, person.roles) == ("ada", {"user"})
    assert reason(known, **{**shape, client_id: "stranger"}) == "service"
    assert reason(known, **{**shape, client_id: ...}) == "claim_client_id"


@pytest.mark.parametrize("shape", [row[3] for row in SHAPES if row[0] != "Entra ID without idtyp"])
def test_a_services_token_is_refused_where_no_services_are_known(pem: Path, shape: dict[str, Any]) -> None:
    assert reason(issuer(pem), **shape) == "service"


def test_no_person_is_a_service_and_no_service_a_person(pem: Path) -> None:
    known = issuer(pem, services=Services((ServiceMark("gty", equals="cc"),), "azp", {"job": frozenset()}))

    assert reason(known, sub="service:job") == "reserved_subject"
    assert caller(known, sub="job").subject == "job"
    assert caller(known, gty="cc", azp="job").subject == "service:job"
    prefixed = issuer(pem, OTHER, subject_prefix="b:", services=known.services)
    assert caller(known, prefixed, iss=OTHER, gty="cc", azp="job").subject == "service:b:job"


# ---- settings that cannot hold


@pytest.mark.parametrize("prefix", ["okta", ":", "a b:", "service:", "a:b:", "\u00e9:", "-x:"])
def test_a_prefix_that_could_be_taken_for_a_name_stops_the_start(pem: Path, prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="subject_prefix"):
        issuer(pem, subject_prefix=prefix)


def test_an_entry_that_leads_to_no_name_stops_the_start() -> None:
    with pytest.raises(ValueError, match="name"):
        NameMap({"0f3a": "fin\nance"})
