"""Signing in at an identity provider: the whole way of the browser, and every turn that it must not take."""

from __future__ import annotations

import base64
import re
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from policies.limits import Allowance, Limits, Rate, Rates, Work
from policies.sessions import hashed
from tests.openid_provider import OpenIdProvider, parameters, running_provider
from tests.saml_provider import SamlIdentityProvider
from tests.unit.deployments.sign_in_service import PUBLIC, Service, running

REFUSED = (401, "this sign-in does not hold")


def told(answer: Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["detail"]


# ---- OpenID Connect


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenIdProvider]:
    with running_provider() as made:
        yield made


@pytest.fixture
def oidc(provider: OpenIdProvider, tmp_path: Path) -> Iterator[Service]:
    (tmp_path / "secret").write_text("of the client")
    (tmp_path / "secret").chmod(0o600)
    way = {
        "issuer": provider.url,
        "client_id": "rayrag",
        "client_secret_file": str(tmp_path / "secret"),
        "scopes": ["openid", "profile", "email"],
        "tenant": "acme",
        "roles": ["user"],
    }
    public = {
        **way,
        "subject_prefix": "pub:",
        "client_id": provider.public_client(f"{PUBLIC}/v1/auth/oidc/public/callback"),
    }
    del public["client_secret_file"]
    ways = {"mock": way, "public": public}
    with running(tmp_path, {"public_url": PUBLIC, "oidc": ways}) as made:
        yield made


def login(service: Service, name: str = "mock", **query: str) -> Response:
    answer = service.client.get(f"/v1/auth/oidc/{name}/login", params=query)
    assert answer.status_code == 303, answer.text
    return answer


def own(location: str) -> str:
    """Give path and parameters of an address of ours."""
    parts = urlsplit(location)
    return f"{parts.path}?{parts.query}"


@pytest.mark.parametrize("name", ["mock", "public"])
def test_the_whole_way_leads_to_a_session(oidc: Service, provider: OpenIdProvider, name: str) -> None:
    sent = login(oidc, name)
    asked = parameters(sent.headers["location"])
    assert asked["redirect_uri"] == f"{PUBLIC}/v1/auth/oidc/{name}/callback"
    assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
    cookie = sent.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and f"Path=/v1/auth/oidc/{name}/callback" in cookie
    assert 0 < int(re.search(r"Max-Age=(\d+)", cookie).group(1)) <= 600
    for secret in (asked["nonce"], asked["state"]):
        assert secret not in cookie

    answer = oidc.client.get(own(provider.consent(sent.headers["location"])))

    assert answer.status_code == 200, answer.text
    assert "Max-Age=0" in answer.headers["set-cookie"]
    found = oidc.me(answer.json()).json()
    prefix = "pub:" if name == "public" else ""
    assert (found["subject"], found["tenant"], found["roles"]) == (f"{prefix}ada", "acme", ["user"])
    assert found["groups"] == ["all", "engineers"]
    assert len(provider.redeemed[-1]["code_verifier"]) >= 43
    (record,) = oidc.records("auth.sign_in")
    assert (record.actor, record.outcome, record.detail["way"]) == (f"{prefix}ada", "ok", f"oidc:{name}")


def test_a_page_that_waits_gets_a_refresh_token_behind_the_hash(oidc: Service, provider: OpenIdProvider) -> None:
    sent = login(oidc, return_to="/app/?a=1")

    answer = oidc.client.get(own(provider.consent(sent.headers["location"])))

    assert answer.status_code == 303
    path, _, token = answer.headers["location"].partition("#refresh_token=")
    assert path == "/app/?a=1"
    session = oidc.refresh({"refresh_token": token}).json()
    assert oidc.me(session).json()["subject"] == "ada"
    assert oidc.refresh({"refresh_token": token}).status_code == 401  # good for one use


@pytest.mark.parametrize(
    "path",
    ["https://evil.example", "//evil.example", "/\\evil.example", "/\t/evil.example", "\\\\evil", "javascript:alert(1)"]
    + ["app", "", "/a\r\nset-cookie: x=1", "/ä", "/a#b", "/" + "a" * 2_000, " /a", "///evil.example"],
)
def test_no_page_of_another_host_is_returned_to(oidc: Service, path: str) -> None:
    answer = oidc.client.get("/v1/auth/oidc/mock/login", params={"return_to": path})

    assert answer.status_code == 422
    assert "location" not in answer.headers


def test_an_answer_in_another_browser_is_refused(oidc: Service, provider: OpenIdProvider) -> None:
    back = own(provider.consent(login(oidc).headers["location"]))

    assert told(oidc.browser().get(back)) == REFUSED
    assert oidc.records() == []
    assert oidc.client.get(back).status_code == 200


def _other_state(back: str) -> str:
    return re.sub(r"state=[^&]+", "state=x", back)


@pytest.mark.parametrize(
    "change",
    [
        _other_state,
        lambda back: re.sub(r"&?state=[^&]+", "", back),
        lambda back: re.sub(r"code=[^&]+", "code=x", back),
        lambda back: re.sub(r"code=[^&]+", "", back),
        lambda back: back + "&iss=https://evil.example",
        lambda back: re.sub(r"code=[^&]+", "error=access_denied", back),
        lambda back: back.replace("/mock/", "/public/"),
    ],
)
def test_an_answer_that_was_changed_is_refused(
    oidc: Service, provider: OpenIdProvider, change: Callable[[str], str]
) -> None:
    back = own(provider.consent(login(oidc).headers["location"]))

    assert told(oidc.client.get(change(back))) == REFUSED


def test_a_parameter_that_comes_twice_is_refused(oidc: Service, provider: OpenIdProvider) -> None:
    back = own(provider.consent(login(oidc).headers["location"]))

    assert oidc.client.get(back + "&code=other").status_code == 422


def test_an_answer_is_good_once(oidc: Service, provider: OpenIdProvider) -> None:
    sent = login(oidc)
    back = own(provider.consent(sent.headers["location"]))
    cookies = dict(oidc.client.cookies)
    assert oidc.client.get(back).status_code == 200

    oidc.client.cookies.update(cookies)
    assert oidc.client.get(back).status_code == 401


def test_a_sign_in_that_began_once_writes_one_line_however_often_it_is_answered(oidc: Service) -> None:
    state = parameters(login(oidc).headers["location"])["state"]
    cookies = dict(oidc.client.cookies)
    for _ in range(3):
        oidc.client.cookies.update(cookies)
        answer = oidc.client.get("/v1/auth/oidc/mock/callback", params={"state": state, "code": "invented"})
        assert told(answer) == REFUSED

    assert len(oidc.records()) == 1


def counted(service: Service, monkeypatch: pytest.MonkeyPatch, attempts: int) -> None:
    limits = Limits(Allowance({Work.SIGN_IN: Rates(tenant=(Rate(attempts, 60),))}))
    monkeypatch.setattr(service.desk.signing_in, "_count", limits.sign_in)


def test_each_way_has_a_number_of_attempts_for_all_addresses_together(
    oidc: Service, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted(oidc, monkeypatch, 3)
    back = own(provider.consent(login(oidc).headers["location"]))
    assert told(oidc.browser().get(back)) == REFUSED  # nobody began it there: it is not counted
    assert oidc.client.get(back).status_code == 200
    login(oidc)

    answer = oidc.client.get("/v1/auth/oidc/mock/login")

    assert (answer.status_code, "retry-after" in answer.headers) == (429, True)
    login(oidc, "public")


def test_one_address_begins_only_so_many_sign_ins(oidc: Service) -> None:
    codes = [oidc.client.get("/v1/auth/oidc/mock/login").status_code for _ in range(101)]

    assert codes == [303] * 100 + [429]


def test_the_code_of_one_sign_in_does_not_fit_another(oidc: Service, provider: OpenIdProvider) -> None:
    """Somebody else's code, put into this browser's answer: its nonce, and its challenge, are another's."""
    other = oidc.browser().get("/v1/auth/oidc/mock/login").headers["location"]
    code = parameters(provider.consent(other, "mallory"))["code"]
    back = own(provider.consent(login(oidc).headers["location"]))

    assert told(oidc.client.get(re.sub(r"code=[^&]+", f"code={code}", back))) == REFUSED


@pytest.mark.parametrize("subject", ["mallory", "crowded", "dev:root", "service:x", " ada"])
def test_claims_that_are_not_whole_let_nobody_in(oidc: Service, provider: OpenIdProvider, subject: str) -> None:
    back = own(provider.consent(login(oidc).headers["location"], subject))

    assert told(oidc.client.get(back)) == REFUSED
    assert oidc.records()[-1].outcome == "refused"


def test_a_provider_that_is_down_is_not_a_refusal(oidc: Service, provider: OpenIdProvider) -> None:
    back = own(provider.consent(login(oidc).headers["location"]))
    provider.down = True
    try:
        answer = oidc.client.get(back)
        unknown = oidc.client.get("/v1/auth/oidc/public/login")
    finally:
        provider.down = False

    assert (answer.status_code, unknown.status_code) == (503, 503)
    assert provider.url not in answer.text


# ---- SAML


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("saml")


@pytest.fixture(scope="module")
def idp(keys: Path) -> SamlIdentityProvider:
    return SamlIdentityProvider(keys)


@pytest.fixture(scope="module")
def impostor(keys: Path) -> SamlIdentityProvider:
    return SamlIdentityProvider(keys, "impostor")


@pytest.fixture(scope="module")
def saml_service(
    idp: SamlIdentityProvider, impostor: SamlIdentityProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    way = {"metadata_file": str(idp.metadata_file), "attributes": {"groups": "memberOf"}, "tenant": "acme"}
    settings = {"public_url": PUBLIC, "saml": {"corp": way}, "attempts_per_address": None}
    with running(tmp_path_factory.mktemp("service"), settings) as made:
        described = made.client.get("/v1/auth/saml/corp/metadata")
        assert described.headers["content-type"].startswith("application/samlmetadata+xml")
        idp.trust(described.text)
        impostor.trust(described.text)
        yield made


@pytest.fixture
def saml(saml_service: Service) -> Service:
    saml_service.fresh()
    return saml_service


def begin(service: Service, **query: str) -> str:
    answer = service.client.get("/v1/auth/saml/corp/login", params=query)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def post(service: Service, form: dict[str, str], browser: TestClient | None = None) -> Response:
    return (browser or service.client).post("/v1/auth/saml/corp/acs", data=form)


def xml_of(form: dict[str, str]) -> str:
    return base64.b64decode(form["SAMLResponse"]).decode()


def with_xml(form: dict[str, str], xml: str | bytes) -> dict[str, str]:
    raw = xml.encode() if isinstance(xml, str) else xml
    return {**form, "SAMLResponse": base64.b64encode(raw).decode()}


@pytest.mark.parametrize("sign_response", [False, True])
def test_a_signed_assertion_opens_a_session(saml: Service, idp: SamlIdentityProvider, sign_response: bool) -> None:
    form = idp.answer(begin(saml), {"memberOf": ["engineers", "all"]}, sign_response=sign_response)

    answer = post(saml, form)

    assert answer.status_code == 200, saml.records()
    found = saml.me(answer.json()).json()
    assert (found["subject"], found["tenant"], found["groups"]) == ("ada", "acme", ["all", "engineers"])
    (record,) = saml.records("auth.sign_in")
    assert (record.actor, record.outcome, record.detail["way"]) == ("ada", "ok", "saml:corp")


def test_a_page_that_waits_is_returned_to(saml: Service, idp: SamlIdentityProvider) -> None:
    answer = post(saml, idp.answer(begin(saml, return_to="/app")))

    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/app#refresh_token=rr_")


def test_an_assertion_is_good_once(saml: Service, idp: SamlIdentityProvider) -> None:
    form = idp.answer(begin(saml))
    cookies = dict(saml.client.cookies)
    assert post(saml, form).status_code == 200

    saml.client.cookies.update(cookies)
    assert told(post(saml, form)) == REFUSED
    assert [record.outcome for record in saml.records()] == ["ok"]


def test_an_assertion_is_good_once_even_where_its_beginning_was_forgotten(
    saml: Service, idp: SamlIdentityProvider
) -> None:
    form = idp.answer(begin(saml))
    cookies = dict(saml.client.cookies)
    assert post(saml, form).status_code == 200
    with sqlite3.connect(saml.home / "ledger.sqlite") as connection:
        spent = hashed(f"begun saml:corp {form['RelayState']}")
        assert connection.execute("DELETE FROM spent_sign_ins WHERE key_hash = ?", (spent,)).rowcount == 1

    saml.client.cookies.update(cookies)
    assert told(post(saml, form)) == REFUSED
    assert saml.records()[-1].detail["reason"] == "replayed"


def test_saml_attempts_are_counted_too(
    saml: Service, idp: SamlIdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted(saml, monkeypatch, 1)
    form = idp.answer(begin(saml))

    assert post(saml, form).status_code == 429
    assert saml.client.get("/v1/auth/saml/corp/login").status_code == 429
    assert saml.records() == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sign_assertion": False}, "saml_unsigned"),
        ({"sign_assertion": False, "sign_response": True}, "saml_unsigned"),
        ({"in_response_to": "id-of-another"}, "saml_in_response_to"),
        ({"sp_entity_id": "https://other.example"}, None),
        ({"destination": "https://other.example/acs"}, None),
        ({"issuer": "https://evil.example"}, None),
    ],
)
def test_what_is_not_for_us_is_refused(
    saml: Service, idp: SamlIdentityProvider, changes: dict[str, Any], reason: str | None
) -> None:
    location = begin(saml)
    try:
        form = idp.answer(location, **changes)
    except Exception:  # noqa: BLE001 - the provider itself may refuse to write such a thing: then it is written by hand
        form = idp.answer(location)
        form = with_xml(form, xml_of(form).replace("/v1/auth/saml/corp/metadata</", "/other</"))

    assert told(post(saml, form)) == REFUSED
    assert reason in (None, saml.records()[-1].detail["reason"])


def test_the_keys_of_the_metadata_and_no_others_are_believed(saml: Service, impostor: SamlIdentityProvider) -> None:
    assert told(post(saml, impostor.answer(begin(saml)))) == REFUSED
    assert saml.records()[-1].detail["reason"].startswith("saml_Signature")


def test_an_answer_to_another_browser_is_refused(saml: Service, idp: SamlIdentityProvider) -> None:
    form = idp.answer(begin(saml))

    assert told(post(saml, form, saml.browser())) == REFUSED
    assert saml.records() == []


@pytest.mark.parametrize(("minutes", "lets_in"), [(0, True), (20, False), (-20, False)])
def test_an_assertion_holds_at_its_time(
    saml: Service, idp: SamlIdentityProvider, monkeypatch: pytest.MonkeyPatch, minutes: int, lets_in: bool
) -> None:
    from saml2 import validate

    form = idp.answer(begin(saml))
    now = int(time.time()) + 60 * minutes
    monkeypatch.setattr(validate.time_util, "utc_now", lambda: now)

    assert (post(saml, form).status_code == 200) is lets_in
    assert lets_in or saml.records()[-1].detail["reason"] in ("saml_ResponseLifetimeExceed", "saml_ToEarly")


# Signature wrapping: the signed assertion stays, somewhere, and another one says who signed in.

ASSERTION = re.compile(r"<(\w+):Assertion .*</\1:Assertion>", re.DOTALL)
SIGNATURE = re.compile(r"<(\w+):Signature[ >].*?</\1:Signature>", re.DOTALL)


def _forged(assertion: str, **changes: str) -> str:
    evil = SIGNATURE.sub("", assertion).replace(">ada<", ">root<")
    return re.sub(r'ID="[^"]+"', 'ID="evil"', evil, count=1) if changes.get("new_id", "yes") == "yes" else evil


def _wrapped(xml: str) -> dict[str, str]:
    found = ASSERTION.search(xml)
    assert found is not None
    real = found.group(0)
    signature = SIGNATURE.search(real).group(0)
    close = f"</{found.group(1)}:Assertion>"
    evil = _forged(real)
    bare = SIGNATURE.sub("", real)
    inside = evil.replace(close, real + close)
    signed_evil = evil.replace("</ns1:Issuer>", "</ns1:Issuer>" + signature) if "ns1:Issuer" in evil else evil
    holding = signature[: signature.rindex("</")]
    end = signature[signature.rindex("</") :]
    prefix = signature[1 : signature.index(":")]
    objected = f"{holding}<{prefix}:Object>{bare}</{prefix}:Object>{end}"
    extension = "<samlp:Extensions xmlns:samlp='urn:oasis:names:tc:SAML:2.0:protocol'>{}</samlp:Extensions>"
    return {
        "evil before": xml.replace(real, evil + real),
        "evil after": xml.replace(real, real + evil),
        "real inside evil": xml.replace(real, inside),
        "evil signed by the real one's signature": xml.replace(real, signed_evil + bare),
        "real in the signature's object": xml.replace(real, evil.replace(close, objected + close)),
        "real in extensions": xml.replace(real, extension.format(real) + evil),
        "real in the text of a name": xml.replace(real, evil.replace(">root<", ">root" + real + "<")),
        "same id twice": xml.replace(real, _forged(real, new_id="no") + real),
        "response in response": xml.replace(real, evil + "<x>" + xml.partition("?>")[2] + "</x>"),
        "changed name": xml.replace(">ada<", ">root<"),
        "comment in the name": xml.replace(">ada<", ">ada<!-- -->.example<"),
        "no signature": xml.replace(signature, ""),
        "document type": xml.replace("<ns0:Response", "<!DOCTYPE a [<!ENTITY b 'root'>]><ns0:Response", 1),
        "processing instruction": xml.replace(">ada<", ">ada<?x?><"),
        "another encoding": xml.replace("?>", ' encoding="utf-7"?>', 1),
    }


WRAPPED = [
    *("evil before", "evil after", "real inside evil", "evil signed by the real one's signature"),
    *("real in the signature's object", "real in extensions", "real in the text of a name", "same id twice"),
    *("response in response", "changed name", "comment in the name", "no signature", "document type"),
    *("processing instruction", "another encoding"),
]


@pytest.mark.parametrize("how", WRAPPED)
def test_a_wrapped_or_changed_assertion_lets_nobody_in(saml: Service, idp: SamlIdentityProvider, how: str) -> None:
    form = idp.answer(begin(saml))
    xml = xml_of(form)
    forged = _wrapped(xml)[how]
    assert forged != xml

    assert told(post(saml, with_xml(form, forged))) == REFUSED
    assert post(saml, idp.answer(begin(saml))).status_code == 200  # its like, not forged, is accepted


@pytest.mark.parametrize(
    "text",
    ["", "%%%", "PGE+", base64.b64encode(b"<a" * 200_000).decode(), base64.b64encode(zlib.compress(b"<a/>")).decode()],
)
def test_what_is_no_response_is_refused(saml: Service, text: str) -> None:
    state = parameters(begin(saml))["RelayState"]

    assert told(post(saml, {"SAMLResponse": text, "RelayState": state})) == REFUSED


def test_only_forms_are_read(saml: Service) -> None:
    assert saml.client.post("/v1/auth/saml/corp/acs", json={}).status_code == 415
    assert told(post(saml, {"x": "y"})) == REFUSED
