"""Redis as a cache of record bodies, under (patient, epoch, revision). It is never asked what the revision is, and nothing that it says is believed unproved.

An acknowledged write to Redis can be lost in a failover, and a cache that says "revision 6" after a block made it 7 opens a door. So the revision comes from
the primary in every request; Redis only saves a process that has not met this patient the reading of the directives. What it gives is compared by
`engine.consent.store` with the digest that the primary keeps: a body that is stale, damaged, forged or another patient's is a miss. Absent, slow or stopped,
it is a miss too, and is left alone for a while.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from engine.consent.database import Row

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds that a cache which failed is left alone: doubled each time, up to the longest."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[tuple[int, int, float, str]]).decode


class Cache(Protocol):
    """Where bodies may be found. Neither call raises; a body is checked by whoever asked for it."""

    @property
    def is_up(self) -> bool:
        """Whether asking is worth its while."""
        ...

    def get(self, patient: str, epoch: int, revision: int) -> Sequence[Row] | None: ...

    def put(self, patient: str, epoch: int, revision: int, rows: Sequence[Row]) -> None: ...


class RedisCache:
    """A Redis server at `redis://`, `rediss://` or `unix://`.

    `timeout` is what a server that does not answer may cost, in seconds, once every so often; `ttl` how long an entry may live; `limit` the bytes that a body
    may have.
    """

    def __init__(self, url: str, timeout: float = 0.05, ttl: int = 86_400, limit: int = 262_144, prefix: str = "habilis"):
        self.ttl, self.limit, self.prefix = ttl, limit, prefix
        self._client = redis.Redis.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0), protocol=2, driver_info=None
        )
        self._shut_until = 0.0
        self._pause = FIRST_PAUSE

    @property
    def is_up(self) -> bool:
        return time.monotonic() >= self._shut_until

    def get(self, patient: str, epoch: int, revision: int) -> list[Row] | None:
        """The directives of a record at a revision, unproved; nothing when they are not there, not readable, or the server is not well."""
        body = self._try("GET", self._key(patient, epoch, revision))
        if not isinstance(body, bytes) or len(body) > self.limit:
            return None
        try:
            return _decode(body)
        except msgspec.DecodeError:
            return None

    def put(self, patient: str, epoch: int, revision: int, rows: Sequence[Row]) -> None:
        """Keep the directives of a record at a revision, if that costs little."""
        body = _encode(rows)
        if len(body) <= self.limit:
            self._try("SET", self._key(patient, epoch, revision), body, "EX", self.ttl)

    def close(self) -> None:
        self._client.close()

    def _key(self, patient: str, epoch: int, revision: int) -> str:
        return f"{self.prefix}:{epoch}:{revision}:{patient}"

    def _try(self, *command: str | bytes | int) -> object:
        """One command, or nothing. After a failure one request tries again when the pause is over, while the others go on without."""
        if self._shut_until:
            if not self.is_up:
                return None
            self._shut_until = time.monotonic() + self._pause
        try:
            answer = self._client.execute_command(*command)
        except Exception:  # whatever is wrong with a cache, it is no more than a miss
            self._shut_until = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            return None
        if self._shut_until:
            self._shut_until, self._pause = 0.0, FIRST_PAUSE
        return answer
