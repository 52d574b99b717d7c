"""Telemetry, sent by a real service to a real collector: what is in it, and above all what is not."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import api_server
import pytest
from api_questions import STRANGER, act, document, patient, professional, record, target
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from api.telemetry import _is_sampled

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED, UNSAMPLED = f"00-{TRACE}-00f067aa0ba902b7-01", f"00-{TRACE}-00f067aa0ba902b7-00"
QUESTION = {
    "subject": {"type": "professional", "id": api_server.NURSE, "properties": {"profession": "G15_60", "authentication": "DIRECTE"}},
    "action": {"name": "read"},
    "resource": {"type": "document", "id": "DOC-SECRET-NAME", "properties": {"patient": api_server.PATIENT, "type": "11502-2", "status": "Approved"}},
    "context": {"purpose": "care", "justification": "a private reason"},
}


@contextmanager
def collecting() -> Iterator[tuple[str, dict[str, list[bytes]]]]:
    """A collector of OTLP over HTTP: its address, and the bodies that arrived by path."""
    got: dict[str, list[bytes]] = {}

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.setdefault(self.path, []).append(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", got
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, list[bytes]], list[str | None]]]:
    """What a service sent of a few requests, and the `traceparent` of its answers."""
    folder: Path = tmp_path_factory.mktemp("telemetry")
    with collecting() as (address, got):
        said = []
        with api_server.serving(folder, otlp=address, sampling="0.0000001") as server, server.client() as client:
            for headers in ({}, {"traceparent": SAMPLED}, {"traceparent": UNSAMPLED}, {"traceparent": "nonsense"}):
                answer = client.post("/access/v1/evaluation", json=QUESTION, headers=headers)
                assert answer.status_code == 200
                said.append(answer.headers.get("traceparent"))
            client.post("/access/v1/evaluations", json={**QUESTION, "evaluations": [{}, {}, {}]})
            client.post("/access/v1/search/action", json=QUESTION, headers={"traceparent": SAMPLED})
            client.post("/access/v1/search/subject", json=QUESTION)
            client.get(f"/no/such/path/{api_server.PATIENT}")
            client.post("/access/v1/evaluation", content=b"{")
            consent(server)
        yield got, said


def consent(server: api_server.Server) -> None:
    """Acts, lists, histories, journals and previews: the policy is asked before each."""
    about = {"subject": patient(), "resource": record(), "context": {"purpose": "care"}}
    with server.client("consent_desk") as desk, server.client("portal") as portal:
        act(desk, patient(), "open", birth_date="1979-03-28")
        assert desk.post("/consent/v1/acts", json=about | {"subject": professional(STRANGER), "action": {"name": "close"}}).json()["decision"] is False
        assert desk.post("/consent/v1/acts", json=about | {"action": {"name": "grant_access", "properties": {"untill": 1}}}).status_code == 400
        assert desk.post("/consent/v1/access-list", json=about).json()["access_list"] == []
        assert desk.post("/consent/v1/history", json=about).json()["decision"] is True
        several = [document("DOC-SECRET-NAME"), document("DOC-2")]
        assert portal.post("/journal/v1/accesses", json=about | {"documents": several}).json()["decision"] is True
        thought = {"name": "grant_access", "properties": target(api_server.NURSE)}
        previewed = portal.post("/consent/v1/preview", json=about | {"viewer": professional(api_server.NURSE), "documents": several, "act": thought})
        assert previewed.status_code == 200, (previewed.text, server.output())
        assert len(previewed.json()["documents"]) == 2


def spans(got: dict[str, list[bytes]]) -> list:
    requests = [ExportTraceServiceRequest.FromString(body) for body in got.get("/v1/traces", [])]
    return [span for one in requests for resource in one.resource_spans for scope in resource.scope_spans for span in scope.spans]


def points(got: dict[str, list[bytes]], name: str) -> dict[str, float]:
    """The last values of a metric, by their attributes as JSON."""
    found: dict[str, float] = {}
    for body in got.get("/v1/metrics", []):
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics if metric.name == name):
                for point in (metric.sum or metric.gauge).data_points or metric.gauge.data_points or metric.histogram.data_points:
                    key = {one.key: one.value.string_value or one.value.int_value for one in point.attributes}
                    value = point.count if hasattr(point, "count") else point.as_int or point.as_double
                    found[json.dumps(key, sort_keys=True)] = value
    return found


def test_a_request_whose_caller_sampled_it_has_a_span_of_the_same_trace(exported):
    got, said = exported
    traced = [span for span in spans(got) if span.trace_id.hex() == TRACE]
    assert {span.name for span in traced} == {"/access/v1/evaluation", "/access/v1/search/action"}
    assert all(span.parent_span_id.hex() == "00f067aa0ba902b7" for span in traced)
    one = next(span for span in traced if span.name == "/access/v1/evaluation")
    assert said[1] == f"00-{TRACE}-{one.span_id.hex()}-01"
    decided = {one.key: one.value.string_value or one.value.int_value for event in one.events for one in event.attributes}
    assert decided == {"action": "read", "items": 1, "decision": "refuse", "rule": "R01"}


def test_other_requests_have_none(exported):
    got, said = exported
    assert len(spans(got)) == 2
    assert said[0] is said[2] is said[3] is None


def test_decisions_are_counted_by_outcome_rule_and_action_wherever_they_are_made(exported):
    got, _ = exported
    counted = {tuple(json.loads(key)[name] for name in ("action", "decision", "rule")): count for key, count in points(got, "habilis.decisions").items()}
    assert counted == {
        ("read", "refuse", "R01"): 7,  # of evaluations: not of the previewed reading, nor of what the searches tried
        ("open", "permit", "A10"): 1,
        ("close", "refuse", "A99"): 1,
        ("read_access_list", "permit", "A11-list"): 1,
        ("read_traces", "permit", "A06-holder"): 2,
        ("list", "permit", "H01"): 2,
        ("preview", "permit", "H08"): 2,
    }


def test_a_search_is_counted_once_whatever_it_tried(exported):
    got, _ = exported
    assert points(got, "habilis.searches") == {'{"searched": "action"}': 1, '{"searched": "subject"}': 1}


def test_requests_are_counted_by_route_and_status(exported):
    got, _ = exported
    counted = points(got, "habilis.requests")
    assert counted['{"route": "/access/v1/evaluation", "status": 200}'] == 4
    assert counted['{"route": "/access/v1/evaluation", "status": 400}'] == 1
    assert counted['{"route": "/access/v1/evaluations", "status": 200}'] == 1
    assert counted['{"route": "none", "status": 404}'] == 1


def test_durations_the_queue_of_the_log_and_the_freshness_of_records_are_told(exported):
    got, _ = exported
    assert points(got, "habilis.request.duration")['{"route": "/access/v1/evaluation"}'] >= 1
    assert points(got, "habilis.log.backlog") == {"{}": 0}
    assert points(got, "habilis.store.reads")['{"found": "current"}'] >= 4


def test_nothing_that_is_exported_names_a_patient_a_person_a_document_or_a_reason(exported):
    got, _ = exported
    whole = b"".join(body for bodies in got.values() for body in bodies)
    assert whole
    for word in (api_server.PATIENT, api_server.NURSE, "DOC-SECRET-NAME", "private reason", "KEY-store"):
        assert word.encode() not in whole


STATES: dict[str, tuple[list[str], str | None]] = {
    "one": (["vendor=t61rcWkgMzE"], "vendor=t61rcWkgMzE"),
    "several headers are one list": (["a=1,b=2", "tenant@c=3"], "a=1,b=2,tenant@c=3"),
    "a member that is none": (["a=1,PATIENT-279035121518989"], None),
    "a key twice": (["a=1", "a=2"], None),
    "32 members": ([",".join(f"k{n}=1" for n in range(32))], ",".join(f"k{n}=1" for n in range(32))),
    "more members": ([",".join(f"k{n}=1" for n in range(33))], None),
    "overlong": ([f"k{n}=" + "x" * 250 for n in range(33)], None),
    "blank": ([""], None),
    "no text": (["a=\xe9"], None),
}
"""What a caller's `tracestate` headers say, and what goes with the span and the answer."""


def test_a_sampled_request_keeps_the_tracestate_of_its_caller_and_a_malformed_one_is_dropped(tmp_path: Path):
    with collecting() as (address, got), api_server.serving(tmp_path, otlp=address, sampling="0.0000001") as server:
        told = {}
        with server.client() as client:
            for path in ("/access/v1/evaluation", "/access/v1/search/action"):
                for name, (states, _) in STATES.items():
                    headers = [(b"traceparent", SAMPLED.encode()), *((b"tracestate", one.encode("latin-1")) for one in states)]
                    answer = client.post(path, json=QUESTION, headers=headers)
                    assert answer.status_code == 200
                    told[answer.headers["traceparent"].split("-")[2]] = (name, answer.headers.get("tracestate"))
            unsampled = client.post("/access/v1/evaluation", json=QUESTION, headers={"traceparent": UNSAMPLED, "tracestate": "a=1"})
            untraced = client.post("/access/v1/evaluation", json=QUESTION, headers={"traceparent": "nonsense", "tracestate": "a=1"})
            assert not {"traceparent", "tracestate"} & {*unsampled.headers, *untraced.headers}
        server.stop()
        assert len(told) == 2 * len(STATES)
        assert {span.span_id.hex(): span.trace_state or None for span in spans(got)} == {id: state for id, (_, state) in told.items()}
        assert [(name, state) for name, state in told.values() if state != STATES[name][1]] == []
        assert "PATIENT-279035121518989" not in server.output()


@pytest.mark.parametrize(
    ("parent", "sampled"),
    [(SAMPLED, True), (UNSAMPLED, False), ("", False), ("00-1-2", False), ("00-1-2-zz", False), ("00-1-2-03-more", True)],
)
def test_the_flag_of_a_traceparent(parent: str, sampled: bool):
    assert _is_sampled(parent.encode()) is sampled


def test_without_an_address_nothing_is_exported(tmp_path: Path):
    with api_server.serving(tmp_path) as server, server.client() as client:
        answer = client.post("/access/v1/evaluation", json=QUESTION, headers={"traceparent": SAMPLED})
        assert answer.status_code == 200
        assert "traceparent" not in answer.headers
