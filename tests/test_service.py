"""The whole job in process: identifiers settled, one record read, decided, logged, done; on real stores and a real log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from api_questions import DOCUMENT, STRANGER, target
from api_server import NURSE, OTHER_PATIENT, PATIENT, PHYSICIAN, ROOT

from engine import vocabulary
from engine.consent.directory import Directory, parse_directory
from engine.consent.store import Conflict, ConsentStore, StaleToken, Token
from engine.decision_log.log import DecisionLog, LogUnavailable
from engine.decision_log.read import LogReader
from engine.errors import PackError, RequestError
from engine.pack import parse_pack, read_folder
from engine.pdp import Pdp, load_pdp
from engine.request import Action, Entity, Request
from engine.service import By, FalseClaim, Live, Service, _readable, withheld

FILES = read_folder(ROOT / "policies")
ADELI = "750000118"
"""Another identifier of the treating physician."""
BY, CARE = By("test", "request-1"), {"purpose": "care"}


@pytest.fixture(scope="module")
def pdp() -> Pdp:
    return load_pdp(ROOT / "policies")


@pytest.fixture(scope="module")
def owing() -> Pdp:
    """The pack, but a block owes the desk something."""
    rows = FILES["reasons.csv"].decode().splitlines()
    changed = [row.replace(",no,,", ",no,flag_access,", 1) if row.startswith("A01-block,") else row for row in rows]
    assert changed != rows
    return Pdp(parse_pack(FILES | {"reasons.csv": "\n".join(changed).encode()}))


@pytest.fixture(scope="module")
def directory(pdp: Pdp) -> Directory:
    sheet = f"identifier,profession,others,organisations\n{PHYSICIAN},G15_10,{ADELI},750000010\n{NURSE},G15_60,,\n"
    found: list[Any] = []
    made = parse_directory("people.csv", sheet.encode(), pdp.pack, found)
    assert not found
    return made


class Place:
    """A store and a log in a folder, and services on them."""

    def __init__(self, folder: Path, pdp: Pdp):
        self.url, self.pdp = f"sqlite:///{folder}/log", pdp
        self.store = ConsentStore(f"sqlite:///{folder}/consent.db", pdp.pack.vocabulary, create=True)
        self.log = DecisionLog(self.url, create=True)

    def service(self, pdp: Pdp | None = None, directory: Directory | None = None) -> Service:
        return Service(pdp or self.pdp, self.store, self.log, directory)

    def say(self, *directives: Mapping[str, Any], id: str = PATIENT) -> Token:
        return self.store.append(id, directives, time.time())

    def entries(self, kind: str) -> list[dict[str, Any]]:
        with LogReader(self.url) as log:
            return [one.body for one in log.matching(lambda body: body["kind"] == kind) if one.body]


@pytest.fixture
def place(tmp_path: Path, pdp: Pdp) -> Iterator[Place]:
    made = Place(tmp_path, pdp)
    made.say({"kind": "opened"}, {"kind": "identity", "birth_date": "1979-03-28"}, {"kind": "treating_physician", "target": {"professional": PHYSICIAN}})
    yield made
    made.log.close()
    made.store.close()


def professional(id: str = PHYSICIAN, **properties: Any) -> Entity:
    return Entity("professional", id, {"profession": "G15_10", "structure": "750000010", "authentication": "DIRECTE"} | properties)


def document(id: str = "DOC-1", **properties: Any) -> Entity:
    return Entity("document", id, {**DOCUMENT, **properties})


def record(id: str = PATIENT) -> Entity:
    return Entity("record", id)


HOLDER = Entity("patient", PATIENT)
READ = Action("read")


def asks(name: str, subject: Entity = HOLDER, resource: Entity | None = None, **properties: Any) -> Request:
    return Request(subject, Action(name, properties), resource or record(), CARE)


# --- looking ---------------------------------------------------------------------------------------------------------


def test_a_decision_is_in_the_log_when_it_is_told(place: Place) -> None:
    look = asyncio.run(place.service().decide(professional(), READ, [document(), document("DOC-2", status="Deleted")], CARE, BY))
    assert [look.permits(n) for n in range(2)] == [True, False]
    (entry,) = place.entries("decision")
    assert (entry["id"], entry["patient"], entry["token"], entry["pack"]) == (look.id, PATIENT, str(look.token), place.pdp.pack.digest)
    assert entry["mode"] == "list" and [item[0] for item in entry["items"]] == ["DOC-1", "DOC-2"]


def test_a_closed_log_lets_no_decision_leave(place: Place) -> None:
    service = place.service()
    place.log.close()
    with pytest.raises(LogUnavailable):
        asyncio.run(service.decide(professional(), READ, [document()], CARE, BY))


def test_looking_writes_nothing(place: Place) -> None:
    place.service().look(professional(), READ, [document()], CARE)
    assert place.entries("decision") == [] and place.store.acts(PATIENT) == ()


def test_documents_of_two_records_are_not_one_question(place: Place) -> None:
    for other in (OTHER_PATIENT, None, 5, [PATIENT]):
        with pytest.raises(RequestError, match="one record at a time"):
            place.service().look(professional(), READ, [document(), document("DOC-2", patient=other)], CARE)


def test_an_action_that_the_pack_does_not_have_reads_no_record(place: Place) -> None:
    look = place.service().look(professional(), Action("teleport"), [document(patient="nobody")], CARE)
    assert (look.patient, look.token, look.permits(0), look.answers[0].decision) == ("", None, False, "no_rule")


def test_a_token_that_the_store_cannot_honour_is_no_decision(place: Place) -> None:
    service = place.service()
    token = service.look(professional(), READ, [document()], CARE).token
    assert token is not None and service.look(professional(), READ, [document()], CARE, at_least=token).permits(0)
    for stale in (Token(token.epoch, token.revision + 1), Token(token.epoch + 1, 0)):
        with pytest.raises(StaleToken):
            service.look(professional(), READ, [document()], CARE, at_least=stale)


@pytest.mark.parametrize(("action", "resource"), [("read", "resource.properties.patient"), ("block", "resource.id")])
def test_what_says_whose_record_it_is_depends_on_the_action(place: Place, action: str, resource: str) -> None:
    found = place.service().live.record_of(action)(document())
    assert found == (PATIENT if resource.endswith("patient") else "DOC-1")


def test_a_document_is_of_the_record_that_is_asked_about(place: Place) -> None:
    service = place.service()
    bare = Entity("document", "DOC-1", {"type": "11502-2"})
    assert service.of_record("read", bare, PATIENT) == Entity("document", "DOC-1", {"type": "11502-2", "patient": PATIENT})
    assert service.of_record("read", document(), PATIENT) == document()
    assert service.of_record("block", record(), PATIENT) == record()
    for other in (document(patient=OTHER_PATIENT), document(patient=5)):
        with pytest.raises(RequestError, match="another record"):
            service.of_record("read", other, PATIENT)


def test_only_well_written_identifiers_are_remembered(place: Place) -> None:
    service = place.service()
    for n in range(20):
        service.look(Entity("robot", "x" * n + "y"), READ, [document()], CARE)
        with pytest.raises(RequestError, match=r"subject\.id"):
            service.look(professional(str(n)), READ, [document()], CARE)
    service.look(professional(), READ, [document()], CARE)
    known = service.live.known
    assert known["subject", "professional"] == {PHYSICIAN, None} and known["patient", ""] == {PATIENT, None}
    assert set(known) <= {("subject", "professional"), ("patient", ""), ("path", "resource.structure"), ("path", "resource.author")}
    assert sum(map(len, known.values())) < 10


def test_what_is_well_formed_in_one_place_is_not_for_that_in_another(place: Place) -> None:
    """Two paths of a pack may lead to one property, by action, with formats of their own: a spelling that only the other one has is nobody's."""
    formats, pack = place.pdp.pack.identifiers.formats, place.pdp.pack
    elsewhere, author = ("resource", "elsewhere"), ("resource", "author")
    paths = (
        (vocabulary.Path("author", author, {"list": elsewhere}), (formats["structure"],)),
        (vocabulary.Path("signatory", elsewhere, {"list": author}), (formats["professional"],)),
    )
    pdp: Any = SimpleNamespace(pack=replace(pack, identifiers=replace(pack.identifiers, paths=paths)))
    live = Live(pdp, None, place.service().live.scribe)
    by_structure, by_professional = ([Entity("document", "DOC-1", {"author": id})] for id in ("750000010", PHYSICIAN))
    for _ in range(2):
        assert _readable(live, "read", by_structure) == by_structure and _readable(live, "list", by_professional) == by_professional
        for action, several in (("list", by_structure), ("read", by_professional)):
            assert _readable(live, action, several) == [Entity("document", "DOC-1", {})]


# --- the directory ---------------------------------------------------------------------------------------------------


def test_a_block_by_another_identifier_of_a_person_holds(place: Place, directory: Directory) -> None:
    """It was recorded, by an import say, before anybody knew that the identifiers are one person's."""
    assert place.service(directory=directory).look(professional(), READ, [document()], CARE).permits(0)
    place.say({"kind": "block", "target": {"professional": ADELI}})
    assert not place.service(directory=directory).look(professional(), READ, [document()], CARE).permits(0)
    assert not place.service(directory=directory).look(professional(ADELI), READ, [document()], CARE).permits(0)


def test_claims_that_the_directory_contradicts_are_not_decided_upon(place: Place, directory: Directory) -> None:
    service = place.service(directory=directory)
    for wrong in (professional(profession="G15_60"), professional(ADELI, profession="G15_60"), professional(structure="750000077")):
        with pytest.raises(FalseClaim, match="directory"):
            service.look(wrong, READ, [document()], CARE)
        with pytest.raises(FalseClaim, match="directory"):
            service.act(Request(wrong, Action("leave_care_team", target(PHYSICIAN, team="750000036")), record(), CARE), BY)
    with pytest.raises(FalseClaim, match="target"):
        service.act(asks("declare_treating_physician", **target(NURSE, profession="G15_10")), BY)
    assert place.entries("act") == [] and place.store.acts(PATIENT) == ()


def test_every_document_of_a_list_is_settled_as_if_it_were_alone(place: Place, directory: Directory) -> None:
    service = place.service(directory=directory)
    authors: list[Any] = [STRANGER, ADELI, [STRANGER, ADELI], PHYSICIAN, None, 5, ["x"], [], {"x": ADELI}]
    several = [document(f"DOC-{n}", author=author) for n, author in enumerate(authors)]
    nobody = professional(profession=None)
    together = service.look(nobody, Action("archive"), several, CARE)
    alone = [service.look(nobody, Action("archive"), [one], CARE) for one in several]
    assert [one.rule for one in together.answers] == [one.answers[0].rule for one in alone]
    assert [one.request for one in together.answers] == [one.answers[0].request for one in alone]
    assert together.answers[1].request.resource.properties["author"] == PHYSICIAN
    assert together.answers[2].request.resource.properties["author"] == [STRANGER, PHYSICIAN]


def test_a_preview_knows_people_by_every_identifier(place: Place, directory: Directory) -> None:
    service = place.service(directory=directory)
    place.say({"kind": "block", "target": {"professional": ADELI}})
    look = service.look(HOLDER, Action("preview"), [document()], CARE)
    (seen,) = service.preview(look, professional(ADELI), [document()], CARE, asks("unblock", **target(ADELI)))
    assert (seen.now.permitted, seen.then.permitted) == (False, True)
    with pytest.raises(FalseClaim):
        service.preview(look, professional(profession="G15_60"), [document()], CARE)


# --- obligations -----------------------------------------------------------------------------------------------------


def test_a_permit_is_withheld_from_whoever_cannot_do_what_it_owes(place: Place) -> None:
    emergency = CARE | {"access_mode": "bris_de_glace", "justification": "coma"}
    several = [document(), document("DOC-2", status="Deleted"), document("DOC-3")]
    for supported, expected in ((None, set()), ({"flag_access"}, set()), (set(), {0, 2}), ({"other"}, {0, 2})):
        look = place.service().look(professional(STRANGER), READ, several, emergency, supported=supported)
        assert look.withheld == expected == withheld(look.answers, supported)
        assert [look.permits(n) for n in range(3)] == [not expected, False, not expected]


def test_an_act_that_owes_what_the_caller_cannot_do_is_not_done(place: Place, owing: Pdp) -> None:
    service = place.service(owing)
    before = place.store.history(PATIENT)
    look, done = service.act(asks("block", **target(NURSE)), BY, supported=set())
    assert not look.permits(0) and look.withheld == {0} and done.directives == () and place.store.history(PATIENT) == before
    assert [(one["state"], one["withheld"]) for one in place.entries("act")] == [("asked", [0]), ("refused", [0])]
    (kept,) = place.store.acts(PATIENT)
    assert kept.act.id == look.id and kept.act.told["done"] is False
    for supported in ({"flag_access"}, None):
        look, done = service.act(asks("block", **target(NURSE)), BY, supported=supported)
        assert look.permits(0) and len(done.directives) == 1


# --- acts ------------------------------------------------------------------------------------------------------------


def test_an_act_is_asked_done_and_kept_under_one_identifier(place: Place) -> None:
    look, done = place.service().act(asks("block", **target(NURSE)), BY)
    first, last = place.entries("act")
    assert [one["state"] for one in (first, last)] == ["asked", "done"] and first["id"] == last["id"] == look.id == done.id
    assert first["token"] == last["token"] and last["after"] == str(done.token) == str(Token(done.token.epoch, 4))
    assert last["directives"] == list(done.directives) and last["directives"][0]["target"] == {"professional": NURSE}
    assert place.store.acts(PATIENT)[-1].act.id == look.id


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (asks("read", resource=document()), "no act"),
        (asks("blok"), "did you mean `block`"),
        (asks("block", target={"type": "professional", "id": "10000023085"}), "check digits"),
        (asks("block", resource=record("1"), **target(NURSE)), "not written like"),
        (asks("block", Entity("patient", "1"), **target(NURSE)), "subject.id"),
        (asks("grant_access", target={"type": "professional"}), "one identifier"),
        (asks("grant_access", until="tomorrow", **target(NURSE)), "date"),
    ],
)
def test_an_act_that_cannot_be_is_not_even_asked_for(place: Place, request_: Request, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        place.service().act(request_, BY)
    assert place.entries("act") == [] and place.store.acts(PATIENT) == ()


class Forgetful(DecisionLog):
    """A log that is closed as soon as it has taken one act."""

    def append_now(self, *bodies: bytes) -> None:
        super().append_now(*bodies)
        if any(b'"kind":"act"' in one for one in bodies):
            self.close()


def test_of_an_act_whose_end_is_not_in_the_log_the_record_says_what_became(place: Place) -> None:
    place.log.close()
    place.log = Forgetful(place.url)
    with pytest.raises(LogUnavailable):
        place.service().act(asks("block", **target(NURSE)), BY)
    (asked,) = place.entries("act")
    assert asked["state"] == "asked"
    kept = place.store.acts(PATIENT)[-1]
    assert kept.act.id == asked["id"] and kept.act.told["done"] is True


class Busy(ConsentStore):
    """A store to which somebody else always writes first."""

    def append(self, *args: Any, **kwargs: Any) -> Token:
        raise Conflict("the record changed since it was read: nothing was written")


def test_an_act_that_always_comes_too_late_is_logged_as_not_done(place: Place) -> None:
    service = place.service()
    assert service.live.store is not None
    service.live.store.__class__ = Busy
    with pytest.raises(Conflict):
        service.act(asks("block", **target(NURSE)), BY)
    assert [one["state"] for one in place.entries("act")] == ["asked", "refused"] and len(place.store.history(PATIENT)) == 3


# --- packs -----------------------------------------------------------------------------------------------------------


def test_a_pack_is_in_the_log_before_its_first_decision_and_is_swapped_whole(place: Place, owing: Pdp) -> None:
    service = place.service()
    before = service.look(professional(), READ, [document()], CARE)
    service.use(owing)
    after = service.look(professional(), READ, [document()], CARE)
    assert [one["digest"] for one in place.entries("pack")] == [place.pdp.pack.digest, owing.pack.digest]
    assert (before.live.pdp, after.live.pdp) == (place.pdp, owing)
    asyncio.run(place.log.append(service.entry(before, BY, False), service.entry(after, BY, False)))
    assert [one["pack"] for one in place.entries("decision")] == [place.pdp.pack.digest, owing.pack.digest]


def test_a_pack_that_cannot_be_logged_is_not_used(place: Place, owing: Pdp) -> None:
    service = place.service()
    place.log.close()
    with pytest.raises(LogUnavailable):
        service.use(owing)
    assert service.live.pdp is place.pdp


SERVICE = b'traces = "read_traces"'


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (SERVICE, b'traces = "read_trace"', "unknown action `read_trace`\n  help: did you mean `read_traces`?"),
        (b'previewed = "read"\n', b"", "the key `previewed` is missing\n  help: `preview` says nothing without it: add it to `service`"),
        (b'preview = "preview"\n', b"", "the key `preview` is missing\n  help: `previewed` says nothing without it: add it to `service`"),
        (b'known_documents = ["only_known_documents"]', b'known_documents = ["only_known"]', "unknown obligation `only_known`"),
        (SERVICE, b"journals = true", "`journals` is not a key here"),
        (SERVICE, b"traces = 5", "`service.traces` must be text"),
        (b'"10000023084"', b'"10000023085"', "`10000023085` is not an identifier of a professional: its check digits do not fit the others"),
    ],
)
def test_what_the_service_asks_about_is_checked_like_everything(before: bytes, after: bytes, said: str) -> None:
    assert before in FILES["pack.toml"]
    with pytest.raises(PackError) as caught:
        parse_pack(FILES | {"pack.toml": FILES["pack.toml"].replace(before, after, 1)})
    (one,) = caught.value.diagnostics
    assert said.splitlines() in ([one.message], [one.message, f"  help: {one.help}"])
    assert one.file == "pack.toml" and one.line > 0


def test_a_pack_may_leave_out_what_it_does_not_offer() -> None:
    table = FILES["pack.toml"]
    start = table.index(b"[service]")
    end = table.index(b"\n\n", start)
    service = parse_pack(FILES | {"pack.toml": table[:start] + table[end:]}).service
    assert (service.access_list, service.traces, service.preview, service.previewed, service.known_documents) == (None, None, None, None, [])
