"""Each route names its roles, and is closed to everybody else: one test for each route and role, made from the application's own routes. And what is described
of a route is so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from api_questions import logged
from api_server import PATIENT, ROLES, ROOT, Server, serving
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode

from api.app import FREE, build_app, routes_of
from api.callers import ROLES as ALL_ROLES
from api.hot import ONE, ROLE, SEVERAL
from api.openapi import described, roles_of
from engine.pdp import load_pdp

HOT = [(ONE, "post", (ROLE,)), (SEVERAL, "post", (ROLE,))]
FOUND = [*roles_of(routes_of(build_app())), *HOT]
NAMED = [one for one in FOUND if one[0] not in FREE]


def ids(one: Any) -> str | None:
    return one if isinstance(one, str) else None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("roles")) as one:
        yield one


@pytest.fixture(scope="module")
def clients(server: Server) -> Iterator[dict[str | None, httpx.Client]]:
    made = {name: server.client(name) for name in (*ROLES, None)}
    yield made
    for one in made.values():
        one.close()


@pytest.fixture(scope="module")
def description(clients: dict[str | None, httpx.Client]) -> dict[str, Any]:
    answer = clients[None].get("/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def url_of(path: str) -> str:
    digits = 32 if "notices" in path else 26
    return re.sub(r"\{[^}]*\}", "0" * digits, path)


# --- roles -----------------------------------------------------------------------------------------------------------


def test_there_are_callers_of_every_role() -> None:
    assert set(ROLES) == set(ALL_ROLES)


@pytest.mark.parametrize(("path", "method", "roles"), FOUND, ids=ids)
def test_every_route_names_its_roles_or_is_free(path: str, method: str, roles: tuple[str, ...]) -> None:
    assert bool(roles) is (path not in FREE), f"{path} is for whoever calls: give it a Role, or say in FREE that it is for anybody"
    assert set(roles) <= set(ALL_ROLES)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("path", "method", "roles"), NAMED, ids=ids)
def test_a_route_is_open_to_its_roles_and_closed_to_others(
    clients: dict[str | None, httpx.Client], path: str, method: str, roles: tuple[str, ...], role: str
) -> None:
    answer = clients[role].request(method, url_of(path), json={} if method == "post" else None)
    if role in roles:
        assert answer.status_code not in (401, 403) and answer.text != '"not found"', answer.text
    else:
        assert answer.status_code == 403 and role.replace("_", "") in answer.json().replace("_", "")


@pytest.mark.parametrize(("path", "method", "roles"), NAMED, ids=ids)
def test_nobody_is_let_in_before_he_is_known(server: Server, path: str, method: str, roles: tuple[str, ...]) -> None:
    before = len(logged(server))
    for authorization in (None, "Bearer", "Bearer wrong", "Basic c3RvcmU6eA==", "Bearer " + "x" * 20_000):
        headers = {} if authorization is None else {"authorization": authorization}
        with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
            answer = client.request(method, url_of(path), content=b"{", headers=headers | {"content-type": "application/json"})
        assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Bearer") and isinstance(answer.json(), str)
    assert len(logged(server)) == before


@pytest.mark.parametrize("path", sorted(FREE))
def test_what_is_free_says_nothing_of_anybody(clients: dict[str | None, httpx.Client], path: str) -> None:
    answer = clients[None].get(path)
    assert answer.status_code == 200


def test_what_there_is_not_is_told_to_callers_alone(clients: dict[str | None, httpx.Client]) -> None:
    assert clients[None].get("/no/such/route").status_code == 401
    answer = clients["store"].get("/no/such/route")
    assert answer.status_code == 404 and isinstance(answer.json(), str)


def test_readiness_fills_no_log(server: Server, clients: dict[str | None, httpx.Client]) -> None:
    before = len(logged(server, "ready"))
    for _ in range(50):
        assert clients[None].get("/health/ready").status_code == 200
    assert len(logged(server, "ready")) <= before + 25


# --- the description -------------------------------------------------------------------------------------------------


def operations(description: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, several in description["paths"].items():
        for method, one in several.items():
            yield path, method, one


def test_every_route_is_described_with_its_roles(description: dict[str, Any]) -> None:
    told = {(path, method): tuple(one.get("x-roles", ())) for path, method, one in operations(description)}
    assert told == {(path, method): roles for path, method, roles in FOUND}
    for path, _, one in operations(description):
        assert one["description"] and one["summary"] and one["tags"], path
        assert bool(one["security"]) is (path not in FREE) is ("401" in one["responses"])
        assert "422" not in one["responses"]
        for status, answer in one["responses"].items():
            if status != "200" and "content" in answer:
                assert answer["content"]["application/json"]["schema"] == {"type": "string"}, (path, status)


def test_every_route_has_an_example_of_its_request_and_of_its_answer(description: dict[str, Any]) -> None:
    for path, method, one in operations(description):
        if "requestBody" in one:
            assert one["requestBody"]["content"]["application/json"]["example"], (path, method)
        assert any("example" in kind for kind in one["responses"]["200"]["content"].values()), (path, method)


def test_the_route_of_acts_says_what_each_reads(description: dict[str, Any]) -> None:
    told = description["paths"]["/consent/v1/acts"]["post"]["description"].splitlines()
    assert {"- `block`: `target`", "- `grant_access`: `by`, `given`, `target`, `until`"} <= set(told)
    assert {f"- `{name}`: `structure` (of a target `deposited`), `target`" for name in ("mask_documents", "unmask_documents")} <= set(told)


def test_examples_speak_every_language_of_the_pack(description: dict[str, Any]) -> None:
    for path, method, one in operations(description):
        for kind in one["responses"]["200"]["content"].values():
            for words in reasons(kind["example"]):
                assert words.keys() == {"fr", "en"} and all(words.values()), (path, method)
    refused = description["paths"][SEVERAL]["post"]["responses"]["200"]["content"]["application/json"]["example"]["evaluations"][1]
    assert refused["decision"] is False and refused["context"]["reason_user"] == {"fr": "Aucun document à présenter.", "en": "No document to show."}


def reasons(told: Any) -> Iterator[dict[str, str]]:
    if isinstance(told, dict):
        if "reason_user" in told:
            yield told["reason_user"]
        for one in told.values():
            yield from reasons(one)
    elif isinstance(told, list):
        for one in told:
            yield from reasons(one)


def test_examples_are_answered_with_the_members_that_they_show(description: dict[str, Any], clients: dict[str | None, httpx.Client]) -> None:
    """In the order in which a record comes to be: it is opened by hand, then every example is asked."""
    holder = {"type": "patient", "id": PATIENT}
    opened = {"subject": holder, "action": {"name": "open"}, "resource": {"type": "record", "id": PATIENT}}
    assert clients["consent_desk"].post("/consent/v1/acts", json=opened).json()["decision"] is True
    for path, method, one in operations(description):
        if "requestBody" not in one:
            continue
        answer = clients[one["x-roles"][0]].request(method, url_of(path), json=one["requestBody"]["content"]["application/json"]["example"])
        if "/{id}" in path:
            assert answer.status_code in (200, 400, 404, 409), (path, answer.text)  # there is none with the example's identifier
            continue
        assert answer.status_code == 200, (path, answer.text)
        shown, told = one["responses"]["200"]["content"]["application/json"]["example"], answer.json()
        if told.get("decision") is shown.get("decision"):
            assert told.keys() == shown.keys(), path
        if "context" in told:
            assert told["context"].keys() == shown["context"].keys(), path


def test_another_pack_is_described_in_its_own_words() -> None:
    app = build_app()
    told = described(app, routes_of(app), load_pdp(ROOT / "examples" / "library_pack"), FREE)
    asked = told["paths"][ONE]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert asked["subject"]["type"] == "reader" and asked["action"]["name"] == "consult"
    assert not re.search(r"G15|professional|RPPS|dmp", str([one.get("requestBody") for _, _, one in operations(told)]))


# --- whatever is asked -----------------------------------------------------------------------------------------------


def asking(operation: Any, client: httpx.Client, server: Server) -> None:
    @given(case=operation.as_strategy())
    @settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
    def ask(case: Any) -> None:
        answer = case.call(base_url=server.url, headers={"authorization": client.headers["authorization"]})
        assert answer.status_code < 500, (case.path, answer.status_code, answer.text)

    ask()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_no_question_of_any_shape_is_an_internal_fault(description: dict[str, Any], server: Server, clients: dict[str | None, httpx.Client]) -> None:
    """Schemathesis asks every route what its description allows, and what it does not."""
    schema = schemathesis.openapi.from_dict(description)
    schema.config.generation.modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    count = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        client = clients[(operation.definition.raw.get("x-roles") or ["store"])[0]]
        asking(operation, client, server)
        count += 1
    assert count == len(FOUND)
    assert "internal fault" not in server.output()
