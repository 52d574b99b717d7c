"""Metrics, traces and technical logs, by OpenTelemetry, sent over OTLP where the settings say so. INVARIANT: no identifier of a patient is in any of them.

On the hot route a request costs a few dictionary updates and one random number: what it adds up to is read when OpenTelemetry exports, and only a sampled
request has a span. OpenTelemetry's own counters and a span on every request took 60 microseconds where this takes one.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from random import random
from time import perf_counter
from typing import Any

from msgspec import Struct
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from api.settings import Settings
from engine.answer import Answers
from engine.evaluator.slices import Outcome
from engine.service import Look

TRACE_CONTEXT = TraceContextTextMapPropagator()

technical = logging.getLogger("habilis")
"""What happens to the machine. INVARIANT: no identifier of a patient, no body, no message of an engine's error that might quote one."""

logging.getLogger("opentelemetry.trace.span").setLevel(logging.ERROR)  # it warns of a malformed tracestate, and quotes it

KEPT = 10_000
"""Durations remembered between two exports: of more, the last ones stand for all."""


class Tally(Struct, gc=False):
    """What is counted of an answered question, so that the question itself need not be kept until its answer leaves: the action if the pack knows it, and how
    many resources had each outcome, the first one's before the others."""

    action: str
    outcomes: list[tuple[Outcome, int]]


def tally(look: Look) -> Tally:
    answers = look.answers
    first = answers[0]
    if len(answers) == 1:
        return Tally(first.runner.action, [(first.outcome, 1)])
    numbers = answers.outcomes if type(answers) is Answers else [one.outcome.number for one in answers]
    outcomes = look.live.pdp.outcomes
    return Tally(first.runner.action, [(outcomes[number], count) for number, count in Counter(numbers).items()])


class Metrics:
    """What a worker counts. Added to by its loop, read by the exporter's thread."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.decisions: Counter[tuple[str, str, str]] = Counter()
        self.searches: Counter[str] = Counter()
        self.durations: deque[tuple[str, float]] = deque(maxlen=KEPT)

    def answered(self, route: str, status: int, seconds: float) -> None:
        self.requests[route, status] += 1
        self.durations.append((route, seconds))

    def decided(self, tally: Tally) -> None:
        """Decisions that are answered or acted on, one for each resource, by outcome, rule and action; without an action, where the pack does not know the one
        that was asked for: anybody can invent those. What a preview tells and what a search tries are not among them: they open nothing.
        """
        for outcome, count in tally.outcomes:
            self.decisions[outcome.decision, outcome.rule, tally.action] += count

    def searched(self, part: str) -> None:
        """A search for this part of a request: one, however many candidates it tried."""
        self.searches[part] += 1


Gauges = Mapping[str, Callable[[], Iterable[tuple[float, Mapping[str, Any]]]]]
"""What is read when metrics are exported: by name, values with their attributes."""


class Telemetry:
    """One worker's exporters. Without an address to export to, nothing is exported and no request has a span."""

    def __init__(self, settings: Settings, metrics: Metrics, gauges: Gauges, reader: MetricReader | None = None, spans: SpanProcessor | None = None):
        self.metrics, self.gauges = metrics, gauges
        self._sampling = settings.sampling if settings.otlp or spans else 0.0
        self._closing: list[Callable[[], object]] = []
        resource = Resource.create({"service.name": "habilis"})
        self._tracer = self._traces(settings, resource, spans)
        if settings.otlp or reader:
            self._metered(settings, resource, reader)
        if settings.otlp:
            self._logged(settings, resource)

    # --- spans ---

    def begin(self, name: str, parent: bytes | None, headers: Iterable[tuple[bytes, bytes]] = ()) -> Span | None:
        """A span for a sampled request, or for one whose caller sampled it (W3C trace context: its `traceparent`, and `tracestate` among its headers); nothing
        for the others.
        """
        if not self._sampling or not (_is_sampled(parent) if parent is not None else random() < self._sampling):
            return None
        told = {"traceparent": [(parent or b"").decode("latin-1")], "tracestate": [value.decode("latin-1") for key, value in headers if key == b"tracestate"]}
        return self._tracer.start_span(name, context=TRACE_CONTEXT.extract(told), kind=SpanKind.SERVER)

    @staticmethod
    def end(span: Span, status: int) -> list[tuple[bytes, bytes]]:
        """End a request's span. Returns what its answer says of it (W3C `traceparent`, and the `tracestate` it came with)."""
        span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end()
        told: dict[str, str] = {}
        TRACE_CONTEXT.inject(told, set_span_in_context(span))
        return [(key.encode(), value.encode()) for key, value in told.items()]

    @staticmethod
    def told(span: Span, tally: Tally) -> None:
        """What a span says of a decision: never of whom."""
        first, items = tally.outcomes[0][0], sum(count for _, count in tally.outcomes)
        span.add_event("decided", {"action": tally.action, "items": items, "decision": first.decision, "rule": first.rule})

    # --- exporters ---

    def _traces(self, settings: Settings, resource: Resource, processor: SpanProcessor | None) -> Any:
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        if processor is None and settings.otlp:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            processor = BatchSpanProcessor(OTLPSpanExporter(f"{settings.otlp.rstrip('/')}/v1/traces"))
        if processor is not None:
            provider.add_span_processor(processor)
            self._closing.append(provider.shutdown)
        return provider.get_tracer("habilis")

    def _metered(self, settings: Settings, resource: Resource, reader: MetricReader | None) -> None:
        if reader is None:
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

            reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{(settings.otlp or '').rstrip('/')}/v1/metrics"), 10_000)
        provider = MeterProvider([reader], resource, shutdown_on_exit=False)
        meter = provider.get_meter("habilis")
        seconds = meter.create_histogram("habilis.request.duration", "s", "from the whole request to its answer")
        metrics = self.metrics

        def requests(_: CallbackOptions) -> Iterator[Observation]:
            while metrics.durations:
                route, duration = metrics.durations.popleft()
                seconds.record(duration, {"route": route})
            for (route, status), count in list(metrics.requests.items()):
                yield Observation(count, {"route": route, "status": status})

        def decisions(_: CallbackOptions) -> Iterator[Observation]:
            for (decision, rule, action), count in list(metrics.decisions.items()):
                yield Observation(count, {"decision": decision, "rule": rule, "action": action})

        def searches(_: CallbackOptions) -> Iterator[Observation]:
            for part, count in list(metrics.searches.items()):
                yield Observation(count, {"searched": part})

        meter.create_observable_counter("habilis.requests", [requests], "1", "answers by route and status")
        meter.create_observable_counter("habilis.searches", [searches], "1", "searches by what was searched")
        meter.create_observable_counter("habilis.decisions", [decisions], "1", "decisions by outcome, rule and action")
        for name, read in self.gauges.items():
            meter.create_observable_gauge(name, [_observed(read)])
        self._closing.append(provider.shutdown)

    def _logged(self, settings: Settings, resource: Resource) -> None:
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

        provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(f"{(settings.otlp or '').rstrip('/')}/v1/logs")))
        handler = LoggingHandler(logger_provider=provider)
        technical.addHandler(handler)
        self._closing += [lambda: technical.removeHandler(handler), provider.shutdown]

    def close(self) -> None:
        """Send what is left."""
        for close in self._closing:
            close()


def _observed(read: Callable[[], Iterable[tuple[float, Mapping[str, Any]]]]) -> Callable[[CallbackOptions], Iterator[Observation]]:
    return lambda _: (Observation(value, dict(attributes)) for value, attributes in read())


def _is_sampled(parent: bytes) -> bool:
    """The flag of a W3C traceparent, `00-TRACE-SPAN-FLAGS`."""
    parts = parent.split(b"-")
    try:
        return len(parts) >= 4 and bool(int(parts[3], 16) & 1)
    except ValueError:
        return False


# --- technical logs --------------------------------------------------------------------------------------------------


def report(error: BaseException, span: Span | None = None) -> None:
    """An internal fault, for whoever keeps the machine: its kind and place, not its words. With the ids of its trace, if it has one."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(f"{trace.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}")
        trace = trace.tb_next
    with _within(span):
        technical.error("internal fault %s at %s", type(error).__name__, " < ".join(reversed(frames)))


@contextmanager
def _within(span: Span | None) -> Iterator[None]:
    if span is None:
        yield
    else:
        with use_span(span, end_on_exit=False):
            yield


# --- everything but the hot route ------------------------------------------------------------------------------------


class Traced:
    """An ASGI application whose requests are counted by route, and have a span if they are sampled."""

    def __init__(self, app: Any, telemetry: Telemetry):
        self.app, self.telemetry = app, telemetry

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        parent = next((value for name, value in scope["headers"] if name == b"traceparent"), None)
        started, status = perf_counter(), 500
        span = self.telemetry.begin("HTTP", parent, scope["headers"])

        async def answer(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if span is not None:
                    span.update_name(_route(scope))
                    message["headers"] = [*message.get("headers", ()), *Telemetry.end(span, status)]
            await send(message)

        try:
            with _within(span):
                await self.app(scope, receive, answer)
        finally:
            self.telemetry.metrics.answered(_route(scope), status, perf_counter() - started)


def _route(scope: Any) -> str:
    """The path as the application declares it: what is in the place of a parameter is nobody's business here."""
    route = scope.get("route")
    return getattr(route, "path", "none")
