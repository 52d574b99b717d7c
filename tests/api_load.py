"""Clients that load a service, through raw sockets: several threads that ask for as long as they are let, on connections that stay open, and keep what they
were answered.

An answer is whole or it is none: `Connection.read` fails on anything between.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from api_questions import ONE, SEVERAL, document, question
from api_server import PATIENT, Server, key_of

Json = Any


@dataclass(slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Json:
        return json.loads(self.body)

    @property
    def ids(self) -> list[str]:
        """The identifiers of the decisions that it tells."""
        told = self.json()
        several = told.get("evaluations", [told])
        return [one["context"]["id"] for one in several if "id" in one["context"]]


def request(path: str, body: Json = b"", *headers: str, caller: str | None = "store", id: str = "", method: str = "POST", http: str = "1.1") -> bytes:
    """A request as bytes. A body that is not bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/{http}", "Host: 127.0.0.1"]
    if caller is not None:
        lines.append(f"Authorization: Bearer {key_of(caller)}")
    if id:
        lines.append(f"X-Request-ID: {id}")
    if not any(one.lower().startswith("content-type:") for one in headers):
        lines.append("Content-Type: application/json")
    if not any(one.lower().startswith(("content-length:", "transfer-encoding:")) for one in headers):
        lines.append(f"Content-Length: {len(data)}")
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + data


class Connection:
    """One connection, kept open."""

    def __init__(self, port: int, timeout: float = 30):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, path: str, body: Json = b"", *headers: str, **more: Any) -> Answer:
        self.send(request(path, body, *headers, **more))
        answer = self.read()
        assert answer is not None, "the service closed the connection before it answered"
        return answer

    def read(self) -> Answer | None:
        """The next answer, whole; nothing when the service closed the connection before it. Interim answers (100) are passed over."""
        while (end := self._data.find(b"\r\n\r\n")) < 0:
            if not self._more():
                assert not self._data, f"half an answer: {self._data!r}"
                return None
        first, *lines = self._data[:end].decode("latin-1").split("\r\n")
        status = int(first.split()[1])
        self._data = self._data[end + 4 :]
        if status == 100:
            return self.read()
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        size = int(headers["content-length"])
        while len(self._data) < size:
            assert self._more(), f"half an answer: {len(self._data)} of {size} bytes"
        body, self._data = self._data[:size], self._data[size:]
        return Answer(status, headers, body)

    def _more(self) -> bool:
        try:
            data = self.socket.recv(1 << 18)
        except ConnectionResetError:
            return False
        self._data += data
        return bool(data)

    def close(self) -> None:
        self.socket.close()


@contextmanager
def connected(server: Server, timeout: float = 30) -> Iterator[Connection]:
    with closing(Connection(server.port, timeout)) as one:
        yield one


def several(size: int = 20, first: int = 0) -> Json:
    """The same question for so many documents of one patient."""
    asked = question()
    asked["evaluations"] = [{"resource": document(f"DOC-{first + n}")} for n in range(size)]
    return asked


QUESTIONS = (request(ONE, question()), request(SEVERAL, several()), request(ONE, question(resource=document("DOC-OTHER", patient=PATIENT, type="11488-4"))))
"""Two single ones and a list."""


@dataclass
class Load:
    """Clients in threads, each with a connection that it opens again when it was closed. What they were told is kept by all."""

    port: int
    clients: int = 4
    questions: tuple[bytes, ...] = QUESTIONS
    kept: bool = True
    pause: float = 0.0
    ids: list[str] = field(default_factory=list)
    """Of every decision that was answered, where they are `kept`."""
    statuses: Counter[int] = field(default_factory=Counter)
    """Of every answer; 0 for a connection that was closed before any."""
    faults: list[str] = field(default_factory=list)
    """What an answer must not be."""
    slowest: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def answers(self) -> int:
        return sum(count for status, count in self.statuses.items() if status)

    def wait(self, claim: Callable[[], bool], otherwise: str, seconds: float = 60) -> None:
        """Let them ask until a claim holds."""
        until = time.monotonic() + seconds
        while not claim():
            assert not self.faults, self.faults[0]
            assert time.monotonic() < until, f"{otherwise}: {self.statuses}"
            time.sleep(0.01)

    def wait_for_more(self, count: int, status: int = 200, seconds: float = 60) -> None:
        """Let them ask until they have had so many more answers with a status."""
        enough = self.statuses[status] + count
        self.wait(lambda: self.statuses[status] >= enough, f"there were not {count} more answers with {status}", seconds)

    def _run(self, number: int) -> None:
        connection: Connection | None = None
        try:
            while not self._stop.is_set():
                try:
                    connection = connection or Connection(self.port)
                    if not self._ask(connection, self.questions[number % len(self.questions)]):
                        connection.close()
                        connection = None
                except OSError:  # refused while nobody listens; reset while it dies
                    self.statuses[0] += 1
                    if connection is not None:
                        connection.close()
                    connection = None
                    time.sleep(0.01)
                number += 1
                if self.pause:
                    time.sleep(self.pause)
        except Exception as error:
            self.faults.append(f"{type(error).__name__}: {error}")
        finally:
            if connection is not None:
                connection.close()

    def _ask(self, connection: Connection, asked: bytes) -> bool:
        """Whether the connection is still good."""
        started = time.monotonic()
        connection.send(asked)
        answer = connection.read()
        if answer is None:
            self.statuses[0] += 1
            return False
        self.slowest = max(self.slowest, time.monotonic() - started)
        if answer.status == 200:
            if self.kept:
                self.ids += answer.ids
        elif answer.status == 503:
            if "retry-after" not in answer.headers or not isinstance(answer.json(), str):
                self.faults.append(f"a 503 that says too little, or too much: {answer}")
        else:
            self.faults.append(f"neither an answer nor unavailable: {answer}")
        self.statuses[answer.status] += 1
        return answer.headers.get("connection") != "close"
