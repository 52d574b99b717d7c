"""Who asks: the person that a signed token names, as the subject and the context of a question to Habilis.

Two kinds of token: a VIHF, the SAML 2.0 assertion by which French software says who its user is, in base64url; a JWT. Nothing of either is read before its
signature is verified with a key that was given to us beforehand, and of an assertion only the very element that was signed.

What a token does not say is left out. Habilis gives what is absent the value that refuses.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import jwt
from cryptography.exceptions import InvalidSignature
from cryptography.x509 import Certificate
from lxml import etree
from signxml import DigestAlgorithm, SignatureConfiguration, SignatureMethod, XMLVerifier
from signxml.exceptions import SignXMLException

LARGEST = 32_768
"""Bytes of an assertion; the official samples have 5,000."""
AGE, SKEW = 300.0, 60.0
"""Seconds for which an assertion is good that does not say until when, and by which its clock may be ahead of ours."""


class NotIdentified(Exception):
    """Nobody is named by anybody we trust. The message quotes nothing of the token."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who asks. `patient`: the only one about whom this token lets him ask, if it says so."""

    subject: Mapping[str, Any]
    context: Mapping[str, Any]
    patient: str | None = None


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom we believe. `structures`: the certificate by which each structure (FINESS) signs what it says of its own users.

    `regulation_centres`: the structures whose users take emergency calls; an assertion does not say it.
    """

    structures: Mapping[str, Certificate] = field(default_factory=dict)
    regulation_centres: frozenset[str] = frozenset()
    jwt_key: str = ""
    jwt_issuer: str = ""
    jwt_audience: str = ""


def identify(authorization: str, trust: Trust, now: float) -> Identity:
    """The person of an Authorization header, at this instant. Raises `NotIdentified`."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise NotIdentified("send `Authorization: Bearer` and a VIHF in base64url, or a JWT")
    return read_jwt(token, trust) if token.count(".") == 2 else read_vihf(token, trust, now)


# --- JWT -------------------------------------------------------------------------------------------------------------

CLAIMS = ("profession", "specialty", "structure", "authentication", "role")


def read_jwt(token: str, trust: Trust) -> Identity:
    """`sub` is the national identifier, `type` the type of subject (`professional` unless it is said); the other claims are called as in the policy."""
    if not trust.jwt_key:
        raise NotIdentified("no issuer of JWTs is trusted here")
    try:
        required = {"require": ["exp", "iss", "aud", "sub"]}
        said = jwt.decode(token, trust.jwt_key, ["ES256", "RS256"], audience=trust.jwt_audience, issuer=trust.jwt_issuer, options=required)
    except jwt.PyJWTError:
        raise NotIdentified("the JWT is not valid, or no longer") from None
    properties = {name: said[name] for name in CLAIMS if name in said}
    context = {"purpose": said.get("purpose"), "session": said.get("sid")}
    return Identity({"type": said.get("type", "professional"), "id": said["sub"], "properties": properties}, _said(context), said.get("patient"))


# --- VIHF ------------------------------------------------------------------------------------------------------------

SAML, DSIG = "{urn:oasis:names:tc:SAML:2.0:assertion}", "{http://www.w3.org/2000/09/xmldsig#}"
ROLE = "urn:oasis:names:tc:xacml:2.0:subject:role"
MODE = "urn:oasis:names:tc:xspa:1.0:subject:purposeofuse"
PATIENT = "urn:oasis:names:tc:xacml:2.0:resource:resource-id"
SECRET = "urn:oasis:names:tc:xspa:1.0:resource:patient:hl7:confidentiality-code"
PROFESSIONS = {"1.2.250.1.71.1.2.7": "G15", "1.2.250.1.213.1.6.1.109": "R95", "1.2.250.1.213.1.6.1.4": "R94"}
"""Code systems of professions, and how the policy names their codes: TRE_G15 code 10 is `G15_10`."""
SPECIALTIES = "1.2.250.1.71.4.2.5"
"""TRE_R01, of which the second role of a physician is."""
VOUCHED = ("INDIRECTE", "INDIRECT_RENFORCEE")
"""How a structure can say that its user was authenticated. A card (`DIRECTE`) signs for itself: nobody else's signature can stand for it."""
PURPOSES = {"urn:dmp": "care"}
"""What a resource is used for. The French record may be used for care, and for nothing else (L1111-18)."""

_INS = re.compile(r"([0-9AB]{15})\^\^\^&1\.2\.250\.1\.213\.1\.4\.(?:8|9|10|11)&ISO\^NH")
_RPPS = re.compile(r"8([0-9]{11})")
_FINESS = re.compile(r"1([0-9AB]{9})")
_METHODS = frozenset(
    {
        SignatureMethod.RSA_SHA256, SignatureMethod.RSA_SHA384, SignatureMethod.RSA_SHA512,
        SignatureMethod.ECDSA_SHA256, SignatureMethod.ECDSA_SHA384, SignatureMethod.ECDSA_SHA512,
    }
)  # fmt: skip
_DIGESTS = frozenset({DigestAlgorithm.SHA256, DigestAlgorithm.SHA384, DigestAlgorithm.SHA512})
_CONFIGURATION = SignatureConfiguration(location="./", expect_references=1, signature_methods=_METHODS, digest_algorithms=_DIGESTS)
_Element = Any


def read_vihf(token: str, trust: Trust, now: float) -> Identity:
    """The professional whom a structure's assertion names. The structure that it claims says which certificate is to have signed it."""
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise NotIdentified("the token is neither a JWT nor an assertion in base64url") from None
    claimed = _parse(data)
    certificate = trust.structures.get(_structure(claimed))
    if certificate is None:
        raise NotIdentified("the assertion is of a structure that is not trusted here")
    assertion = _signed(data, claimed, certificate, now)
    if _structure(assertion) != _structure(claimed):
        raise NotIdentified("the assertion is of another structure than the one that signed it")
    _check_time(assertion, now)
    return identity_of(assertion, trust)


def _parse(data: bytes) -> _Element:
    """One assertion and nothing around it. INVARIANT: no entity is expanded, no file or network is read, and there is no document type to declare any."""
    if len(data) > LARGEST:
        raise NotIdentified("the assertion is too large")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError:
        raise NotIdentified("the assertion is not XML") from None
    if root.getroottree().docinfo.doctype:
        raise NotIdentified("the assertion declares a document type")
    if root.tag != f"{SAML}Assertion" or sum(1 for _ in root.iter(f"{SAML}Assertion")) != 1 or sum(1 for _ in root.iter(f"{DSIG}Signature")) != 1:
        raise NotIdentified("there must be one assertion with one signature, and nothing around it")
    return root


def _signed(data: bytes, claimed: _Element, certificate: Certificate, now: float) -> _Element:
    """The assertion as it was signed. INVARIANT: what is returned is what the signature covers, and it is the whole of what was sent."""
    if not certificate.not_valid_before_utc.timestamp() <= now <= certificate.not_valid_after_utc.timestamp():
        raise NotIdentified("the certificate of the structure is not valid now")
    try:
        verified = XMLVerifier().verify(data, x509_cert=certificate, expect_config=_CONFIGURATION, id_attribute="ID")
    except (SignXMLException, InvalidSignature, etree.Error, ValueError):
        raise NotIdentified("the signature of the assertion is not valid") from None
    signed = verified.signed_xml  # type: ignore[union-attr]
    if signed is None or signed.tag != claimed.tag or signed.get("ID") != claimed.get("ID"):
        raise NotIdentified("the signature is not that of the assertion")
    return signed


def _check_time(assertion: _Element, now: float) -> None:
    issued = _instant(assertion.get("IssueInstant"))
    conditions = assertion.find(f"{SAML}Conditions")
    start, end = issued, issued + AGE
    if conditions is not None:
        start = max(start, _instant(conditions.get("NotBefore", assertion.get("IssueInstant"))))
        end = min(end, *(_instant(conditions.get(name)) for name in ("NotOnOrAfter", "NotAfter") if conditions.get(name)), end)
    if not start - SKEW <= now < end:
        raise NotIdentified("the assertion is not valid now")


def _instant(text: str | None) -> float:
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise NotIdentified("an instant of the assertion cannot be read")
    return at.timestamp()


def identity_of(assertion: _Element, trust: Trust) -> Identity:
    """What an assertion says, in the policy's words. To be called with nothing but an assertion whose signature was verified."""
    structure, authentication = _structure(assertion), _text(assertion, "Authentification_Mode")
    roles, mode = _codes(assertion, ROLE), _codes(assertion, MODE)
    professions = [f"{PROFESSIONS[system]}_{code}" for code, system in roles if system in PROFESSIONS]
    specialties = [code for code, system in roles if system == SPECIALTIES]
    if len(mode) != 1 or len(professions) > 1:
        raise NotIdentified("the assertion must name one access mode, and one profession at most")
    if authentication not in VOUCHED:
        raise NotIdentified("a structure cannot vouch for this mode of authentication")
    properties = {
        "profession": professions[0] if professions else None,
        "specialty": specialties[0] if specialties else None,
        "structure": structure,
        "authentication": authentication,
        "role": "regulation" if structure in trust.regulation_centres else None,
    }
    context = {
        "access_mode": mode[0][0],
        "justification": _text(assertion, "Mode_Acces_Raison"),
        "purpose": PURPOSES.get(_text(assertion, "Ressource_URN") or ""),
        "secret_session": True if _attribute(assertion, SECRET) is not None else None,
        "session": _session(assertion),
    }
    subject = {"type": "professional", "id": _professional(assertion), "properties": _said(properties)}
    return Identity(subject, _said(context), _patient(assertion))


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _professional(assertion: _Element) -> str:
    """The RPPS: the national identifier (IDNAT) without the 8 before it. A local identifier names nobody whom a patient could have blocked."""
    found = _RPPS.fullmatch((assertion.findtext(f"{SAML}Subject/{SAML}NameID") or "").strip())
    if found is None:
        raise NotIdentified("the assertion does not name a professional by the national identifier")
    return found[1]


def _structure(assertion: _Element) -> str:
    """The FINESS: the national identifier of the structure without the 1 before it."""
    found = _FINESS.fullmatch(_text(assertion, "Identifiant_Structure") or "")
    if found is None:
        raise NotIdentified("the assertion does not name its structure by the national identifier")
    return found[1]


def _patient(assertion: _Element) -> str | None:
    text = _text(assertion, PATIENT)
    if text is None:
        return None
    found = _INS.fullmatch(text)
    if found is None:
        raise NotIdentified("the assertion does not name its patient by the INS")
    return found[1]


def _session(assertion: _Element) -> str | None:
    """When the user logged in: the same for all assertions of his session."""
    statement = assertion.find(f"{SAML}AuthnStatement")
    return None if statement is None else statement.get("AuthnInstant")


def _attribute(assertion: _Element, name: str) -> _Element | None:
    """An attribute. Two of one name are two answers to one question: neither is believed."""
    found = [one for one in assertion.iterfind(f"{SAML}AttributeStatement/{SAML}Attribute") if one.get("Name") == name]
    if len(found) > 1:
        raise NotIdentified("the assertion says one thing twice")
    return found[0] if found else None


def _text(assertion: _Element, name: str) -> str | None:
    attribute = _attribute(assertion, name)
    values = [] if attribute is None else attribute.findall(f"{SAML}AttributeValue")
    if len(values) > 1:
        raise NotIdentified("the assertion says one thing twice")
    return (values[0].text or "").strip() or None if values else None


def _codes(assertion: _Element, name: str) -> list[tuple[str, str]]:
    """The codes of an attribute, each with its code system: elements of type CE, in as many values."""
    attribute = _attribute(assertion, name)
    coded = [] if attribute is None else attribute.findall(f"{SAML}AttributeValue/*")
    return [(one.get("code", ""), one.get("codeSystem", "")) for one in coded]
