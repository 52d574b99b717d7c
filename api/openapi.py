"""The description of every route (OpenAPI 3.1), with examples: FastAPI's own, the two hot routes that it does not see, who may call, and errors as they are.

Examples speak the words of the pack in use, in each of its languages, and its identifiers: nothing here knows a pack.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from api.authzen import SEMANTICS
from api.hot import ONE, ROLE, SEVERAL
from api.shapes import Role
from engine.calendar import iso
from engine.consent.identifiers import Formats
from engine.pack import Reason
from engine.pdp import Pdp
from engine.vocabulary import Cell, Coded, Elapsed, Given, Member, Path, Same, Vocabulary

Json = dict[str, Any]
ACTS = "/consent/v1/acts"
SUMMARY = "Who may do what to which document of whose record, and why."
ABOUT = """\
Decisions as OpenID AuthZEN Authorization API 1.0 asks for them, each in the decision log before it is answered; acts on consent; the journal.

A denial is 200 with `decision: false`. 503 says that no decision is to be had: ask again after `Retry-After`. The body of an error is a JSON string.
Every answer repeats the `X-Request-ID` of its request. A key may stand once in an object, and what is nested is nested 32 deep at most."""
ERRORS = {
    "400": "What is missing or wrong, as text.",
    "401": "Nobody that we know calls.",
    "403": "The caller may not ask this, or may not say this of the one who asks. That is in the log.",
    "409": "The consent token is newer than the store, or of another life of it.",
    "503": "No decision is to be had: the store or the log cannot be used.",
}


def described(app: FastAPI, routes: Iterable[BaseRoute], pdp: Pdp, free: Collection[str]) -> Json:
    """The description of an application with these routes, which decides by this pack."""
    made = get_openapi(title=app.title, version=app.version, summary=SUMMARY, description=ABOUT, routes=app.routes)
    about = "A key of the file of callers, or a token of an issuer."
    made["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer", "description": about}}
    roles = {(path, method): one for path, method, one in roles_of(routes)}
    examples = Examples(pdp)
    for path, operations in (made["paths"] | _hot()).items():
        for method, operation in operations.items():
            _describe(operation, () if path in free else roles.get((path, method), (ROLE,)))
            _show(operation, path, method, examples)
            made["paths"].setdefault(path, {})[method] = operation
    if acts := made["paths"].get(ACTS):
        acts["post"]["description"] += _read_by_acts(pdp.pack.vocabulary)
    return made


def _read_by_acts(vocabulary: Vocabulary) -> str:
    """What each act reads of the action, and which of it leaves a part of what the target says."""
    lines = []
    for name, acts in vocabulary.acts.items():
        read: dict[str, str] = {}
        for act in acts:
            narrows = vocabulary.kinds[act.kind].narrows
            target = act.target[1] if isinstance(act.target, tuple) else act.target
            for key, path in (("", target), ("", act.until), *act.properties):
                steps = path.for_action(name) if isinstance(path, Path) else ()
                if len(steps) > 1 and steps[0] == "action":
                    forms = " or ".join(f"`{form}`" for form in narrows.get(key, ()))
                    read.setdefault(steps[1], f" (of a target {forms})" if forms else "")
        words = [f"`{key}`{of}" for key, of in sorted(read.items())]
        lines += [f"- `{name}`: {', '.join(words)}"] if words else []
    return "\n\nWhat acts read of `action.properties`:\n\n" + "\n".join(lines) if lines else ""


def roles_of(routes: Iterable[BaseRoute]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Routes, by path and method, each with the roles that it names."""
    for route in routes:
        if isinstance(route, APIRoute):
            named = [one.call.roles for one in route.dependant.dependencies if isinstance(one.call, Role)]
            for method in route.methods or ():
                yield route.path, method.lower(), named[0] if named else ()


def _describe(operation: Json, roles: tuple[str, ...]) -> None:
    """Who may call, and what goes wrong."""
    operation["security"] = [{"bearer": []}] if roles else []
    if roles:
        operation["description"] = f"{operation.get('description', '')}\n\nRoles: {', '.join(roles)}.".strip()
        operation["x-roles"] = list(roles)
    responses = operation["responses"]
    responses.pop("422", None)
    said = {"type": "string"}
    for status, words in ERRORS.items():
        if (roles or status == "503") and ("requestBody" in operation or status not in ("400", "409")):
            responses.setdefault(status, {"description": words, "content": {"application/json": {"schema": said}}})


def _show(operation: Json, path: str, method: str, examples: Examples) -> None:
    asked, told = examples.of.get((path, method), (None, None))
    if asked is not None and "requestBody" in operation:
        operation["requestBody"]["content"]["application/json"]["example"] = asked
    if told is not None:
        content = operation["responses"]["200"].setdefault("content", {})
        kind = "text/plain" if isinstance(told, str) else "application/json"
        content.setdefault(kind, {})["example"] = told


# --- the hot routes --------------------------------------------------------------------------------------------------


def _hot() -> Json:
    parts = {
        "subject": {"$ref": "#/components/schemas/EntityShape"},
        "action": {"$ref": "#/components/schemas/ActionShape"},
        "resource": {"$ref": "#/components/schemas/EntityShape"},
        "context": {
            "type": "object",
            "properties": {
                "consent_token": {"type": "string", "description": "As an answer gave it: decide on a record at least as fresh."},
                "supported_obligations": {"type": "array", "items": {"type": "string"}, "description": "A permit that owes another one is refused."},
            },
        },
    }
    one = {"type": "object", "required": ["subject", "action", "resource"], "properties": parts}
    decision = {
        "type": "object",
        "required": ["decision"],
        "properties": {"decision": {"type": "boolean"}, "context": {"type": "object"}},
    }
    item = {"type": "object", "description": "What it leaves out is what the top level says: a member whole, or its type, id or name; never properties."}
    semantic = {"type": "string", "enum": list(SEMANTICS)}
    several = {
        "type": "object",
        "properties": parts
        | {
            "evaluations": {"type": "array", "maxItems": 1000, "items": item | {"properties": parts}},
            "options": {"type": "object", "properties": {"evaluations_semantic": semantic}},
        },
    }
    list_of = {"type": "object", "properties": {"evaluations": {"type": "array", "items": decision}, **decision["properties"]}}
    about = "May this subject do this to this resource? The answer is in the decision log before it is given."
    about_several = "Several questions at once: the same about many resources of one record is one reading of it, and one entry of the log."
    return {ONE: {"post": _operation("evaluation", about, one, decision)}, SEVERAL: {"post": _operation("evaluations", about_several, several, list_of)}}


def _operation(name: str, about: str, body: Json, answer: Json) -> Json:
    return copy.deepcopy({
        "tags": ["AuthZEN"],
        "summary": name.capitalize(),
        "operationId": name,
        "description": about,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": {"description": "The decision.", "content": {"application/json": {"schema": answer}}}},
    })  # fmt: skip


# --- examples --------------------------------------------------------------------------------------------------------

ID, NOTICE = "5f0d2c9a7b1e4638a0c4d9e217", "0c4d9e2175f0d2c9a7b1e4638a5f0d2c"
TOKEN, NEXT = "1763978400000000.4", "WyI1ZjBkMmM5YSIsIDIsICJET0MtMSJd"
AT = 1_763_978_400.0


class Examples:
    """`of`: for each route and method, a request and its answer."""

    def __init__(self, pdp: Pdp):
        self.pdp, self.pack = pdp, pdp.pack
        pack, vocabulary = pdp.pack, pdp.pack.vocabulary
        kinds = list(dict.fromkeys(vocabulary.actions.values()))
        reads, acts = next(iter(vocabulary.actions)), self._act()
        self.patient = _example(next((several for path, several in pack.identifiers.paths if path == vocabulary.patient), ()), "patient-1")
        self.subject = self._entity("subject", vocabulary.subjects[0], self._identifier(vocabulary.subjects[0]), reads)
        self.resource = self._entity("resource", vocabulary.actions[reads], "DOC-1", reads)
        self.record = {"type": vocabulary.actions[acts] if acts else kinds[-1], "id": self.patient}
        self.holder = self._holder()
        self.context = self._declared("context", reads)
        asked = {"subject": self.subject, "action": {"name": reads}, "resource": self.resource, "context": self.context}
        self.of = {**self._evaluations(asked), **self._searches(asked), **self._consent(acts, reads), **self._books(reads), **self._others()}

    def _evaluations(self, asked: Json) -> Json:
        refused = {"decision": False, "context": {"error": {"status": 400, "message": "resource.id: is missing"}}}
        items = [{"resource": self.resource}, {"resource": {**self.resource, "id": "DOC-2"}}, {"resource": {"type": self.resource["type"], "id": ""}}]
        several = {key: value for key, value in asked.items() if key != "resource"} | {"evaluations": items}
        several["options"] = {"evaluations_semantic": "execute_all"}
        return {
            (ONE, "post"): (asked, self._permit()),
            (SEVERAL, "post"): (several, {"evaluations": [self._permit(), self._refusal(), refused]}),
        }

    def _searches(self, asked: Json) -> Json:
        searched = {key: {part: value for part, value in asked[key].items() if part != "id"} for key in ("subject", "resource")}
        page, told = {"limit": 100}, {"next_token": "", "count": 1, "total": 1}
        return {
            ("/access/v1/search/subject", "post"): (asked | {"subject": searched["subject"], "page": page}, {"page": told, "results": [self.subject]}),
            ("/access/v1/search/resource", "post"): (
                asked | {"resource": searched["resource"], "page": {"limit": 1}},
                {"page": {"next_token": NEXT, "count": 1, "total": 2}, "results": [self.resource]},
            ),
            ("/access/v1/search/action", "post"): (
                {key: value for key, value in asked.items() if key != "action"},
                {"page": told, "results": [asked["action"]]},
            ),
        }

    def _consent(self, act: str, reads: str) -> Json:
        if not act:
            return {}  # a pack without acts is asked about none
        about = {"subject": self.holder, "resource": self.record, "context": self.context}
        does, directive = {"name": act, "properties": self._target(act)}, self._directive(act)
        seen = {"id": self.resource["id"], "now": self._told(True), "then": self._told(False)}
        named = {"type": "", "id": "", "kind": directive["kind"], "from": iso(AT), "until": None, "via": "", "recorded_by": self.holder["id"]}
        for form, id in directive.get("target", {}).items():
            named |= {"type": form, "id": id}
        preview = about | {"viewer": self.subject, "documents": [self.resource], "act": does}
        return {
            (ACTS, "post"): (about | {"action": does}, {**self._permit(), "directives": [directive]}),
            ("/consent/v1/access-list", "post"): (about, {**self._permit(), "access_list": [named]}),
            ("/consent/v1/history", "post"): (about | {"kind": directive["kind"]}, {**self._permit(), "history": [{"recorded": iso(AT), **directive}]}),
            ("/consent/v1/preview", "post"): (preview, {"documents": [seen]}),
        }

    def _books(self, reads: str) -> Json:
        trace = {"decision": ID, "at": iso(AT), "subject": self.subject, "action": reads, "document": {"id": "DOC-1", "type": ""}, "status": "shown"}
        page = {"next_token": "", "count": 1}
        review = {"id": ID, "at": iso(AT), "patient": self.patient, "state": "open", "action": reads}
        notice = {"id": NOTICE, "at": iso(AT), "patient": self.patient, "addressee": self.holder["type"]}
        asked = {"subject": self.holder, "resource": self.record, "context": self.context, "documents": [self.resource], "page": {"limit": 50}}
        entry = {"segment": "worker-1", "index": 0, "kind": "decision", "id": ID, "items": [{"resource": "DOC-1", **self._reason()}]}
        return {
            ("/access/v1/outcome", "post"): ({"decision": ID, "document": "DOC-1", "outcome": "shown"}, {"recorded": True}),
            ("/journal/v1/accesses", "post"): (asked, {**self._permit(), "accesses": [trace], "page": page}),
            ("/journal/v1/reviews", "get"): (None, {"reviews": [review], "page": page}),
            ("/journal/v1/reviews/{id}", "post"): ({"verdict": "justified", "comment": ""}, {"id": ID}),
            ("/journal/v1/notices", "get"): (None, {"notices": [notice]}),
            ("/journal/v1/notices", "post"): ({"limit": 50, "lease": 60}, {"notices": [notice]}),
            ("/journal/v1/notices/{id}", "post"): ({"state": "sent"}, {"recorded": True}),
            ("/log/v1/decisions/{id}", "get"): (None, {"id": ID, "entries": [entry]}),
            ("/log/v1/checkpoint", "get"): (None, "log.example/decisions\n1\nq83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=\n\n— log.example/decisions ...\n"),
        }

    def _others(self) -> Json:
        url, pack = "https://pdp.example", {"name": self.pack.name, "version": self.pack.version, "digest": self.pack.digest}
        return {
            ("/.well-known/authzen-configuration", "get"): (None, {"policy_decision_point": url, "access_evaluation_endpoint": url + ONE}),
            ("/health/live", "get"): (None, {"status": "live"}),
            ("/health/ready", "get"): (None, {"status": "ready", "pack": pack}),
        }

    # --- answers ---

    def _permit(self) -> Json:
        return self._answer(True)

    def _refusal(self) -> Json:
        return self._answer(False)

    def _answer(self, permits: bool) -> Json:
        reason = self._some(permits)
        owed = [one for one in (self.pack.obligations[id] for id in (reason.obligations if reason else ())) if one.to == "requester"]
        obligations = [{"id": f"o{n}", "type": one.id, "properties": {}} for n, one in enumerate(owed, 1)]
        told = self._told(permits)
        context = {"id": ID, "pack": self.pack.digest, "consent_token": TOKEN, "reason_user": told["reason_user"], "obligations": obligations}
        return {"decision": permits, "context": context}

    def _told(self, permits: bool) -> Json:
        """A decision with its words: of a refusal those that conceal why, if the pack has some."""
        reason = self._some(permits)
        words = self.pack.discreet if not permits and self.pack.discreet else reason.words if reason else {}
        return {"decision": permits, "reason_user": {one: words.get(one, "") for one in self.pack.languages}}

    def _reason(self) -> Json:
        outcome = next(one for one in self.pdp.outcomes if one.permits)
        return {"rule": outcome.rule, "decision": outcome.decision, "legal_basis": outcome.reason.legal_basis if outcome.reason else ""}

    def _some(self, permits: bool) -> Reason | None:
        found = [one.reason for one in self.pdp.outcomes if one.permits is permits and one.reason is not None]
        return found[0] if found else None

    # --- questions ---

    def _act(self) -> str:
        """An act that aims at somebody, if there is one."""
        acts = self.pack.vocabulary.acts
        return next((name for name, several in acts.items() if isinstance(several[0].target, Path)), next(iter(acts), ""))

    def _target(self, act: str) -> Json:
        for form, id in self._directive(act).get("target", {}).items():
            return {"target": {"type": form, "id": id}}
        return {}

    def _directive(self, act: str) -> Json:
        """What an act records, about the one who asks in the other examples."""
        kind = self.pack.vocabulary.kinds[self.pack.vocabulary.acts[act][0].kind]
        formats = self.pack.identifiers.targets
        form = next((one for one in kind.targets if one in formats), None)
        return {"kind": kind.name} | ({"target": {form: _example(formats[form], "")}} if form else {})

    def _holder(self) -> Json:
        """Whoever may be the patient: a type of subject whose identifiers are a patient's, or the last."""
        known, subjects = self.pack.identifiers, self.pack.vocabulary.subjects
        formats = next((several for path, several in known.paths if path == self.pack.vocabulary.patient), ())
        kind = next((one for one in subjects if any(each in formats for each in known.subjects.get(one, ()))), subjects[-1])
        return {"type": kind, "id": self.patient}

    def _entity(self, part: str, kind: str, id: str, action: str) -> Json:
        properties = self._declared(part, action)
        path = self.pack.vocabulary.patient
        steps = path.for_action(action) if path is not None else ()
        if len(steps) == 2 and steps[0] == part and steps[1] != "id":
            properties = {steps[1]: self.patient} | {key: value for key, value in properties.items() if key != steps[1]}
        return {"type": kind, "id": id} | ({"properties": properties} if properties else {})

    def _identifier(self, kind: str) -> str:
        return _example(self.pack.identifiers.subjects.get(kind, ()), f"{kind}-1")

    def _declared(self, part: str, action: str) -> Json:
        """The inputs of this part of a request on which decisions depend, with a value that the pack knows."""
        formats = {path.steps: several for path, several in self.pack.identifiers.paths}
        runner = self.pdp.runner(self.pack.vocabulary.subjects[0], action)
        facts = [fact for name, fact in self.pack.vocabulary.facts.items() if runner is not None and name in runner.tables.fields]
        made: Json = {}
        for fact in facts:
            for path, value in _known_values(fact.form, fact.values):
                steps = path.for_action(action)
                if len(steps) == 2 and steps[0] == part and steps[1] != "id" and value is not None:
                    made.setdefault(steps[1], _example(formats.get(steps, ()), value))
        return made


def _known_values(form: Any, values: tuple[Any, ...]) -> Iterator[tuple[Path, Any]]:
    match form:
        case Given(of, text):
            yield of, "..." if text else values[0]
        case Member(of, among, several):
            yield of, [min(among)] if several else min(among)
        case Coded(of, codes, several):
            yield of, [next(iter(codes), "")] if several else next(iter(codes), "")
        case Elapsed(since):
            yield since, iso(AT)
        case Cell():
            yield form.row, next(iter(form.grid.rows), "")
            if form.column is not None:
                yield form.column, next(iter(form.column_of), "")
        case Same(left, right):
            yield left, "..."
            yield right, "..."


def _example(formats: Formats, otherwise: Any) -> Any:
    return next((one.example for one in formats if one.example), otherwise)

