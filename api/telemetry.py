"""Metrics, traces and technical logs: OpenTelemetry, exported over OTLP where the settings say so. INVARIANT: no identifier of a patient is in any of them.

On the hot route a request costs two dictionary updates; OpenTelemetry reads them when it exports. Its own counters would cost ten times as much
(docs/benchmarks.md).
"""

from __future__ import annotations

from collections import Counter

from engine.service import Look


class Metrics:
    """What a worker counts. Read by observable instruments, from another thread."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.decisions: Counter[tuple[str, str, str]] = Counter()

    def answered(self, path: str, status: int, seconds: float) -> None:
        self.requests[path, status] += 1

    def decided(self, look: Look) -> None:
        """Decisions by outcome, rule and action."""
        action = look.answers[0].request.action.name
        for one in look.answers:
            self.decisions[one.outcome.decision, one.outcome.rule, action] += 1

