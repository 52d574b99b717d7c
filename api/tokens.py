"""Tokens that an issuer signed (OpenID Connect): verified with the keys that it publishes, by PyJWT.

Only asymmetric algorithms, only those that the file of callers names, and the key decides which of them it is for: a token's header chooses nothing. Keys are
read again when they are five minutes old or a token names one that is not there, at most once in ten seconds however many ask. An issuer that cannot be
reached is no open door: the keys that it published last are good for an hour, and then nobody gets in with its tokens until it answers.

What a token says of its holder beyond the name of the caller is not looked at: the file of callers says what that caller may.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic, time
from typing import Any

import jwt
from jwt import PyJWK, PyJWKClient, PyJWKSet

from engine.errors import HabilisError

FRESH, KEPT = 300.0, 3600.0
"""Seconds for which published keys are not asked for again, and for which they are good while the issuer does not answer."""
COOLDOWN = 10.0
"""Seconds between two attempts to read them."""
SOCKET, PATIENCE = 2.0, 4.0
"""Seconds that the network may be silent, and that a caller waits in all."""
LEEWAY = 10.0
"""Seconds that an issuer's clock may be ahead of ours. None is given to `exp`."""

log = logging.getLogger("habilis.callers")


class NotAuthenticated(HabilisError):
    """Nobody that we know: no key, no token, or none that is good. `challenge` is what WWW-Authenticate says."""

    def __init__(self, message: str, challenge: str = 'Bearer realm="habilis", error="invalid_token"'):
        self.challenge = challenge
        super().__init__(message)


class CallersUnavailable(HabilisError):
    """It cannot be told who calls: the issuer of the token cannot be asked for its keys. Nobody is let in meanwhile."""


class Issuer:
    """Who signs tokens, and its keys. Used in one event loop.

    `jwks` is an https URL or a file; `caller_claim` is the claim that names the caller.
    """

    def __init__(self, name: str, issuer: str, audience: str, jwks: str | Path, algorithms: list[str], caller_claim: str):
        self.name, self.issuer, self.audience, self.jwks = name, issuer, audience, jwks
        self.algorithms, self.caller_claim = algorithms, caller_claim
        self._keys: dict[tuple[str, str], PyJWK] = {}
        self._read_at = self._tried_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._failed = False
        self._thread: ThreadPoolExecutor | None = None

    def is_like(self, other: Issuer) -> bool:
        names = ("name", "issuer", "audience", "jwks", "algorithms", "caller_claim")
        return all(getattr(self, name) == getattr(other, name) for name in names)

    async def verify(self, token: str) -> tuple[str, float]:
        """The caller that a token names, and until when (seconds since 1970). Raises `NotAuthenticated`, `CallersUnavailable`."""
        try:
            header = jwt.get_unverified_header(token)
            key = await self._key(header.get("kid"), header.get("alg"))
            claims = jwt.decode(
                token, key, self.algorithms, audience=self.audience, issuer=self.issuer, leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud", self.caller_claim], "enforce_minimum_key_length": True},
            )  # fmt: skip
        except jwt.PyJWTError as error:
            raise refusal(error) from None
        caller, expires = claims[self.caller_claim], int(claims["exp"])
        if expires <= time():
            raise refusal(jwt.ExpiredSignatureError())
        if not isinstance(caller, str):
            raise NotAuthenticated(f"`{self.caller_claim}` of the token is not text")
        return caller, expires

    def read_keys(self) -> dict[tuple[str, str], PyJWK]:
        """The keys that the issuer publishes for signatures, by identifier and algorithm. Takes as long as a disk or a network does."""
        if isinstance(self.jwks, Path):
            found = PyJWKSet.from_dict(_object(json.loads(self.jwks.read_bytes())))
        else:
            found = PyJWKClient(self.jwks, cache_jwk_set=False, timeout=SOCKET).get_jwk_set()
        kept = [key for key in found.keys if key.public_key_use in ("sig", None) and key.algorithm_name in self.algorithms]
        return {(key.key_id, key.algorithm_name): key for key in kept if key.key_id}

    async def _key(self, kid: Any, algorithm: Any) -> PyJWK:
        if not isinstance(kid, str) or algorithm not in self.algorithms:
            raise NotAuthenticated("the token does not name its key (`kid`), or is signed in a way that is not allowed")
        age = monotonic() - self._read_at
        if age > KEPT:
            self._keys = {}
        if (kid, algorithm) not in self._keys:
            await asyncio.shield(self._read_again())
        elif age > FRESH:
            self._read_again()
        key = self._keys.get((kid, algorithm))
        if key is None and self._failed:
            raise CallersUnavailable(f"the keys of the issuer `{self.name}` cannot be read: try again later")
        if key is None:
            raise NotAuthenticated("the key of the token is not one that its issuer publishes")
        return key

    def _read_again(self) -> asyncio.Task[None]:
        """Read the keys, unless that is being done or was tried a moment ago."""
        if self._reading is None or (self._reading.done() and monotonic() - self._tried_at >= COOLDOWN):
            self._tried_at = monotonic()
            self._reading = asyncio.ensure_future(self._read())
        return self._reading

    async def _read(self) -> None:
        # One thread: an issuer that answers one byte a second keeps that one, never all that the service has.
        self._thread = self._thread or ThreadPoolExecutor(1, f"issuer-{self.name}")
        try:
            self._keys = await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(self._thread, self.read_keys), PATIENCE)
            self._read_at, self._failed = monotonic(), False
        except UNREADABLE as error:
            self._failed = True
            log.warning("the keys of the issuer %s cannot be read: %s", self.name, error or type(error).__name__)


UNREADABLE = (jwt.PyJWTError, OSError, ValueError, http.client.HTTPException)
"""What reading keys may raise."""

_REASONS: dict[type[Exception], str] = {
    jwt.ExpiredSignatureError: "the token has expired",
    jwt.ImmatureSignatureError: "the token is not valid yet: is a clock wrong?",
    jwt.InvalidAudienceError: "the token is for another audience",
}
"""All of these are found after the signature: only who holds a genuine token reads them."""


def refusal(error: jwt.PyJWTError) -> NotAuthenticated:
    return NotAuthenticated(_REASONS.get(type(error), "the token is not valid"))


def issuer_of(token: str) -> str | None:
    """Who claims to have signed a token; nothing is believed yet."""
    try:
        issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
    except jwt.PyJWTError as error:
        raise refusal(error) from None
    return issuer if isinstance(issuer, str) else None


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object with `keys`")
    return value
