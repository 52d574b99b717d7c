"""The example endpoint before a real service: it shows what Habilis permits, when it permits it, and nothing else."""

from __future__ import annotations

import base64
import contextlib
import copy
import datetime as dt
import hashlib
import hmac
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import api_server
import httpx
import jwt
import pytest
from api_server import NURSE, PATIENT, PHYSICIAN, Server
from cryptography.hazmat.primitives import serialization
from document_endpoint import (
    ATTRIBUTES,
    AUDIENCE,
    C14N,
    DSIG,
    FOLDER,
    ISSUER,
    MODE,
    SAML,
    SAMU,
    SECRET,
    STRUCTURE,
    Endpoint,
    assertion,
    certificate,
    endpoint,
    glass,
    instant,
    jwt_key,
    mode,
    sent,
    signed,
    signer,
    token,
    vihf,
)
from lxml import etree
from signxml import DigestAlgorithm, SignatureMethod, XMLSigner

from engine.compiled import dump
from engine.decision_log.read import LogReader
from engine.fhir import parse_document_reference
from engine.pack import load_pack
from engine.pdp import load_pdp
from engine.vocabulary import Cell

OTHER_PATIENT, COLLEAGUE = "189012A01234513", "10000023118"
MASTER = "urn:oid:1.2.250.1.213.1.4.8.99999."
DOCUMENTS = json.loads((FOLDER / "documents.json").read_text())


@cache
def pack_with_watermark(folder: Path) -> Path:
    """The French pack, whose care teams also owe an obligation that no store can do."""
    here = folder / "pack"
    shutil.copytree(api_server.ROOT / "policies", here)
    words = 'to = "requester"\nfr = "Afficher un filigrane."\nen = "Show a watermark."\n'
    text = (here / "pack.toml").read_text()
    (here / "pack.toml").write_text(text.replace("[obligation.flag_access]", f"[obligation.watermark]\n{words}\n[obligation.flag_access]", 1))
    lines = (here / "reasons.csv").read_text().splitlines(keepends=True)
    lines = [line.replace("notify_first_access,", "notify_first_access watermark,", 1) if line.startswith("R16,") else line for line in lines]
    (here / "reasons.csv").write_text("".join(lines))
    compiled = folder / "pack.habilis"
    compiled.write_bytes(dump(load_pdp(here)))
    return compiled


@dataclass
class World:
    """A service, an endpoint before it, and the record of one patient."""

    server: Server
    endpoint: Endpoint

    def act(self, name: str, *, on: Mapping[str, Any] | None = None, **properties: Any) -> str:
        """Something that the patient does; the consent token after it."""
        body = {
            "subject": {"type": "patient", "id": PATIENT},
            "action": {"name": name, "properties": properties},
            "resource": on or {"type": "record", "id": PATIENT},
            "context": {},
        }
        with self.server.client("consent_desk") as client:
            told = client.post("/consent/v1/acts", json=body).json()
        assert told["decision"], told
        return told["context"]["consent_token"]

    def entries(self, claim: Callable[[Mapping[str, Any]], bool]) -> list[dict[str, Any]]:
        with LogReader(f"sqlite:///{self.server.folder}/decision-log") as reader:
            return [reader.readable(one.body or {}) for one in reader.matching(claim)]

    def last_question(self) -> dict[str, Any]:
        return self.entries(lambda body: body["kind"] == "decision")[-1]

    def outcomes(self, decision: str) -> list[dict[str, Any]]:
        return self.entries(lambda body: body["kind"] == "outcome" and body["decision"] == decision)

    def listed(self, bearer: str, **query: Any) -> list[str]:
        return ids(self.endpoint.list(bearer, **query))


def ids(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [one["resource"]["id"] for one in response.json()["entry"] if one["search"]["mode"] == "match"]


def texts(response: httpx.Response) -> list[str]:
    """What the user reads, in French and in English."""
    return [issue["details"]["text"] for issue in response.json()["issue"]]


def someone(professional: str = PHYSICIAN) -> dict[str, str]:
    return {"type": "professional", "id": professional}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("endpoint")
    server = api_server.start(folder / "habilis", pack=str(pack_with_watermark(folder)))
    try:
        with endpoint(server, folder / "endpoint", timeout="20", documents=str(_documents(folder))) as running:
            made = World(server, running)
            made.act("open", birth_date="1979-03-28")
            made.act("grant_access", target=someone())
            yield made
            server = made.server
    finally:
        server.kill()


def _documents(folder: Path) -> Path:
    """Those of the example, the one that is hidden from the patient deposited yesterday."""
    documents = copy.deepcopy(DOCUMENTS)
    hidden = next(one for one in documents if one["id"] == "anatomopathologie")
    hidden["date"] = (dt.datetime.now(dt.UTC) - dt.timedelta(days=1)).isoformat()
    path = folder / "documents.json"
    path.write_text(json.dumps(documents))
    return path


@contextlib.contextmanager
def undone(act: Callable[[], object]) -> Iterator[None]:
    try:
        yield
    finally:
        act()


# --- lists -----------------------------------------------------------------------------------------------------------

VISIBLE = ["anatomopathologie", "biologie", "vaccination", "ordonnance", "consultation", "urgences", "sortie"]
"""What an authorised physician may know of, newest first: not what is masked, replaced, deleted, or another patient's."""


def test_a_list_has_what_is_permitted_and_counts_nothing_else(world: World) -> None:
    response = world.endpoint.list(token())
    assert ids(response) == VISIBLE
    assert response.json()["total"] == len(VISIBLE)
    assert "next" not in [link["relation"] for link in response.json()["link"]]
    assert "psychiatrie" not in response.text and "data" not in response.text


def test_pages_are_cut_from_what_is_permitted(world: World) -> None:
    seen, query = [], {"_count": 3}
    for page in range(1, 4):
        response = world.endpoint.list(token(), page=page, **query)
        assert response.json()["total"] == len(VISIBLE)
        seen.append(ids(response))
        assert ("next" in [link["relation"] for link in response.json()["link"]]) == (page < 3)
    assert [len(one) for one in seen] == [3, 3, 1] and [*chain(*seen)] == VISIBLE


def test_a_mask_leaves_no_mark_on_totals_and_pages(world: World) -> None:
    document = {"type": "document", "id": MASTER + "3", "properties": {"patient": PATIENT, "type": "15507-7", "status": "Approved", "confidentiality": ["N"]}}
    world.act("mask", on=document)
    with undone(lambda: world.act("unmask", on=document)):
        left = [one for one in VISIBLE if one != "urgences"]
        assert world.listed(token()) == left
        pages = [world.endpoint.list(token(), _count=2, page=page) for page in (1, 2, 3, 4)]
        assert [*chain(*map(ids, pages))] == left and {one.json()["total"] for one in pages} == {len(left)}
        assert world.endpoint.content(token(), "urgences").status_code == 404
    assert world.listed(token()) == VISIBLE


def test_what_is_hidden_from_the_patient_is_not_in_his_list(world: World) -> None:
    patient = token(PATIENT, type="patient", profession=None, structure=None, authentication=None)
    assert world.listed(patient) == [*[one for one in VISIBLE if one != "anatomopathologie"], "psychiatrie"]
    assert world.endpoint.content(patient, "anatomopathologie").status_code == 404


def test_a_replaced_document_is_listed_when_asked_for_and_a_deleted_one_never_is(world: World) -> None:
    assert world.listed(token(), status="superseded") == ["consultation-ancienne"]
    assert world.listed(token(), status="entered-in-error") == []


def test_the_list_of_a_record_without_documents_is_asked_about_too(world: World) -> None:
    before = len(world.entries(lambda body: body["kind"] == "decision"))
    assert world.listed(token(), status="unheard-of") == []
    assert len(world.entries(lambda body: body["kind"] == "decision")) == before + 1


def test_a_list_is_no_access(world: World) -> None:
    world.endpoint.list(token())
    question = world.last_question()
    assert question["action"]["name"] == "list" and world.outcomes(question["id"]) == []


# --- one document ----------------------------------------------------------------------------------------------------


def test_a_document_is_served_and_its_outcome_reported(world: World) -> None:
    response = world.endpoint.content(token(), "biologie", x_request_id="request-17")
    assert (response.status_code, response.text) == (200, "Examens biologiques. Créatinine 78 µmol/l.")
    assert response.headers["cache-control"] == "no-store"
    question = world.last_question()
    assert question["request"] == "request-17" and question["items"][0]["resource"] == MASTER + "2"
    (outcome,) = _soon(lambda: world.outcomes(question["id"]))
    assert (outcome["document"], outcome["outcome"], outcome["caller"]) == (MASTER + "2", "shown", "store")
    assert "Créatinine" not in json.dumps(world.entries(lambda body: True), ensure_ascii=False)


def test_a_user_who_does_not_wait_for_the_bytes_was_not_shown_them(world: World) -> None:
    before = {one["id"] for one in world.entries(lambda body: body["kind"] == "decision")}
    os.killpg(world.server.process.pid, signal.SIGSTOP)
    try:
        with socket.create_connection(("127.0.0.1", world.endpoint.port)) as user:
            user.sendall(f"GET /DocumentReference/sortie/$content?patient={PATIENT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token()}\r\n\r\n".encode())
            time.sleep(0.5)
        time.sleep(0.5)
    finally:
        os.killpg(world.server.process.pid, signal.SIGCONT)
    (question,) = _soon(lambda: [one for one in world.entries(lambda body: body["kind"] == "decision") if one["id"] not in before])
    (outcome,) = _soon(lambda: world.outcomes(question["id"]))
    assert (question["items"][0]["decision"], outcome["outcome"]) == ("permit", "not_shown")


def _soon(find: Callable[[], list[Any]], seconds: float = 30) -> list[Any]:
    until = time.monotonic() + seconds
    while not (found := find()) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def test_a_block_refuses_the_very_next_read(world: World) -> None:
    assert world.endpoint.content(token(), "biologie").status_code == 200
    after = world.act("block", target=someone())
    with undone(lambda: world.act("unblock", target=someone())):
        refused = world.endpoint.content(token(), "biologie", x_consent_token=after)
        assert refused.status_code == 404 and "bloqué" in texts(refused)[0] and "blocked" in texts(refused)[1]
        assert world.listed(token()) == []
    assert world.endpoint.content(token(), "biologie").status_code == 200


def test_a_refusal_that_asks_for_something_says_so(world: World) -> None:
    refused = world.endpoint.content(token(NURSE), "biologie")
    assert refused.status_code == 403 and refused.headers["x-obligations"] == "collect_consent"
    assert "consentement" in texts(refused)[0]


def test_a_consent_token_of_another_store_is_no_decision(world: World) -> None:
    assert world.endpoint.content(token(), "biologie", x_consent_token="1.1").status_code == 503


def test_an_obligation_that_the_endpoint_does_not_know_is_a_refusal(world: World) -> None:
    world.act("consent_care_team", target=someone(COLLEAGUE))
    with undone(lambda: world.act("withdraw_care_team_consent", target=someone(COLLEAGUE))):
        colleague = token(COLLEAGUE, structure=SAMU)
        refused = world.endpoint.content(colleague, "biologie")
        assert (refused.status_code, refused.headers["x-obligations"], texts(refused)[1]) == (403, "watermark", "Show a watermark.")
        assert world.last_question()["withheld"] == [0]
        assert world.listed(colleague) == []
        assert len(world.last_question()["withheld"]) == len(VISIBLE)


def test_a_permit_with_an_unknown_obligation_opens_nothing_whoever_sent_it(module: Any) -> None:
    owes = {"decision": True, "context": {"id": "x", "obligations": [{"id": "o1", "type": "watermark", "properties": {}}]}}
    assert not module.permits(owes)
    assert not module.permits({"decision": 1, "context": {"obligations": []}})
    assert module.permits({"decision": True, "context": {"obligations": [{"id": "o1", "type": "flag_access", "properties": {}}]}})


# --- the same 404 ----------------------------------------------------------------------------------------------------


def _seen(response: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    return response.status_code, response.content, [one for one in response.headers.multi_items() if one[0] != "date"]


@pytest.mark.parametrize("bearer", ["jwt", "vihf", "break-glass"])
def test_a_masked_a_deleted_another_patients_and_a_missing_document_are_the_same_404(world: World, bearer: str) -> None:
    headers = glass("Patient inconscient") if bearer == "break-glass" else {}
    made = vihf(structure=SAMU) if bearer == "vihf" else token(PHYSICIAN)
    document = {"type": "document", "id": MASTER + "3", "properties": {"patient": PATIENT, "type": "15507-7", "status": "Approved", "confidentiality": ["N"]}}
    world.act("mask", on=document)
    with undone(lambda: world.act("unmask", on=document)):
        asked = ("psychiatrie", "urgences", "erreur", "autre-patient", "nothing-of-the-kind", "x" * 200, "é")
        seen = [_seen(world.endpoint.content(made, one, **headers)) for one in asked]
    assert seen[0][0] == 404 and b"Aucun document" in seen[0][1]
    assert all(one == seen[0] for one in seen)


def test_to_a_blocked_user_they_are_the_same_too(world: World) -> None:
    world.act("block", target=someone())
    with undone(lambda: world.act("unblock", target=someone())):
        seen = [_seen(world.endpoint.content(token(), one)) for one in ("biologie", "psychiatrie", "erreur", "nothing")]
    assert seen[0][0] == 404 and all(one == seen[0] for one in seen)


# --- break-glass -----------------------------------------------------------------------------------------------------


def test_break_glass_is_explicit_justified_and_flagged(world: World) -> None:
    nurse = token(NURSE)
    assert world.endpoint.content(nurse, "biologie").status_code == 403
    without = world.endpoint.content(nurse, "biologie", **glass(" "))
    assert (without.status_code, without.headers["x-obligations"]) == (403, "ask_justification")
    shown = world.endpoint.content(nurse, "biologie", **glass("Patient inconscient, amené aux urgences"))
    assert (shown.status_code, shown.headers["x-obligations"]) == (200, "flag_access")
    question = world.last_question()
    assert question["context"]["justification"] == "Patient inconscient, amené aux urgences" and question["context"]["session"] == "session-1"
    assert question["items"][0]["rule"] == "R14"


def test_a_list_by_break_glass_shows_that_it_is_one(world: World) -> None:
    response = world.endpoint.list(token(NURSE), headers=glass("Patient inconscient"))
    assert ids(response) == VISIBLE and response.headers["x-obligations"] == "flag_access"
    (shown,) = [one["resource"] for one in response.json()["entry"] if one["search"]["mode"] == "outcome"]
    assert "bris de glace" in shown["issue"][0]["details"]["text"]


def test_break_glass_opens_nothing_that_is_masked(world: World) -> None:
    assert world.endpoint.content(token(NURSE), "psychiatrie", **glass("Patient inconscient")).status_code == 404


# --- no decision -----------------------------------------------------------------------------------------------------


def _restarted(server: Server) -> Server:
    """The same service on the same port and folder."""
    with (server.folder / "serve.log").open("ab") as log:
        command = [sys.executable, "-m", "cli.main", "serve"]
        process = subprocess.Popen(command, cwd=api_server.ROOT, env=dict(server.environment), stdout=log, stderr=log, start_new_session=True)
    made = Server(process, server.port, server.folder, server.environment)
    api_server._wait(made)
    return made


def _nothing_shown(response: httpx.Response) -> None:
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert "Ce n'est pas un refus" in texts(response)[0] and "This is not a refusal" in texts(response)[1]
    assert "Créatinine" not in response.text and "biologie" not in response.text


def test_without_habilis_nothing_is_shown_and_nothing_is_refused(world: World) -> None:
    world.server.kill()
    _nothing_shown(world.endpoint.content(token(), "biologie"))
    _nothing_shown(world.endpoint.content(token(), "biologie", **glass("Patient inconscient")))
    _nothing_shown(world.endpoint.list(token()))
    world.server = _restarted(world.server)
    assert world.endpoint.content(token(), "biologie").status_code == 200
    assert world.listed(token()) == VISIBLE


def test_a_habilis_that_does_not_answer_is_no_habilis(world: World, tmp_path: Path) -> None:
    with endpoint(world.server, tmp_path, timeout="1") as impatient:
        os.killpg(world.server.process.pid, signal.SIGSTOP)
        try:
            _nothing_shown(impatient.content(token(), "biologie"))
        finally:
            os.killpg(world.server.process.pid, signal.SIGCONT)


def test_a_habilis_that_does_not_know_this_store_is_no_habilis(world: World, tmp_path: Path) -> None:
    with endpoint(world.server, tmp_path, key=api_server.key_of("portal")) as wrong:
        _nothing_shown(wrong.content(token(), "biologie"))
        _nothing_shown(wrong.list(token()))


# --- VIHF ------------------------------------------------------------------------------------------------------------


def test_a_vihf_becomes_a_subject_and_a_context(world: World) -> None:
    assert world.endpoint.content(vihf(), "biologie").status_code == 200
    question = world.last_question()
    properties = {"profession": "G15_10", "structure": STRUCTURE, "authentication": "INDIRECT_RENFORCEE"}
    assert question["subject"] == {"type": "professional", "id": PHYSICIAN, "properties": properties}
    assert question["context"].pop("session").endswith("Z") and question["context"] == {"access_mode": "normal", "purpose": "care"}
    assert question["items"][0]["rule"] == "R06-structure"


def test_the_modes_of_a_vihf(world: World) -> None:

    regulation = vihf({**mode("centre_15")}, rpps=NURSE, structure=SAMU)
    assert world.endpoint.content(regulation, "biologie").status_code == 200
    assert world.last_question()["items"][0]["rule"] == "R11"
    why = {"Mode_Acces_Raison": "Patient inconscient"}
    assert world.endpoint.content(vihf({**mode("bris_de_glace"), **why}, rpps=NURSE, structure=SAMU), "biologie").status_code == 200
    assert world.last_question()["context"]["justification"] == "Patient inconscient"
    unjustified = vihf({**mode("bris_de_glace")}, rpps=NURSE, structure=SAMU)
    assert world.endpoint.content(unjustified, "biologie").status_code == 403
    assert world.endpoint.content(unjustified, "biologie", **glass("Patient inconscient")).status_code == 200


def test_a_header_does_not_break_the_glass_against_the_assertion(world: World) -> None:
    assert world.endpoint.content(vihf(), "biologie", **glass("Patient inconscient")).status_code == 400


def test_a_secret_session_is_told(world: World) -> None:
    world.endpoint.content(vihf({SECRET: "INVISIBLE_REPRESENTANTS_LEGAUX"}), "biologie")
    assert world.last_question()["context"]["secret_session"] is True


def test_what_a_vihf_leaves_out_counts_against_its_user(world: World) -> None:
    assert world.endpoint.content(vihf({"Ressource_URN": "urn:other"}), "biologie").status_code == 404
    assert world.last_question()["items"][0]["rule"] == "R02"
    assert world.endpoint.content(vihf({"Authentification_Mode": "INDIRECTE"}), "biologie").status_code == 404
    assert world.last_question()["items"][0]["rule"] == "R03"


def test_a_comment_does_not_shorten_who_asks(world: World) -> None:
    """Comments are not signed; a reader that stops at the first would read another identifier."""
    text = etree.tostring(signed(assertion()))
    assert world.endpoint.content(sent(text.replace(b"810000023084", b"81000002<!---->3084")), "biologie").status_code == 200
    assert world.last_question()["subject"]["id"] == PHYSICIAN


DTD = b'<!DOCTYPE Assertion [<!ENTITY a "aaaaaaaaaa">' + b"".join(
    b'<!ENTITY %c "%s">' % (97 + n, b"&%c;" % (96 + n) * 10) for n in range(1, 12)
) + b"]>"  # fmt: skip


def _unsigned() -> str:
    return sent(assertion())


def _edited(old: bytes, new: bytes) -> str:
    text = etree.tostring(signed(assertion()))
    assert old in text
    return sent(text.replace(old, new))


def _around(make: Callable[[etree._Element, etree._Element], etree._Element]) -> str:
    """An assertion of somebody else, made around one that is well signed (XML signature wrapping)."""
    good = signed(assertion())
    evil = assertion(rpps=NURSE, id="_evil")
    return sent(make(good, evil))


def _in_object(good: etree._Element, evil: etree._Element) -> etree._Element:
    signature = good.find("{*}Signature")
    good.remove(signature)
    place = etree.SubElement(signature, f"{{{DSIG}}}Object")
    place.append(good)
    evil.insert(1, signature)
    return evil


def _beside(good: etree._Element, evil: etree._Element) -> etree._Element:
    around = etree.Element("{http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd}Security")
    around.extend([evil, good])
    return around


def _inside(good: etree._Element, evil: etree._Element) -> etree._Element:
    evil.insert(1, copy.deepcopy(good.find("{*}Signature")))
    evil.append(good)
    return evil


def _same_id(good: etree._Element, evil: etree._Element) -> etree._Element:
    evil.set("ID", good.get("ID"))
    evil.insert(1, good.find("{*}Signature"))
    return evil


def _with_another_key() -> str:
    return sent(signed(assertion(), key=_stranger()))


@cache
def _stranger() -> Any:
    key, _ = signer("stranger")
    return key, certificate(key, STRUCTURE)


def _of_another_structure() -> str:
    """Well signed by a structure that we trust, about another one's user."""
    return sent(signed(assertion(), SAMU))


def _weakly_signed() -> str:
    class Weak(XMLSigner):
        def check_deprecated_methods(self) -> None:
            """SHA-1 is what this test is about."""

    unsigned = assertion()
    key, public = signer(STRUCTURE)
    weak = Weak(signature_algorithm=SignatureMethod.RSA_SHA1, digest_algorithm=DigestAlgorithm.SHA1, c14n_algorithm=C14N)
    return sent(weak.sign(unsigned, key=key, cert=[public], reference_uri="_a1", id_attribute="ID"))


def _by_secret() -> str:
    """Signed with an HMAC whose secret is the certificate that everybody knows."""
    public = signer(STRUCTURE)[1].public_bytes(serialization.Encoding.PEM)
    made = XMLSigner(signature_algorithm=SignatureMethod.HMAC_SHA256, c14n_algorithm=C14N)
    return sent(made.sign(assertion(), key=public, reference_uri="_a1", id_attribute="ID"))


def _twice(name: str) -> str:
    unsigned = assertion()
    statement = unsigned.find(f"{{{SAML}}}AttributeStatement")
    more = etree.SubElement(statement, f"{{{SAML}}}Attribute", Name=name)
    etree.SubElement(more, f"{{{SAML}}}AttributeValue").text = str(ATTRIBUTES[name])
    return sent(signed(unsigned))


def _conditions(**instants: float) -> str:
    said = " ".join(f'{name}="{instant(after)}"' for name, after in instants.items())
    return vihf(conditions=f"<Conditions {said}/>")


ATTACKS: dict[str, Callable[[], str]] = {
    "unsigned": _unsigned,
    "an identifier changed": lambda: _edited(b"810000023084", b"810000023092"),
    "an attribute changed": lambda: _edited(b"INDIRECT_RENFORCEE", b"DIRECTE"),
    "signed by a key of nobody": _with_another_key,
    "signed by another structure": _of_another_structure,
    "signed with SHA-1": _weakly_signed,
    "signed with a shared secret": _by_secret,
    "wrapped: the good one in the signature": lambda: _around(_in_object),
    "wrapped: side by side": lambda: _around(_beside),
    "wrapped: one in the other": lambda: _around(_inside),
    "wrapped: the signature of another with the same id": lambda: _around(_same_id),
    "a document type": lambda: sent(DTD + etree.tostring(signed(assertion()))),
    "a bomb": lambda: sent(DTD + etree.tostring(signed(assertion())).replace(b"810000023084", b"&l;")),
    "a file read": lambda: sent(b'<!DOCTYPE Assertion [<!ENTITY f SYSTEM "file:///etc/passwd">]>' + etree.tostring(assertion())),
    "deep": lambda: sent(b"<a>" * 5_000),
    "too large": lambda: sent(b" " * 40_000 + etree.tostring(signed(assertion()))),
    "no XML": lambda: sent(b"\x00\xff<"),
    "no base64": lambda: "%%%",
    "expired": lambda: vihf(age=3600),
    "from the future": lambda: vihf(age=-3600),
    "no longer valid": lambda: _conditions(NotBefore=-100, NotOnOrAfter=-1),
    "not valid yet": lambda: _conditions(NotBefore=3600, NotOnOrAfter=7200),
    "of an unknown structure": lambda: vihf({"Identifiant_Structure": "1750000036"}),
    "without a structure": lambda: vihf({"Identifiant_Structure": None}),
    "with a local identifier": lambda: vihf(rpps="99/12345"),
    "an attribute twice": lambda: _twice("Authentification_Mode"),
    "two professions": lambda: vihf({"urn:oasis:names:tc:xacml:2.0:subject:role": [("Role", code, "1.2.250.1.71.1.2.7", "") for code in ("10", "60")]}),
    "two modes": lambda: vihf({MODE: [("PurposeOfUse", code, "", "") for code in ("normal", "bris_de_glace")]}),
    "no mode": lambda: vihf({MODE: None}),
    "a card that did not sign": lambda: vihf({"Authentification_Mode": "DIRECTE"}),
    "for another patient": lambda: vihf({"urn:oasis:names:tc:xacml:2.0:resource:resource-id": f"{OTHER_PATIENT}^^^&1.2.250.1.213.1.4.8&ISO^NH"}),
    "for nobody readable": lambda: vihf({"urn:oasis:names:tc:xacml:2.0:resource:resource-id": "somebody"}),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_assertion_that_is_not_good_names_nobody(world: World, attack: str) -> None:
    refused = world.endpoint.content(ATTACKS[attack](), "biologie")
    assert (refused.status_code, refused.headers.get("www-authenticate")) == (401, "Bearer"), refused.text
    assert world.endpoint.process.poll() is None


def test_an_assertion_whose_certificate_has_ended_names_nobody(module: Any) -> None:
    identity, (key, good) = sys.modules["identity"], signer(STRUCTURE)
    assert identity.read_vihf(vihf(), identity.Trust({STRUCTURE: good}), time.time()).subject["id"] == PHYSICIAN
    ended = certificate(key, STRUCTURE, days=-1)
    with pytest.raises(identity.NotIdentified, match="certificate"):
        identity.read_vihf(sent(signed(assertion(), key=(key, ended))), identity.Trust({STRUCTURE: ended}), time.time())


# --- JWT -------------------------------------------------------------------------------------------------------------


def _jwt(key: Any, algorithm: str, **more: Any) -> str:
    said = {"iss": ISSUER, "aud": AUDIENCE, "sub": PHYSICIAN, "exp": time.time() + 60, "profession": "G15_10", "authentication": "DIRECTE", "purpose": "care"}
    return jwt.encode({name: value for name, value in (said | more).items() if value is not None}, key, algorithm)


def _confused() -> str:
    """HS256 with the public key as the secret, put together by hand: PyJWT itself refuses to."""
    public = jwt_key().public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    body = _jwt(None, "none").split(".")[1]
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("=")
    mac = hmac.new(public, f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


JWTS: dict[str, Callable[[], str]] = {
    "unsigned": lambda: _jwt(None, "none"),
    "signed with the public key as a secret": _confused,
    "expired": lambda: token(exp=time.time() - 1),
    "without an end": lambda: token(exp=None),
    "for another audience": lambda: token(aud="other"),
    "of another issuer": lambda: token(iss="https://other.example"),
    "of nobody": lambda: token(sub=None),
    "changed": lambda: ".".join([*token().split(".")[:1], *_jwt(None, "none").split(".")[1:2], *token().split(".")[2:]]),
    "for another patient": lambda: token(patient=OTHER_PATIENT),
}


@pytest.mark.parametrize("attack", JWTS)
def test_a_jwt_that_is_not_good_names_nobody(world: World, attack: str) -> None:
    assert world.endpoint.content(JWTS[attack](), "biologie").status_code == 401


def test_nobody_is_shown_nothing(world: World) -> None:
    with world.endpoint.client() as client:
        assert client.get("/DocumentReference", params={"patient": PATIENT}).status_code == 401
    assert world.endpoint.list(token(), patient="").status_code == 400


# --- what it says of its documents -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def module() -> Iterator[Any]:
    """The endpoint's own module, as its process has it."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("endpoint")
    finally:
        sys.path.remove(str(FOLDER))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda one: one["id"])
def test_a_question_says_of_a_document_what_the_engine_reads_in_it(document: Mapping[str, Any], module: Any) -> None:
    entity = parse_document_reference(document, load_pack(api_server.ROOT / "policies"))
    assert module.resource_of(document) == {"type": entity.type, "id": entity.id, "properties": entity.properties}


def test_every_document_is_well_formed_and_of_a_type_of_the_pack() -> None:
    pack = load_pack(api_server.ROOT / "policies")
    forms = (fact.form for fact in pack.vocabulary.facts.values())
    types = {row for form in forms if isinstance(form, Cell) for row in form.grid.rows}
    for document in DOCUMENTS:
        properties = parse_document_reference(document, pack).properties
        assert properties["type"] in types
        for form, value in (("professional", properties["author"]), ("structure", properties["structure"]), ("representative", properties["patient"])):
            assert any(not one.mistake(value) for one in pack.identifiers.targets[form]), (form, value)
