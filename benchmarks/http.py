"""What does a decision cost over HTTP: logged durably, the caller authenticated, the record's revision checked?

Size: 2,000 different questions about 200 patients, asked in turn over 1, 32 and 256 connections; lists of 10 to 500 documents of one patient, over 16.
Baselines: a bare ASGI application that decodes the same JSON and answers the same, FastAPI with pydantic doing so, and the Cerbos server with the same policy,
to which the facts are given. Each server has one processor and the client (wrk) the other; they take turns.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.inputs import SUBJECT, as_request, make_patients
from benchmarks.measure import Answer, Bar, Plot, Table
from benchmarks.packs import FRENCH
from benchmarks.peers import flat, rules_of, unordered, written
from engine.compiled import dump
from engine.consent.identifiers import luhn
from engine.consent.store import ConsentStore
from engine.pdp import Pdp, load_pdp

ROOT = Path(__file__).parent.parent
CERBOS = ROOT / "benchmarks" / "node" / "node_modules" / "@cerbos" / "cerbos-linux-x64" / "cerbos-linux-x64"
CONNECTIONS, LENGTHS = (1, 32, 256), (10, 100, 200, 500)
SENDERS = 16
"""Connections over which lists are sent."""
HABILIS, ASGI, TOLD, BARE, USUAL, PEER = "Habilis", "Habilis, through ASGI", "Habilis, telemetry exported", "bare ASGI", "FastAPI with pydantic", "Cerbos"
NAMED = "Habilis, each request with an identifier"
KEY = "benchmark-key-0123456789abcdef0123456789"
ONE, SEVERAL = "/access/v1/evaluation", "/access/v1/evaluations"


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked: a question or lists of so many, over so many connections."""

    each: int
    connections: int


@dataclass(frozen=True, slots=True)
class Seen:
    """Requests a second, and microseconds for half and for 99 % of them."""

    rate: float
    p50: float
    p99: float


def run(quick: bool) -> Answer:
    """Single questions, then lists; every server in turns, several rounds of each."""
    for tool, how in ((shutil.which("wrk"), "install Debian's package wrk"), (CERBOS.exists(), "run npm ci in benchmarks/node")):
        if not tool:
            raise SystemExit(f"the HTTP question needs something that is not here: {how}")
    rounds, seconds = (2, 1) if quick else (7, 2)
    pdp = load_pdp(FRENCH)
    questions = _questions(pdp, 20 if quick else 200)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="habilis-bench-")))
        servers = {name: stack.enter_context(start(folder, pdp, questions)) for name, start in SERVERS.items()}
        _agree(pdp, questions, servers)
        singles = _measure(servers, [Load(1, n) for n in CONNECTIONS], questions, folder, rounds, seconds)
        lists = _measure({k: v for k, v in servers.items() if k not in (TOLD, NAMED)}, [Load(n, SENDERS) for n in LENGTHS], questions, folder, rounds, seconds)
        fsync = _fsync(folder)
    size = f"{len(questions):,} questions about {len(questions) // 10:,} patients; rounds of {seconds} s, {rounds} of each"
    made = Answer("http", "What does a decision cost over HTTP: logged durably, the caller authenticated, the revision checked?", size, BARE)
    made.tables = [_table("Single decisions", singles), _table(f"Lists of documents, {SENDERS} connections", lists)]
    made.bars = _bars(singles, lists, fsync)
    made.notes.append(f"The disk takes {fsync:.0f} µs to say that it has written (fsync of 4 KB).")
    made.plots = [Plot("Single decisions over HTTP", "connections", "requests a second", curves=_curves(singles))]
    return made


# --- what is asked ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Question:
    """A request as JSON, its patient, and what his record says."""

    body: dict[str, Any]
    patient: str
    directives: list[dict[str, Any]]


def _questions(pdp: Pdp, patients: int) -> list[Question]:
    """Ten questions for each patient, about documents that differ."""
    made = []
    for patient, directives, text in islice(make_patients(pdp, patients), patients):
        told = json.loads(_proper(json.dumps(directives)))
        body = json.loads(_proper(text.decode()))
        for n in range(10):
            resource = {**body["resource"], "id": f"DOC-{patient[-6:]}-{n}"}
            made.append(Question({**body, "resource": resource}, patient, told))
    return made


def _proper(text: str) -> str:
    """Professionals and structures of the generator with identifiers whose last digit fits the others."""
    return re.sub(r'"(8\d{9}|75\d{6})\d"', lambda one: f'"{next(one[1] + str(n) for n in range(10) if luhn(one[1] + str(n)))}"', text)


def _list(questions: Sequence[Question], at: int, length: int) -> dict[str, Any]:
    """A list of so many documents of one patient."""
    first = questions[at].body
    same = [one.body["resource"] for one in questions[at - at % 10 : at - at % 10 + 10]]
    resources = [{**same[n % 10], "id": f"{same[n % 10]['id']}-{n}"} for n in range(length)]
    return {"subject": first["subject"], "action": first["action"], "context": first["context"], "evaluations": [{"resource": one} for one in resources]}


# --- servers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers: how a question is put to it, and how its answer is read."""

    port: int
    pid: int
    body: Callable[[Question], dict[str, Any]]
    listed: Callable[[dict[str, Any]], dict[str, Any]]
    paths: tuple[str, str]
    decisions: Callable[[dict[str, Any]], list[bool]]


def _authzen(told: dict[str, Any]) -> list[bool]:
    return [one["decision"] for one in told.get("evaluations", [told])]


@contextmanager
def _process(command: list[str], port: int, ready: str, **environment: str) -> Iterator[int]:
    process = subprocess.Popen(["taskset", "-c", "0", *command], cwd=ROOT, env=os.environ | environment, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        until = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=5):
                    break
            except urllib.error.HTTPError:
                break
            except OSError as error:
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{command[0]} did not start") from error
                time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def _habilis(folder: Path, pdp: Pdp, questions: Sequence[Question], port: int = 8701, code: str = "", **settings: str) -> Iterator[Server]:
    from hashlib import sha256

    place = folder / str(port)
    place.mkdir()
    (place / "pack.habilis").write_bytes(dump(pdp))
    digest = sha256(KEY.encode()).hexdigest()
    (place / "callers.toml").write_text(
        f'[caller.bench]\nkey_sha256 = ["{digest}"]\nroles = ["store"]\nsubjects = {{ "*" = "*" }}\nclaims = {{ "*" = "*" }}\n', encoding="utf-8"
    )
    with ConsentStore(f"sqlite:///{place}/consent.db", pdp.pack.vocabulary, create=True) as store:
        for one in questions[::10]:
            store.append(one.patient, one.directives, time.time() - 60)
    given = {
        "pack": f"{place}/pack.habilis", "store": f"sqlite:///{place}/consent.db", "log": f"sqlite:///{place}/log", "journal": f"sqlite:///{place}/journal.db",
        "callers": f"{place}/callers.toml", "create": "true", "log_key": f"{place}/key.pem", "port": str(port), "follow": "false",
    } | settings  # fmt: skip
    command = [sys.executable, "-c", f"{code}\nimport sys; sys.argv = ['habilis', 'serve']; from cli.main import app; app()"]
    with _process(command, port, "/health/live", **{f"HABILIS_{key.upper()}": value for key, value in given.items()}) as pid:
        yield Server(port, pid, lambda one: one.body, lambda body: body, (ONE, SEVERAL), _authzen)


def _through_asgi(folder: Path, pdp: Pdp, questions: Sequence[Question]) -> Any:
    """The same service without its connections' own way to a hot answer."""
    return _habilis(folder, pdp, questions, 8702, "import api.direct; api.direct.Direct.head = lambda *_: None")


@contextmanager
def _exporting(folder: Path, pdp: Pdp, questions: Sequence[Question]) -> Iterator[Server]:
    """The same with telemetry sent to a collector that takes everything, one request in a thousand traced."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    collector = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    Thread(target=collector.serve_forever, daemon=True).start()
    with _habilis(folder, pdp, questions, 8703, otlp=f"http://127.0.0.1:{collector.server_address[1]}") as server:
        yield server
    collector.shutdown()


@contextmanager
def _uvicorn(module: str, port: int) -> Iterator[Server]:
    command = [
        sys.executable, "-m", "uvicorn", f"benchmarks.servers.{module}:app", "--port", str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log",
        "--log-level", "error",
    ]  # fmt: skip
    with _process(command, port, "/") as pid:
        yield Server(port, pid, lambda one: one.body, lambda body: body, (ONE, SEVERAL), _authzen)


CEL = {"and": "&&", "or": "||", "not": "!", "true": "true", "false": "false"}


@contextmanager
def _cerbos(folder: Path, pdp: Pdp, questions: Sequence[Question]) -> Iterator[Server]:
    """Cerbos with the slice as CEL, which knows no order, and the facts as attributes of the resource: it is spared computing them, the log, and the record."""
    place = folder / "cerbos"
    place.mkdir()
    rules = []
    for id, condition, permits in unordered(rules_of(pdp), forbid=True):
        text = written(condition, lambda fact: f"R.attr.{flat(fact)}", lambda _, value: json.dumps(value), CEL)
        effect = "EFFECT_ALLOW" if permits else "EFFECT_DENY"
        rules.append({"name": id.replace("_", "-"), "actions": ["read"], "effect": effect, "roles": [SUBJECT], "condition": {"match": {"expr": text}}})
    policy = {"apiVersion": "api.cerbos.dev/v1", "resourcePolicy": {"resource": "document", "version": "default", "rules": rules}}
    (place / "document.json").write_text(json.dumps(policy), encoding="utf-8")
    command = [
        str(CERBOS), "server", f"--set=storage.disk.directory={place}", "--set=server.httpListenAddr=127.0.0.1:8706",
        "--set=server.grpcListenAddr=127.0.0.1:8707", "--set=server.requestLimits.maxResourcesPerRequest=500", "--set=telemetry.disabled=true",
        "--log-level=error",
    ]  # fmt: skip
    runner = pdp.runner(SUBJECT, "read")
    assert runner is not None
    names = [fact.name for fact in runner.slice.facts]
    folded = {one.patient: pdp.fold(one.directives, time.time()) for one in questions[::10]}

    def resource(body: dict[str, Any], patient: str) -> dict[str, Any]:
        answer = pdp.decide(as_request(json.dumps(body).encode()), folded[patient])
        known = answer.situation
        attributes = {flat(name): known.get(name, pdp.pack.vocabulary.facts[name].absent) for name in names}
        return {"actions": ["read"], "resource": {"kind": "document", "id": body["resource"]["id"], "attr": attributes}}

    def asked(bodies: list[dict[str, Any]], patient: str) -> dict[str, Any]:
        who = bodies[0]["subject"]
        return {"requestId": "bench", "principal": {"id": who["id"], "roles": [SUBJECT]}, "resources": [resource(one, patient) for one in bodies]}

    def listed(body: dict[str, Any]) -> dict[str, Any]:
        bodies = [{**{key: value for key, value in body.items() if key != "evaluations"}, **item} for item in body["evaluations"]]
        return asked(bodies, bodies[0]["resource"]["properties"]["patient"])

    def decisions(told: dict[str, Any]) -> list[bool]:
        return [one["actions"]["read"] == "EFFECT_ALLOW" for one in told["results"]]

    path = "/api/check/resources"
    with _process(command, 8706, "/_cerbos/health", GOMAXPROCS="1") as pid:
        yield Server(8706, pid, lambda one: asked([one.body], one.patient), listed, (path, path), decisions)


SERVERS: dict[str, Callable[[Path, Pdp, Sequence[Question]], Any]] = {
    HABILIS: _habilis,
    ASGI: _through_asgi,
    NAMED: lambda folder, pdp, questions: _habilis(folder, pdp, questions, 8708),
    TOLD: _exporting,
    BARE: lambda *_: _uvicorn("bare", 8704),
    USUAL: lambda *_: _uvicorn("usual", 8705),
    PEER: _cerbos,
}


# --- asking ----------------------------------------------------------------------------------------------------------


def _ask(server: Server, path: str, body: dict[str, Any]) -> list[bool]:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", json.dumps(body).encode(), headers)) as told:
        return server.decisions(json.load(told))


def _agree(pdp: Pdp, questions: Sequence[Question], servers: dict[str, Server]) -> None:
    """Everybody who decides decides alike, one by one and in lists."""
    for n in range(0, len(questions), max(1, len(questions) // 200)):
        one = questions[n]
        request = as_request(json.dumps(one.body).encode())
        expected = pdp.decide(request, pdp.fold(one.directives, time.time())).permitted
        for name in (HABILIS, NAMED, ASGI, TOLD, PEER):
            got = _ask(servers[name], servers[name].paths[0], servers[name].body(one))
            assert got == [expected], f"{name} decides {got}, and it is {expected}: {one.body}"
    several = _list(questions, 5, 100)
    told = {name: _ask(servers[name], servers[name].paths[1], servers[name].listed(several)) for name in (HABILIS, ASGI, PEER)}
    assert len({tuple(one) for one in told.values()}) == 1, "lists are decided differently"


IDENTIFIED = 'wrk.headers["X-Request-ID"] = string.format("request-%08d", #asked)'
SCRIPT = """
local asked, n = {}, 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer %s"
init = function()
  for line in io.lines("%s") do
    %s
    asked[#asked + 1] = wrk.format(nil, "%s", nil, line)
  end
end
request = function()
  n = n %% #asked + 1
  return asked[n]
end
done = function(summary, latency)
  local bad = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  print(string.format("SEEN %%f %%f %%f %%d", summary.requests / summary.duration * 1e6, latency:percentile(50), latency:percentile(99), bad))
end
"""


def _measure(
    servers: dict[str, Server], loads: Sequence[Load], questions: Sequence[Question], folder: Path, rounds: int, seconds: int
) -> dict[tuple[str, Load], Seen]:
    scripts = {(name, load): _script(name, servers[name], load, questions, folder) for name in servers for load in loads}
    taken: dict[tuple[str, Load], list[Seen]] = {key: [] for key in scripts}
    for turn in range(-1, rounds):  # the first warms up
        for key, script in scripts.items():
            name, load = key
            seen = _wrk(servers[name], load, script, seconds)
            if turn >= 0:
                taken[key].append(seen)
    return {key: Seen(*(median(getattr(one, part) for one in several) for part in ("rate", "p50", "p99"))) for key, several in taken.items()}


def _script(name: str, server: Server, load: Load, questions: Sequence[Question], folder: Path) -> Path:
    if load.each == 1:
        bodies = [server.body(one) for one in questions]
    else:
        bodies = [server.listed(_list(questions, at, load.each)) for at in range(0, len(questions), len(questions) // 20)]
    stem = folder / f"{re.sub('[^a-z]', '', name.lower())}-{load.each}"
    text, script = stem.with_suffix(".txt"), stem.with_suffix(".lua")
    text.write_text("\n".join(json.dumps(one) for one in bodies) + "\n", encoding="utf-8")
    script.write_text(SCRIPT % (KEY, text, IDENTIFIED if name == NAMED else "", server.paths[load.each > 1]), encoding="utf-8")
    return script


def _wrk(server: Server, load: Load, script: Path, seconds: int) -> Seen:
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{load.connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(script), f"http://127.0.0.1:{server.port}"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate, p50, p99, bad = next(line for line in told.splitlines() if line.startswith("SEEN")).split()[1:]
    assert not int(bad), f"{bad} requests failed: {told}"
    return Seen(float(rate), float(p50), float(p99))


def _fsync(folder: Path) -> float:
    """Microseconds that the disk takes."""
    taken = []
    with (folder / "fsync").open("wb") as file:
        for _ in range(200):
            file.write(b"x" * 4096)
            file.flush()
            start = time.perf_counter()
            os.fsync(file.fileno())
            taken.append((time.perf_counter() - start) * 1e6)
    return median(taken)


# --- what it came to -------------------------------------------------------------------------------------------------


def _table(title: str, seen: dict[tuple[str, Load], Seen]) -> Table:
    columns = ("server", "connections", "documents", "requests a second", "decisions a second", "p50 µs", "p99 µs", "of bare ASGI")
    made = Table(title, columns)
    for (name, load), one in seen.items():
        bare = seen[BARE, load].rate
        made.rows.append((name, load.connections, load.each, one.rate, one.rate * load.each, one.p50, one.p99, f"{one.rate / bare:.0%}"))
    return made


def _bars(singles: dict[tuple[str, Load], Seen], lists: dict[tuple[str, Load], Seen], fsync: float) -> list[Bar]:
    of_bare = {n: singles[HABILIS, Load(1, n)].rate / singles[BARE, Load(1, n)].rate for n in CONNECTIONS}
    alone, bare = singles[HABILIS, Load(1, 1)].p50, singles[BARE, Load(1, 1)].p50
    made = [
        Bar("of bare ASGI, 32 connections", 100 * of_bare[32], 40, "%", True),
        Bar("of bare ASGI, 256 connections", 100 * of_bare[256], 50, "%", True),
        Bar("one connection, p50 over bare ASGI and one fsync", alone - bare - fsync, 300, "µs"),
        Bar("a list of 200 documents, decisions a second", lists[HABILIS, Load(200, SENDERS)].rate * 200, 250_000, "a second", True),
    ]
    ahead = {f"{n} connections, requests a second": (singles, Load(1, n)) for n in (32, 256)}
    ahead |= {f"lists of {n}, decisions a second": (lists, Load(n, SENDERS)) for n in LENGTHS}
    return made + [Bar(f"over Cerbos, {what}", seen[HABILIS, load].rate / seen[PEER, load].rate, 1, "times", True) for what, (seen, load) in ahead.items()]


def _curves(seen: dict[tuple[str, Load], Seen]) -> dict[str, list[tuple[float, float]]]:
    made: dict[str, list[tuple[float, float]]] = {}
    for (name, load), one in seen.items():
        made.setdefault(name, []).append((load.connections, one.rate))
    return made
