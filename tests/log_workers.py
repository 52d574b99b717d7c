"""What other processes do in the tests of the decision log: append, until they are killed."""

from __future__ import annotations

import asyncio
import time
from multiprocessing.connection import Connection
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.decision_log.log import DecisionLog, LogUnavailable


def body(id: str, kind: str = "decision", at: float | None = None, **more: Any) -> bytes:
    """An entry of the size that decisions have."""
    return msgspec.json.encode({"kind": kind, "id": id, "at": time.time() if at is None else at, "padding": "x" * 500} | more)


def append_for_ever(connection: Connection, address: str, name: str, seed: bytes | None, at_once: int) -> None:
    """Append from several tasks at once, saying each identifier once it is acknowledged; and what was refused."""

    async def append(log: DecisionLog, task: int) -> None:
        number = 0
        while True:
            id = f"{name}.{task}.{number}"
            try:
                await log.append(body(id))
            except LogUnavailable as error:
                connection.send(("refused", id, str(error)))
                await asyncio.sleep(0.02)
            else:
                connection.send(("acknowledged", id, ""))
            number += 1

    async def run() -> None:
        key = Ed25519PrivateKey.from_private_bytes(seed) if seed is not None else None
        with DecisionLog(address, name=name, key=key, checkpoint_every=0.01) as log:
            await asyncio.gather(*(append(log, task) for task in range(at_once)))

    asyncio.run(run())
