"""A bare ASGI application: decodes the same JSON and answers the same, knowing nothing. What no Python server of this kind is faster than."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

WORDS = {
    "fr": "Une autorisation du patient, pour vous ou votre structure, est en cours.",
    "en": "An authorisation of the patient, for you or your organisation, is in force.",
}
decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode


def answer() -> dict[str, Any]:
    """One evaluation response, of the size that Habilis gives."""
    context = {"id": "0123456789abcdef0123456789", "pack": "0" * 64, "consent_token": "1882520814997516.2", "reason_user": WORDS, "obligations": []}
    return {"decision": True, "context": context}


async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    if scope["type"] != "http":
        return
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    question = decode(body) if body else {}
    told = encode({"evaluations": [answer() for _ in question["evaluations"]]} if "evaluations" in question else answer())
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(told)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": told})
