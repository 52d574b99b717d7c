"""Opening a worker, and starting the HTTP server: uvicorn with uvloop and httptools (docs/adr/0013-http.md says why).

    habilis serve             settings from the environment, then the command line's

Each worker opens everything for itself: a connection, a thread or a segment of the log is never shared across a fork.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import socket
import threading
from contextlib import suppress
from errno import EADDRINUSE
from multiprocessing.process import BaseProcess
from pathlib import Path

import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.app import create_app
from api.callers import Callers, open_callers
from api.direct import Direct
from api.hot import App
from api.limits import Body, Envelope, InFlight, Loopback, Rate, by_caller
from api.protocol import GuardedProtocol
from api.runtime import Runtime
from api.settings import Settings, make_folder
from api.telemetry import Gauges, Metrics, Telemetry, report, technical
from engine.compiled import load
from engine.consent.cache import RedisCache
from engine.consent.directory import Directory, parse_directory
from engine.consent.store import ConsentStore
from engine.decision_log.checkpoint import new_key, parse_private_key, verifier_key
from engine.decision_log.log import DecisionLog
from engine.errors import Diagnostic, HabilisError, PackError
from engine.pdp import Pdp, load_pdp
from engine.service import Service

FREE = ("/health/live", "/health/ready")
"""What is answered however many others wait."""


def open_runtime(settings: Settings) -> Runtime:
    """Open everything that a worker needs. Raises `HabilisError` for what is not there or does not check; nothing is half open then."""
    pdp = open_pack(settings.pack)
    callers = open_callers() if settings.open else Callers.load(settings.callers or "")
    directory = open_directory(settings.directory, pdp) if settings.directory else None
    cache = RedisCache(settings.redis.get_secret_value()) if settings.redis else None
    if settings.create:
        _make_folders(settings)
    store = ConsentStore(settings.store.get_secret_value(), pdp.pack.vocabulary, cache, create=settings.create)
    key = _key(settings.log_key)
    log = DecisionLog(settings.log.get_secret_value(), name=f"worker-{os.getpid()}", key=key, create=settings.create)
    if settings.create and key is not None and settings.log_key is not None:
        _publish(settings.log_key.with_suffix(".pub"), str(verifier_key(log.origin, key)))
    service = Service(pdp, store, log, directory)
    telemetry = Telemetry(settings, Metrics(), _gauges(service, log))
    return Runtime(settings, service, store, log, callers, telemetry)


def _gauges(service: Service, log: DecisionLog) -> Gauges:
    def reads() -> list[tuple[float, dict[str, str]]]:
        return [(count, {"found": kind}) for kind, count in service.live.store.counts.items()] if service.live.store else []

    return {"habilis.log.backlog": lambda: [(log.backlog, {})], "habilis.store.reads": reads}


def open_pack(path: Path) -> Pdp:
    return load(path.read_bytes(), str(path)) if path.is_file() else load_pdp(path)


def open_directory(path: Path, pdp: Pdp) -> Directory:
    """A directory without a mistake: people whom it leaves out would be believed whatever they claim."""
    found: list[Diagnostic] = []
    directory = parse_directory(str(path), path.read_bytes(), pdp.pack, found)
    if found:
        raise PackError(found)
    return directory


def _make_folders(settings: Settings) -> None:
    """The folders of files that are to be made, and the key that signs the checkpoints."""
    for url in (settings.store, settings.log, settings.journal):
        make_folder(url.get_secret_value())
    if settings.log_key is not None and not settings.log_key.exists():
        with suppress(FileExistsError):
            number = os.open(settings.log_key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(number, "wb") as file:
                file.write(new_key())


def _publish(path: Path, line: str) -> None:
    """Write the public half of the key beside it, where there is no such file: it is what `habilis log verify --keys` takes."""
    with suppress(FileExistsError), path.open("x") as file:
        file.write(line + "\n")


def _key(path: Path | None) -> Ed25519PrivateKey | None:
    if path is None:
        return None
    return parse_private_key(path.read_bytes())


def application() -> App:
    """One worker, by the environment: what `uvicorn api.server:application --factory` serves."""
    settings = Settings()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()
    try:
        runtime = open_runtime(settings)
    except HabilisError as error:
        if parent is None:
            raise
        technical.error("a worker cannot start, and is tried again: %s", error)
        raise SystemExit(1) from None
    hot = create_app(runtime)
    app = in_flight = InFlight(hot, settings.max_concurrency, FREE)
    rate = Rate(app, settings.rate, identify=by_caller(runtime.callers), free=FREE) if settings.rate else None
    app = Envelope(Body(rate or app, settings.max_body, settings.body_timeout), report)
    gc.collect()
    gc.freeze()  # a pack is a million objects that never die: each full collection would walk them, for 0.1 seconds
    gc.set_threshold(20_000, 20, 50)  # requests in flight are a few thousand objects and no garbage: with Python's 700 they are walked again and again
    GuardedProtocol.direct = Direct(hot, in_flight, settings.max_body, settings.body_timeout, rate, settings.open)
    GuardedProtocol.request_bytes = GuardedProtocol.header_bytes + 2 * settings.max_body + 65_536
    return Loopback(app) if settings.open else app


def _end_with(parent: BaseProcess) -> None:
    """Of several workers: stop when the process that watches over them has died. Nobody would start this one again, and it would keep the port."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def unusable(host: str, port: int) -> str:
    """Why nothing can listen on an address; blank when something can."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server will: what it closed a moment ago is in nobody's way
            one.bind((host, port))
    except OSError as error:
        return "something else listens there: end it, or choose another port" if error.errno == EADDRINUSE else (error.strerror or str(error)).lower()
    return ""


def serve(settings: Settings) -> None:
    """Serve until told to stop; what is in flight is answered first."""
    if settings.create:
        _make_folders(settings)
    os.environ |= {f"HABILIS_{key.upper()}": value for key, value in _environment(settings).items()}
    uvicorn.run(
        "api.server:application",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop",
        http=GuardedProtocol,
        ws="none",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        date_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=20,
        limit_concurrency=None,
        log_level="warning",
    )


def _environment(settings: Settings) -> dict[str, str]:
    """Settings as the environment of the workers."""
    found = settings.model_dump(mode="python", exclude_none=True)
    return {key: value.get_secret_value() if hasattr(value, "get_secret_value") else str(value) for key, value in found.items()}
