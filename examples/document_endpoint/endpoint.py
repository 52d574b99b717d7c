"""A document endpoint in the style of FHIR that shows nothing without asking Habilis: a small, whole example of docs/pep.md.

    GET /DocumentReference?patient=INS&_count=10&page=1       the documents that this user may know of
    GET /DocumentReference/{id}/$content?patient=INS          one of them

INVARIANTS: a permit is used once and never kept. What cannot be asked is not shown. Whatever is refused leaves the lists before they are counted and cut. A
document that is not there is asked about like any other, and what is answered depends on nothing but what Habilis said.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, unquote

import httpx
from cryptography.x509 import load_pem_x509_certificate
from fastapi import Depends, FastAPI, Query, Request, Response
from identity import Identity, NotIdentified, Trust, identify
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict
from starlette.types import Receive, Scope, Send

log = logging.getLogger("documents")
Json = Mapping[str, Any]

DOES = {"flag_access": {"fr": "Accès en bris de glace : à signaler pendant toute la consultation.", "en": "Break-glass access: to be shown all the while."}}
"""The obligations that this endpoint can do, and what it then shows. A permit that owes anything else is no permit."""
UNAVAILABLE = {
    "fr": "Les droits d'accès ne peuvent pas être vérifiés : rien n'est affiché. Ce n'est pas un refus. Réessayez, ou suivez la procédure dégradée.",
    "en": "Access rights cannot be checked, so nothing is shown. This is not a refusal. Try again, or follow the downtime procedure.",
}
MISTAKEN = {"fr": "La demande n'est pas valable.", "en": "The request is not valid."}
BATCH = 500
"""Documents in one question."""


class Settings(BaseSettings):
    """From the environment: STORE_HABILIS, STORE_KEY ..."""

    model_config = SettingsConfigDict(env_prefix="STORE_", frozen=True)

    habilis: str = "http://127.0.0.1:8080"
    key: SecretStr = SecretStr("")
    """This store's key, as a caller with the role `store`. A service that lets everybody in needs none."""
    timeout: float = 3.0
    documents: Path = Path(__file__).with_name("documents.json")
    structures: Path | None = None
    """A folder of certificates, one for each structure that signs assertions: FINESS.pem."""
    regulation_centres: frozenset[str] = frozenset()
    jwt_key: Path | None = None
    jwt_issuer: str = ""
    jwt_audience: str = ""

    def trust(self) -> Trust:
        files = sorted(self.structures.glob("*.pem")) if self.structures else []
        structures = {file.stem: load_pem_x509_certificate(file.read_bytes()) for file in files}
        key = self.jwt_key.read_text() if self.jwt_key else ""
        return Trust(structures, self.regulation_centres, key, self.jwt_issuer, self.jwt_audience)


# --- documents -------------------------------------------------------------------------------------------------------

STATUS = {"current": "Approved", "superseded": "Deprecated", "entered-in-error": "Deleted"}


class Documents:
    """The documents of a file, by their id. A real store has a database here."""

    def __init__(self, path: Path):
        self.all: dict[str, Json] = {one["id"]: one for one in json.loads(path.read_text())}

    def of(self, patient: str, statuses: Sequence[str]) -> list[Json]:
        """A patient's documents, newest first."""
        found = [one for one in self.all.values() if patient_of(one) == patient and one["status"] in statuses]
        return sorted(found, key=lambda one: (one["date"], one["id"]), reverse=True)

    def find(self, id: str, patient: str) -> Json | None:
        """A document of this patient's record. One of another's is not in it."""
        found = self.all.get(id)
        return found if found is not None and patient_of(found) == patient else None


def patient_of(document: Json) -> str:
    return document["subject"]["identifier"]["value"]


def resource_of(document: Json) -> dict[str, Any]:
    """A document as the resource of a question: what the policy asks about it, never what is in it. Whoever leaves out a mask opens what it hides."""
    role = document["contained"][0]
    properties = {
        "patient": patient_of(document),
        "type": document["type"]["coding"][0]["code"],
        "author": role["practitioner"]["identifier"]["value"].removeprefix("8"),
        "structure": role["organization"]["identifier"]["value"].removeprefix("1"),
        "confidentiality": [coding["code"] for label in document["securityLabel"] for coding in label["coding"]],
        "status": STATUS[document["status"]],
        "deposited": document["date"],
    }
    return {"type": "document", "id": document["masterIdentifier"]["value"], "properties": properties}


def nothing(patient: str, id: str = "") -> dict[str, Any]:
    """The resource of a document that is not in this record. It is asked about like one that is, and takes as long."""
    return {"type": "document", "id": id if _ID.fullmatch(id) else "-", "properties": {"patient": patient}}


_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")


# --- asking Habilis --------------------------------------------------------------------------------------------------


class Unavailable(Exception):
    """No decision is to be had. Not a refusal."""


class Habilis:
    """The decision service, asked anew for every request. Its answers are used at once and then forgotten."""

    def __init__(self, settings: Settings):
        self.timeout = settings.timeout
        key = settings.key.get_secret_value()
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self.http = httpx.AsyncClient(base_url=settings.habilis, headers=headers, timeout=settings.timeout, trust_env=False)

    async def ask(self, asking: Asking, action: str, resources: Sequence[Json]) -> list[Json]:
        """The answers about these resources, in their order. Raises `Unavailable`."""
        context = {**asking.context, "supported_obligations": sorted(DOES)}
        answers: list[Json] = []
        try:
            async with asyncio.timeout(self.timeout):
                for start in range(0, len(resources), BATCH):
                    items = [{"resource": one} for one in resources[start : start + BATCH]]
                    body = {"subject": asking.identity.subject, "action": {"name": action}, "context": context, "evaluations": items}
                    answers += _answers(await self._post("evaluations", body, asking.id), len(items))
        except (httpx.HTTPError, TimeoutError, ValueError, KeyError, TypeError) as error:
            log.warning("no decision for request %s: %s", asking.id, type(error).__name__)
            raise Unavailable from None
        return answers

    async def report(self, asking: Asking, answer: Json, document: str, outcome: str) -> None:
        """Say what became of a permit. An outcome that cannot be said leaves an access unconfirmed; it is tried again, and nobody waits for it."""
        body = {"decision": answer["context"]["id"], "document": document, "outcome": outcome}
        for wait in (0.0, 0.5, 2.0, 8.0):
            await asyncio.sleep(wait)
            try:
                await self._post("outcome", body, asking.id)
                return
            except httpx.HTTPError as error:
                log.warning("the outcome of decision %s could not be reported: %s", body["decision"], type(error).__name__)

    async def _post(self, route: str, body: Json, request_id: str) -> Any:
        response = await self.http.post(f"/access/v1/{route}", json=body, headers={"x-request-id": request_id})
        response.raise_for_status()
        return response.json()


def _answers(body: Any, asked: int) -> list[Json]:
    """As many answers as questions, each a decision. What is anything else is no answer. A question that Habilis finds mistaken is refused."""
    answers: list[Json] = body["evaluations"]
    if len(answers) != asked or any(one["decision"] not in (True, False) for one in answers):
        raise ValueError("these are no decisions")
    if any(one["context"].get("error", {}).get("status", 400) != 400 for one in answers):
        raise ValueError("these could not be decided")
    return answers


def permits(answer: Json) -> bool:
    """A permit whose every obligation can be done here."""
    return answer["decision"] is True and all(one["type"] in DOES for one in answer["context"]["obligations"])


def obligations(answers: Sequence[Json]) -> list[str]:
    return sorted({one["type"] for answer in answers for one in answer["context"]["obligations"]})


# --- who asks, in which mode -----------------------------------------------------------------------------------------


class Asking:
    """One request: who asks, how, about whose record."""

    def __init__(self, identity: Identity, context: Json, patient: str, id: str):
        self.identity, self.context, self.patient, self.id = identity, context, patient, id


class Mistaken(Exception):
    """A request that makes no sense. The message quotes nothing of it."""


async def asking_of(request: Request, patient: Annotated[str | None, Query()] = None) -> Asking:
    """Raises `NotIdentified`, `Mistaken`. `patient`: the INS, also as FHIR's `system|value`; it may be left out when the token names one."""
    identity = identify(request.headers.get("authorization", ""), request.app.state.trust, time.time())
    named = (patient or "").rpartition("|")[2] or identity.patient
    if not named:
        raise Mistaken("say which patient: ?patient=INS")
    if identity.patient is not None and identity.patient != named:
        raise NotIdentified("this token is for the record of another patient")
    context = {**identity.context, **_break_glass(request, identity)}
    if token := request.headers.get("x-consent-token"):
        context["consent_token"] = token
    return Asking(identity, context, named, request.headers.get("x-request-id") or str(uuid.uuid4()))


def _break_glass(request: Request, identity: Identity) -> dict[str, str]:
    """`X-Break-Glass: JUSTIFICATION`, percent-encoded: never by default, never against what the token says. An empty one is left to the policy to refuse."""
    given = request.headers.get("x-break-glass")
    mode = identity.context.get("access_mode", "bris_de_glace")
    if given is None:
        return {}
    if mode != "bris_de_glace":
        raise Mistaken("the token says another access mode than the header X-Break-Glass")
    return {"access_mode": "bris_de_glace", "justification": unquote(given) or identity.context.get("justification", "")}


AskingOf = Annotated[Asking, Depends(asking_of)]


# --- answers ---------------------------------------------------------------------------------------------------------


class Fhir(Response):
    """A resource. Nothing that depends on the hour or on chance, so that two refusals cannot be told apart; nothing that anybody may keep."""

    media_type = "application/fhir+json"

    def __init__(self, content: Json, status: int = 200, headers: Mapping[str, str] | None = None):
        super().__init__(json.dumps(content, ensure_ascii=False).encode(), status, {"cache-control": "no-store", **(headers or {})})


class Shown(Response):
    """The bytes of a document, and after them the outcome. When nobody waits for them any more, nothing is sent, and the permit was no access."""

    def __init__(self, habilis: Habilis, asking: Asking, answer: Json, document: Json):
        attachment = document["content"][0]["attachment"]
        headers = {"cache-control": "no-store", "x-content-type-options": "nosniff", **flags(obligations([answer]))}
        super().__init__(base64.b64decode(attachment["data"]), 200, headers, attachment["contentType"])
        self.habilis, self.asking, self.answer, self.id = habilis, asking, answer, document["masterIdentifier"]["value"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        outcome = "not_shown"
        try:
            if not await Request(scope, receive).is_disconnected():
                await super().__call__(scope, receive, send)
                outcome = "shown"
        finally:
            await self.habilis.report(self.asking, self.answer, self.id, outcome)


def flags(owed: Sequence[str]) -> dict[str, str]:
    """What the user's software is to show, of the obligations that this endpoint passes on to it."""
    return {"x-obligations": ", ".join(owed)} if owed else {}


def outcome_of(words: Json, code: str, severity: str = "error") -> dict[str, Any]:
    issues = [{"severity": severity, "code": code, "details": {"text": text}} for _, text in sorted(words.items(), reverse=True)]
    return {"resourceType": "OperationOutcome", "issue": issues}


def refusal(answer: Json) -> Fhir:
    """A refusal that asks for something (a justification, a consent) says so: 403. Every other is the 404 of a document that is not there.

    A discreet refusal asks for nothing, so it is a 404 in the words of one that is not there, without this endpoint knowing which it was.
    """
    told = answer["context"]
    asks = [one["type"] for one in told.get("obligations", ())] or told.get("unsupported_obligations", ())
    words = told.get("reason_user") or MISTAKEN
    return Fhir(outcome_of(words, "forbidden" if asks else "not-found"), 403 if asks else 404, flags(asks))


# --- the application -------------------------------------------------------------------------------------------------


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or Settings()
    habilis, documents = Habilis(settings), Documents(settings.documents)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        await habilis.http.aclose()

    app = FastAPI(title="Documents", lifespan=life)
    app.state.trust = settings.trust()

    @app.exception_handler(NotIdentified)
    async def not_identified(_: Request, error: NotIdentified) -> Response:
        return Fhir(outcome_of({"en": str(error)}, "login"), 401, {"www-authenticate": "Bearer"})

    @app.exception_handler(Mistaken)
    async def mistaken(_: Request, error: Mistaken) -> Response:
        return Fhir(outcome_of({"en": str(error)}, "invalid"), 400)

    @app.exception_handler(Unavailable)
    async def unavailable(_: Request, __: Unavailable) -> Response:
        return Fhir(outcome_of(UNAVAILABLE, "transient"), 503, {"retry-after": "1"})

    @app.get("/DocumentReference")
    async def search(
        asking: AskingOf,
        status: str = "current",
        count: Annotated[int, Query(alias="_count", ge=1, le=200)] = 20,
        page: Annotated[int, Query(ge=1)] = 1,
    ) -> Response:
        """The documents that this user may know of. All of them are asked about before any is counted, and then a page is cut."""
        found = documents.of(asking.patient, status.split(","))
        answers = await habilis.ask(asking, "list", [resource_of(one) for one in found] or [nothing(asking.patient)])
        granted = [(one, answer) for one, answer in zip(found, answers, strict=False) if permits(answer)]
        shown = granted[(page - 1) * count : page * count]
        return _bundle(asking, status, count, page, len(granted), [one for one, _ in shown], obligations([answer for _, answer in granted]))

    @app.get("/DocumentReference/{id}/$content")
    async def content(id: str, asking: AskingOf) -> Response:
        """One document, byte by byte, to whoever may read it."""
        document = documents.find(id, asking.patient)
        (answer,) = await habilis.ask(asking, "read", [resource_of(document) if document else nothing(asking.patient, id)])
        if document is None or not permits(answer):
            log.info("request %s: decision %s refuses", asking.id, answer["context"].get("id"))
            return refusal(answer)
        return Shown(habilis, asking, answer, document)

    return app


def _bundle(asking: Asking, status: str, count: int, page: int, total: int, shown: Sequence[Json], owed: Sequence[str]) -> Response:
    """A searchset: only what is permitted is in it, is counted, and has pages."""
    here = f"/DocumentReference?patient={quote(asking.patient)}&status={quote(status)}&_count={count}&page="
    links = [{"relation": "self", "url": f"{here}{page}"}] + ([{"relation": "next", "url": f"{here}{page + 1}"}] if page * count < total else [])
    entries: list[dict[str, Any]] = [{"resource": _without_content(one), "search": {"mode": "match"}} for one in shown]
    entries += [{"resource": outcome_of(DOES[one], "informational", "information"), "search": {"mode": "outcome"}} for one in owed]
    return Fhir({"resourceType": "Bundle", "type": "searchset", "total": total, "link": links, "entry": entries}, headers=flags(owed))


def _without_content(document: Json) -> dict[str, Any]:
    """A document as it stands in a list: where its bytes are to be asked for, and none of them."""
    attachment = {key: value for key, value in document["content"][0]["attachment"].items() if key != "data"}
    return {**document, "content": [{"attachment": attachment | {"url": f"/DocumentReference/{document['id']}/$content"}}]}
