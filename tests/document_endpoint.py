"""The example endpoint as a process of its own, the tokens of its users, and assertions signed by a structure whose key is made here."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import jwt
from api_server import PATIENT, PHYSICIAN, ROOT, Server, free_port, key_of
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from lxml import etree
from signxml import XMLSigner

FOLDER = ROOT / "examples" / "document_endpoint"
STRUCTURE, SAMU = "750000028", "750712184"
ISSUER, AUDIENCE = "https://sso.hospital.example", "documents"


# --- keys ------------------------------------------------------------------------------------------------------------


@functools.cache
def jwt_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@functools.cache
def signer(structure: str) -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
    """The key and the certificate of a structure, valid for a year around now."""
    key = rsa.generate_private_key(65537, 2048)
    return key, certificate(key, structure)


def certificate(key: rsa.RSAPrivateKey, name: str, days: int = 365) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key()).serial_number(x509.random_serial_number())
    return made.not_valid_before(now - dt.timedelta(days=400)).not_valid_after(now + dt.timedelta(days=days)).sign(key, hashes.SHA256())


def pem(one: x509.Certificate) -> bytes:
    return one.public_bytes(serialization.Encoding.PEM)


# --- tokens ----------------------------------------------------------------------------------------------------------


def token(rpps: str = PHYSICIAN, **claims: Any) -> str:
    """A JWT of the hospital's own: a physician, strongly authenticated, who asks for care."""
    said = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": rpps, "exp": time.time() + 300, "sid": "session-1",
        "profession": "G15_10", "authentication": "DIRECTE", "structure": "750000036", "purpose": "care",
    } | claims  # fmt: skip
    return jwt.encode({name: value for name, value in said.items() if value is not None}, jwt_key(), "ES256")


ATTRIBUTES = {
    "VIHF_Version": "4.0",
    "Authentification_Mode": "INDIRECT_RENFORCEE",
    "Secteur_Activite": "SA01^1.2.250.1.71.4.2.4",
    "urn:oasis:names:tc:xacml:2.0:resource:resource-id": f"{PATIENT}^^^&1.2.250.1.213.1.4.8&ISO^NH",
    "Ressource_URN": "urn:dmp",
    "urn:oasis:names:tc:xspa:1.0:subject:subject-id": "DUPONT, Anne, Médecine interne",
    "Identifiant_Structure": f"1{STRUCTURE}",
    "LPS_Nom": "Exemple",
    "urn:oasis:names:tc:xspa:1.0:subject:purposeofuse": [("PurposeOfUse", "normal", "1.2.250.1.213.1.1.4.248", "Accès normal")],
    "urn:oasis:names:tc:xacml:2.0:subject:role": [
        ("Role", "10", "1.2.250.1.71.1.2.7", "Médecin"),
        ("Role", "SM26", "1.2.250.1.71.4.2.5", "Qualifié en médecine générale"),
    ],
}
"""What a physician's assertion says; a list stands for coded values."""
MODE = "urn:oasis:names:tc:xspa:1.0:subject:purposeofuse"
SECRET = "urn:oasis:names:tc:xspa:1.0:resource:patient:hl7:confidentiality-code"
SAML, HL7 = "urn:oasis:names:tc:SAML:2.0:assertion", "urn:hl7-org:v3"
DSIG, C14N = "http://www.w3.org/2000/09/xmldsig#", "http://www.w3.org/2001/10/xml-exc-c14n#"
XSI = "http://www.w3.org/2001/XMLSchema-instance"


def mode(code: str) -> dict[str, Any]:
    return {MODE: [("PurposeOfUse", code, "1.2.250.1.213.1.1.4.248", code)]}


def assertion(attributes: Mapping[str, Any] | None = None, *, rpps: str = PHYSICIAN, id: str = "_a1", age: float = 0, conditions: str = "") -> etree._Element:
    """A VIHF, unsigned. An attribute that is `None` is left out."""
    issued = instant(-age)
    several = {**ATTRIBUTES, **(attributes or {})}
    root = etree.fromstring(
        f'<Assertion xmlns="{SAML}" xmlns:xsi="{XSI}" ID="{id}" IssueInstant="{issued}" Version="2.0">'
        f'<Issuer Format="urn:oasis:names:tc:SAML:1.1:nameid-format:X509SubjectName">C=FR, O=Exemple, CN=DMP SIGN</Issuer>'
        f"<Subject><NameID>8{rpps}</NameID></Subject>{conditions}"
        f'<AuthnStatement AuthnInstant="{instant(-600)}"><AuthnContext>'
        f"<AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:SmartcardPKI</AuthnContextClassRef></AuthnContext></AuthnStatement>"
        f"<AttributeStatement/></Assertion>"
    )
    statement = root.find(f"{{{SAML}}}AttributeStatement")
    for name, value in several.items():
        if value is not None:
            attribute = etree.SubElement(statement, f"{{{SAML}}}Attribute", Name=name)
            for one in value if isinstance(value, list) else [value]:
                _add_value(attribute, one)
    return root


def _add_value(attribute: etree._Element, value: Any) -> None:
    made = etree.SubElement(attribute, f"{{{SAML}}}AttributeValue")
    if isinstance(value, str):
        made.text = value
    else:
        tag, code, system, name = value
        coded = etree.SubElement(made, f"{{{HL7}}}{tag}", {f"{{{XSI}}}type": "CE"}, nsmap={None: HL7})
        coded.attrib.update({"code": code, "codeSystem": system, "displayName": name})


def instant(after: float = 0) -> str:
    return (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=after)).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def signed(unsigned: etree._Element, structure: str = STRUCTURE, key: tuple[rsa.RSAPrivateKey, x509.Certificate] | None = None) -> etree._Element:
    """The assertion with its signature, which stands after the issuer, as SAML wants it."""
    private, public = key or signer(structure)
    unsigned = etree.fromstring(etree.tostring(unsigned))
    unsigned.insert(1, etree.Element(f"{{{DSIG}}}Signature", {"Id": "placeholder"}, nsmap={"ds": DSIG}))
    making = XMLSigner(c14n_algorithm=C14N)
    return making.sign(unsigned, key=private, cert=[public], reference_uri=unsigned.get("ID"), id_attribute="ID")


def sent(xml: etree._Element | bytes) -> str:
    """As it stands in an Authorization header (RFC 7522, 2.1)."""
    data = xml if isinstance(xml, bytes) else etree.tostring(xml)
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def vihf(attributes: Mapping[str, Any] | None = None, *, structure: str = STRUCTURE, **more: Any) -> str:
    """A VIHF that this structure signed about its own user, ready to be sent."""
    return sent(signed(assertion({"Identifiant_Structure": f"1{structure}", **(attributes or {})}, **more), structure))


# --- the process -----------------------------------------------------------------------------------------------------


class Endpoint:
    """A running endpoint, beside a service."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path):
        self.process, self.port, self.log = process, port, log

    def client(self, bearer: str | None = None, **headers: str) -> httpx.Client:
        """A client with a token; `x_break_glass` and the like are headers."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        authorization = {} if bearer is None else {"authorization": f"Bearer {bearer}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=authorization | named, timeout=30, trust_env=False)

    def list(self, bearer: str, patient: str = PATIENT, headers: Mapping[str, str] | None = None, **query: Any) -> httpx.Response:
        with self.client(bearer) as client:
            return client.get("/DocumentReference", params={"patient": patient, **query}, headers=headers)

    def content(self, bearer: str, id: str, patient: str = PATIENT, **headers: str) -> httpx.Response:
        with self.client(bearer, **headers) as client:
            return client.get(f"/DocumentReference/{id}/$content", params={"patient": patient})


def glass(justification: str) -> dict[str, str]:
    return {"x-break-glass": quote(justification)}


@contextlib.contextmanager
def endpoint(server: Server, folder: Path, **settings: str) -> Iterator[Endpoint]:
    """The endpoint, for as long as the block lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    for structure in (STRUCTURE, SAMU):
        (folder / f"{structure}.pem").write_bytes(pem(signer(structure)[1]))
    public = jwt_key().public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "jwt.key").write_bytes(public)
    port = free_port()
    given = {
        "habilis": server.url, "key": key_of("store"), "structures": str(folder), "regulation_centres": json.dumps([SAMU]),
        "jwt_key": str(folder / "jwt.key"), "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE,
    } | settings  # fmt: skip
    environment = {**os.environ, **{f"STORE_{name.upper()}": value for name, value in given.items()}}
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(FOLDER), "--factory", "endpoint:create_app", "--port", str(port), "--no-access-log"]
    with (folder / "endpoint.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
    made = Endpoint(process, port, folder / "endpoint.log")
    try:
        _wait(made)
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(one: Endpoint, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if one.process.poll() is not None:
            raise AssertionError(f"the endpoint ended: {one.log.read_text()}")
        with contextlib.suppress(httpx.HTTPError), one.client() as client:
            client.get("/openapi.json")
            return
        time.sleep(0.05)
    raise AssertionError(f"the endpoint was not ready: {one.log.read_text()}")
