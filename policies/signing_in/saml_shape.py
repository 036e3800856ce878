"""The one shape of a SAML response that is looked at: one assertion, whole, signed as itself, and nothing beside it.

Signature wrapping works where one program checks the signature of one element and another reads another one
(Somorovsky et al., "On Breaking SAML", USENIX Security 2012). Here there is only one element that either could mean:
a response with a second assertion, a second id, a signature in another place or over another element is refused before
its signature is looked at, and what is read afterwards is that very element.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError

from policies.errors import SignInRefused

MAX_BYTES = 256_000
ASSERTION = "{urn:oasis:names:tc:SAML:2.0:assertion}"
PROTOCOL = "{urn:oasis:names:tc:SAML:2.0:protocol}"
SIGNATURE = "{http://www.w3.org/2000/09/xmldsig#}"
SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
_EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
_TRANSFORMS = frozenset({"http://www.w3.org/2000/09/xmldsig#enveloped-signature", _EXCLUSIVE})
_MORE = "http://www.w3.org/2001/04/xmldsig-more#"
_SIGNATURES = frozenset(f"{_MORE}{kind}-sha{bits}" for kind in ("rsa", "ecdsa") for bits in (256, 384, 512))
_DIGESTS = frozenset({"http://www.w3.org/2001/04/xmlenc#sha256", "http://www.w3.org/2001/04/xmlenc#sha512"})
_DIGESTS |= {f"{_MORE}sha384"}
_DECLARATION = re.compile(
    rb"""^\s*<\?xml version=["']1\.0["']( encoding=["'](utf|UTF)-8["'])?( standalone="no")?\s*\?>"""
)
_IDS = frozenset({"ID", "Id", "id", "{http://www.w3.org/XML/1998/namespace}id"})
_PLACED = frozenset({f"{PROTOCOL}Response", f"{ASSERTION}Assertion", f"{ASSERTION}EncryptedAssertion"})


@dataclass(frozen=True, slots=True)
class Expected:
    """What the response must name: who it is from, for whom, where to, and to which request."""

    identity_provider: str
    entity_id: str
    consumer: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Asserted:
    """What the one assertion says. Times as they are written; they are checked with the signature."""

    assertion_id: str
    not_on_or_after: str
    name_id: str
    attributes: dict[str, list[str]]


def read_response(xml: bytes, expected: Expected) -> Asserted:
    """Check the shape and read the assertion, whose signature and times are still to be checked.

    Raises `SignInRefused` for every other shape.
    """
    root = _parsed(xml)
    assertion = _only_assertion(root)
    _check_ids(root)
    _check_signatures(root, assertion)
    _check_response(root, expected)
    if _text(assertion, "Issuer") != expected.identity_provider:
        raise SignInRefused("saml_issuer")
    not_on_or_after = _check_conditions(assertion, expected)
    name_id = _check_subject(assertion, expected)
    if len(assertion.findall(f"{ASSERTION}AuthnStatement")) != 1:
        raise SignInRefused("saml_statement")
    return Asserted(assertion.get("ID", ""), not_on_or_after, name_id, _attributes(assertion))


def _parsed(xml: bytes) -> Element:
    from defusedxml.common import DefusedXmlException  # type: ignore[import-untyped]
    from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]

    # A comment splits a text for some programs and not for others; nothing that signs writes one.
    # Another encoding than UTF-8 would be another text for whoever heeds the declaration.
    body = _DECLARATION.sub(b"", xml, count=1)
    if len(xml) > MAX_BYTES or b"<!" in body or b"<?" in body or b"\x00" in body:
        raise SignInRefused("saml_xml")
    try:
        root: Element = fromstring(body.decode("utf-8"), forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, RecursionError):
        raise SignInRefused("saml_xml") from None
    return root


def _only_assertion(root: Element) -> Element:
    if root.tag != f"{PROTOCOL}Response":
        raise SignInRefused("saml_shape")
    placed = [element for element in root.iter() if element.tag in _PLACED]
    local = [element for element in root.iter() if element.tag.rpartition("}")[2] in ("Assertion", "Response")]
    if len(placed) != 2 or len(local) != 2 or placed[1] not in list(root) or placed[1].tag != f"{ASSERTION}Assertion":
        raise SignInRefused("saml_shape")
    return placed[1]


def _check_ids(root: Element) -> None:
    ids = [value for element in root.iter() for name, value in element.attrib.items() if name in _IDS]
    if len(set(ids)) != len(ids) or not all(ids):
        raise SignInRefused("saml_ids")


def _check_signatures(root: Element, assertion: Element) -> None:
    """See that the assertion is signed as a whole and as itself, and perhaps the response, and nothing else."""
    of_assertion = assertion.findall(f"{SIGNATURE}Signature")
    of_response = root.findall(f"{SIGNATURE}Signature")
    everywhere = [element for element in root.iter() if element.tag.rpartition("}")[2] == "Signature"]
    if len(of_assertion) != 1 or len(of_response) > 1 or len(everywhere) != 1 + len(of_response):
        raise SignInRefused("saml_unsigned" if not of_assertion else "saml_signature_place")
    for signature, signed in ((of_assertion[0], assertion), *((each, root) for each in of_response)):
        _check_signature(signature, signed.get("ID", ""))


def _check_signature(signature: Element, signed_id: str) -> None:
    references = [element for element in signature.iter() if element.tag == f"{SIGNATURE}Reference"]
    if len(references) != 1 or not signed_id or references[0].get("URI") != f"#{signed_id}":
        raise SignInRefused("saml_reference")
    if any(element.tag == f"{SIGNATURE}Object" for element in signature.iter()):
        raise SignInRefused("saml_reference")
    used = {
        "CanonicalizationMethod": {_EXCLUSIVE},
        "SignatureMethod": _SIGNATURES,
        "DigestMethod": _DIGESTS,
        "Transform": _TRANSFORMS,
    }
    for name, allowed in used.items():
        found = [element.get("Algorithm") for element in signature.iter() if element.tag == f"{SIGNATURE}{name}"]
        if not found or not set(found) <= allowed:
            raise SignInRefused("saml_algorithm")


def _check_response(root: Element, expected: Expected) -> None:
    status = root.find(f"{PROTOCOL}Status/{PROTOCOL}StatusCode")
    if status is None or status.get("Value") != SUCCESS:
        raise SignInRefused("saml_status")
    issuer = root.find(f"{ASSERTION}Issuer")
    if issuer is not None and _own_text(issuer) != expected.identity_provider:
        raise SignInRefused("saml_issuer")
    if root.get("Destination", expected.consumer) != expected.consumer:
        raise SignInRefused("saml_destination")
    if root.get("InResponseTo") != expected.request_id:
        raise SignInRefused("saml_in_response_to")


def _check_conditions(assertion: Element, expected: Expected) -> str:
    conditions = assertion.findall(f"{ASSERTION}Conditions")
    if len(conditions) != 1 or not conditions[0].get("NotOnOrAfter"):
        raise SignInRefused("saml_conditions")
    restrictions = conditions[0].findall(f"{ASSERTION}AudienceRestriction")
    # Several restrictions must all hold (SAML core, 2.5.1.4).
    if not restrictions or not all(expected.entity_id in _audiences(each) for each in restrictions):
        raise SignInRefused("saml_audience")
    return str(conditions[0].get("NotOnOrAfter"))


def _audiences(restriction: Element) -> list[str]:
    return [_own_text(audience) for audience in restriction.findall(f"{ASSERTION}Audience")]


def _check_subject(assertion: Element, expected: Expected) -> str:
    subjects = assertion.findall(f"{ASSERTION}Subject")
    confirmations = subjects[0].findall(f"{ASSERTION}SubjectConfirmation") if len(subjects) == 1 else []
    if len(confirmations) != 1 or confirmations[0].get("Method") != BEARER:
        raise SignInRefused("saml_confirmation")
    data = confirmations[0].find(f"{ASSERTION}SubjectConfirmationData")
    if data is None or not data.get("NotOnOrAfter") or data.get("NotBefore"):
        raise SignInRefused("saml_confirmation")
    if data.get("Recipient") != expected.consumer:
        raise SignInRefused("saml_recipient")
    if data.get("InResponseTo") != expected.request_id:
        raise SignInRefused("saml_in_response_to")
    return _text(subjects[0], "NameID")


def _attributes(assertion: Element) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for attribute in assertion.iterfind(f"{ASSERTION}AttributeStatement/{ASSERTION}Attribute"):
        values = found.setdefault(attribute.get("Name", ""), [])
        values += [_own_text(value) for value in attribute.findall(f"{ASSERTION}AttributeValue")]
    return found


def _text(parent: Element, name: str) -> str:
    found = list(_children(parent, name))
    return _own_text(found[0]) if len(found) == 1 else ""


def _children(parent: Element, name: str) -> Iterator[Element]:
    return (child for child in parent if child.tag == f"{ASSERTION}{name}")


def _own_text(element: Element) -> str:
    if len(element):  # an element within a name is nothing that anybody writes in good faith
        raise SignInRefused("saml_text")
    return (element.text or "").strip()
