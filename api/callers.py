"""Who may call the service, and what each may say of the one who asks.

    HabilisError
    ├── NotAuthenticated      401: nobody that we know
    ├── NotAllowed            403: known, but not for this
    └── CallersUnavailable    503: it cannot be told who calls

A caller is a program, never a person: the store of a hospital, a consent desk, a portal. Its key or its token says which; the file of callers says its roles,
and which subjects, with which properties, it may speak for: the store of one hospital does not ask in the name of another's staff. What is not listed may not
be asserted. Which words those are is the file's: this module knows no property. docs/callers.md is the file's manual.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from datetime import time as clock
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from time import monotonic, time
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr

from api.tokens import UNREADABLE, CallersUnavailable, Issuer, NotAuthenticated, issuer_of, log
from engine.errors import Diagnostic, HabilisError, PackError, shown, suggest
from engine.request import Entity
from engine.toml_files import at_key, parse_toml

ROLES = ("store", "consent_desk", "officer", "reviewer", "portal")
ANY = "*"
CACHED = 60.0
"""Seconds for which a verified token is not verified again."""
MOST, LONGEST = 10_000, 16_384
"""Tokens remembered, and bytes of an Authorization header."""

Values = frozenset[str | bool] | None
"""What may be said; `None` is anything."""
_NOTHING: Values = frozenset()


class NotAllowed(HabilisError):
    """A caller that may not do or say this. `where` is a path such as `subject.properties.X`; no value is ever named."""

    def __init__(self, where: str, message: str, help: str = ""):
        self.where, self.message, self.help = where, message, help
        super().__init__(f"{where}: {message}" + (f" ({help})" if help else ""))


class MistakenCallers(PackError):
    """A file of callers that does not check: every mistake at once."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A program that may call, until `not_after` (seconds since 1970).

    `subjects` gives the identifiers by type of subject, `claims` the values by property; the entry `*` is for those without their own.
    """

    name: str
    roles: frozenset[str]
    subjects: Mapping[str, Values] = field(default_factory=dict)
    claims: Mapping[str, Values] = field(default_factory=dict)
    issuer: str | None = None
    not_after: float = math.inf

    def needs(self, *roles: str) -> None:
        """Raise `NotAllowed` unless the caller has one of the roles."""
        if self.roles.isdisjoint(roles):
            raise NotAllowed("caller", f"`{self.name}` is no " + " and no ".join(f"`{role}`" for role in roles))

    def check(self, subject: Entity) -> None:
        """Raise `NotAllowed` for what the caller may not say of the one who asks.

        A property that is absent or null asserts nothing, so it is nothing to refuse here: the vocabulary gives it the value that refuses. Each of a list must
        be allowed; numbers and objects only pass where anything does.
        """
        kind, subjects, claims = subject.type, self.subjects, self.claims
        if kind not in subjects and ANY not in subjects:
            raise self._may_not("subject.type", "subjects")
        if not _among(subjects[kind] if kind in subjects else subjects[ANY], subject.id):
            raise self._may_not("subject.id", "subjects")
        for name, value in subject.properties.items():
            allowed = claims[name] if name in claims else claims.get(ANY, _NOTHING)
            if allowed is not None and value is not None and not _among(allowed, value):
                raise self._may_not("subject.properties." + shown(name)[1:-1], "claims")

    def _may_not(self, where: str, key: str) -> NotAllowed:
        return NotAllowed(where, f"`{self.name}` may not assert this", f"`{key}` of the caller says what it may")


def _among(allowed: Values, value: Any) -> bool:
    if allowed is None:
        return True
    if type(value) is list:
        return all(type(one) is not list and _among(allowed, one) for one in value)
    # Of these two types alone: 1 is equal to `True`, and what cannot be hashed cannot be looked up.
    return type(value) in (str, bool) and value in allowed


# --- authentication --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Book:
    """What one reading of the file says, and the tokens verified since: a new reading begins with none."""

    callers: Mapping[str, Caller]
    keys: Mapping[bytes, Caller]
    issuers: Mapping[str, Issuer]
    tokens: dict[bytes, tuple[Caller, float, float]] = field(default_factory=dict)
    """By SHA-256: the caller, when the token ends (by the clock), when to verify it again (monotonic: a clock set back keeps no token alive)."""


class Callers:
    """The callers of a file. `known` is for the hot path, `authenticate` for whoever may wait; both say the same. Used in one event loop."""

    def __init__(self, path: Path, book: _Book, seen: object = None):
        self.path, self._book, self._seen = path, book, seen

    @classmethod
    def load(cls, path: str | Path) -> Callers:
        """Read a file of callers. Raises `MistakenCallers`, `OSError`."""
        file = Path(path)
        seen = _looks(file)
        return cls(file, _read(file, {}), seen)

    @property
    def callers(self) -> Mapping[str, Caller]:
        return self._book.callers

    @property
    def issuers(self) -> Iterable[Issuer]:
        return self._book.issuers.values()

    def reload(self) -> None:
        """Read the file again: who is no longer in it is out with the next request. With a mistake in it, raises, and what was read before stays in force."""
        self._seen = _looks(self.path)
        self._book = _read(self.path, self._book.issuers)

    def reload_if_changed(self) -> bool:
        """`reload`, when the file is not the one that was read; says whether. Cheap enough for once a second; raises once for each mistaken change."""
        if _looks(self.path) == self._seen:
            return False
        self.reload()
        return True

    async def watch(self, every: float = 1.0) -> None:
        """Read the file again whenever it changed, until cancelled. What is wrong with it is told in the technical log, once."""
        while True:
            await asyncio.sleep(every)
            try:
                if self.reload_if_changed():
                    log.info("the file of callers was read again: %d callers", len(self.callers))
            except MistakenCallers as error:
                told = "; ".join(f"{one.place}: {one.message}" for one in error.diagnostics)
                log.error("the file of callers is mistaken, and what was read before stays: %s", told)
            except OSError as error:
                log.error("the file of callers cannot be read, and what was read before stays: %s", error.strerror)

    def known(self, authorization: bytes | str | None) -> Caller | None:
        """The caller, where a look-up is enough: a key, or a token verified less than a minute ago. Nothing otherwise; never raises."""
        return self.known_by(digest_of(authorization))

    def known_by(self, digest: bytes | None) -> Caller | None:
        """The same, by `digest_of` what was sent: how long the look-up takes says nothing of a key, since nobody can choose how a hash begins."""
        if digest is None:
            return None
        book, now = self._book, time()
        caller = book.keys.get(digest)
        if caller is None:
            verified = book.tokens.get(digest)
            if verified is None or now >= verified[1] or monotonic() >= verified[2]:
                return None
            caller = verified[0]
        return caller if now < caller.not_after else None

    async def authenticate(self, authorization: bytes | str | None) -> Caller:
        """The caller. Raises `NotAuthenticated`, `NotAllowed` for a good token of a caller that is not listed, `CallersUnavailable`."""
        caller = self.known(authorization)
        if caller is not None:
            return caller
        token = bearer(authorization)
        if token is None:
            raise NotAuthenticated("nobody is named: send `Authorization: Bearer KEY`", 'Bearer realm="habilis"')
        book = self._book
        caller, expires = await _verify(book, token)
        if time() >= caller.not_after:
            raise NotAuthenticated("this caller is no longer let in")
        if book is not self._book:  # reloaded while the issuer was asked
            return await self.authenticate(authorization)
        _remember(book.tokens, sha256(token).digest(), (caller, expires, monotonic() + CACHED))
        return caller


def bearer(authorization: bytes | str | None) -> bytes | None:
    """The key or token of an Authorization header."""
    if authorization is None or len(authorization) > LONGEST:
        return None
    header = authorization if type(authorization) is bytes else str(authorization).encode("utf-8", "replace")
    scheme, _, token = header.partition(b" ")
    return token.strip() or None if scheme == b"Bearer" or scheme.lower() == b"bearer" else None


def authorization_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The Authorization header of an ASGI scope. Raises `NotAuthenticated` when there are two: a proxy may have looked at the other one."""
    found = None
    for name, value in headers:
        if name == b"authorization":
            if found is not None:
                raise NotAuthenticated("there are two Authorization headers")
            found = value
    return found


def digest_of(authorization: bytes | str | None) -> bytes | None:
    """The SHA-256 of the bearer's token or key, if one is sent."""
    token = bearer(authorization)
    return None if token is None else sha256(token).digest()


async def _verify(book: _Book, token: bytes) -> tuple[Caller, float]:
    unknown = NotAuthenticated("this key is not known, or no longer valid")
    if not book.issuers or token.count(b".") != 2 or not token.isascii():
        raise unknown
    text = token.decode()
    issuer = book.issuers.get(issuer_of(text) or "")
    if issuer is None:
        raise NotAuthenticated("the token is not of an issuer that is known here")
    name, expires = await issuer.verify(text)
    caller = book.callers.get(name)
    if caller is None or caller.issuer != issuer.name:
        raise NotAllowed("caller", "the token names a caller that is not listed for its issuer")
    return caller, expires


def _remember(tokens: dict[bytes, tuple[Caller, float, float]], digest: bytes, verified: tuple[Caller, float, float]) -> None:
    tokens.pop(digest, None)
    tokens[digest] = verified
    if len(tokens) > MOST:
        del tokens[next(iter(tokens))]  # the one verified longest ago


def _looks(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return "nothing to see"
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev


# --- without authentication ------------------------------------------------------------------------------------------


class _Open(Callers):
    """Everybody is one caller that may everything."""

    def __init__(self) -> None:
        super().__init__(Path(), _Book({}, {}, {}))
        self._everybody = Caller("open", frozenset(ROLES), {ANY: None}, {ANY: None})

    def reload(self) -> None:
        pass

    def reload_if_changed(self) -> bool:
        return False

    def known_by(self, digest: bytes | None) -> Caller:
        return self._everybody


def open_callers() -> Callers:
    """Callers for a trial on loopback: whoever calls is let in as `open`, has every role and may say anything."""
    return _Open()


# --- the file --------------------------------------------------------------------------------------------------------


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid")


Listed = Literal["*"] | list[StrictStr | StrictBool]
Role = Literal["store", "consent_desk", "officer", "reviewer", "portal"]
Algorithm = Literal["ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA"]


class CallerSpec(_Spec):
    key_sha256: list[str] = []
    issuer: str | None = None
    roles: Annotated[list[Role], Field(min_length=1)]
    subjects: dict[str, Listed] = {}
    claims: dict[str, Listed] = {}
    not_after: Annotated[date | None, Field(strict=True)] = None


class IssuerSpec(_Spec):
    issuer: str = Field(min_length=1)
    audience: str = Field(min_length=1)
    jwks: str = Field(min_length=1)
    algorithms: Annotated[list[Algorithm], Field(min_length=1)] = ["ES256", "RS256"]
    caller_claim: str = Field(default="azp", min_length=1)


class CallersSpec(_Spec):
    caller: dict[str, CallerSpec] = {}
    issuer: dict[str, IssuerSpec] = {}


_KEYS = tuple(key for spec in (CallersSpec, CallerSpec, IssuerSpec) for key in spec.model_fields)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,99}")
_HASH = re.compile(r"[0-9a-fA-F]{64}")


def read_callers(path: Path, data: bytes) -> CallersSpec:
    """What a file of callers says. Raises `MistakenCallers` with every mistake in it. No issuer is asked for anything, but keys in a file are read."""
    found: list[Diagnostic] = []
    files = {str(path): data}
    spec = parse_toml(CallersSpec, str(path), files, found)
    if spec is not None:
        found += [at_key(str(path), files, where, code, message, help) for where, code, message, help in _mistakes(spec, path)]
    if found:
        raise MistakenCallers(map(_mended, found))
    assert isinstance(spec, CallersSpec)
    return spec


def _mended(found: Diagnostic) -> Diagnostic:
    """What is not a hash may be a key, which is not repeated; a word that is unknown here is like one of these words, not one of a pack's."""
    if found.code == "key-hash":
        return replace(found, text="")
    if found.code != "key-unknown":
        return found
    return replace(found, help=suggest(found.message.split("`")[1], _KEYS) or "the keys are " + ", ".join(dict.fromkeys(_KEYS)))


Mistake = tuple[tuple[str, ...], str, str, str]
"""The place as keys, code, sentence, help."""


def _mistakes(spec: CallersSpec, path: Path) -> Iterable[Mistake]:
    owners: dict[str, str] = {}
    for name, caller in spec.caller.items():
        at = ("caller", name)
        yield from _name_mistakes(at, name)
        if not caller.key_sha256 and caller.issuer is None:
            yield at, "caller-locked-out", f"`{name}` has neither a key nor an issuer: it can never call", "add `key_sha256` (`habilis caller key` makes one)"
        for digest in caller.key_sha256:
            where = (*at, "key_sha256")
            if not _HASH.fullmatch(digest):
                yield where, "key-hash", "a key stands here as its SHA-256: 64 hexadecimal digits", "`habilis caller key` makes a key and its hash"
            elif owners.setdefault(digest.lower(), name) != name:
                yield where, "key-shared", f"`{name}` has a key of `{owners[digest.lower()]}`", "one key says one caller: make another"
        if caller.issuer is not None and caller.issuer not in spec.issuer:
            yield (*at, "issuer"), "issuer-unknown", f"there is no issuer {shown(caller.issuer)}", suggest(caller.issuer, spec.issuer) or "add `[issuer.NAME]`"
        for key, table in (("subjects", caller.subjects), ("claims", caller.claims)):
            for one, values in table.items():
                if values != ANY and ANY in values:
                    yield (*at, key, one), "any-in-list", f'`"*"` in a list is no value of `{one}`', f'write {one} = "*" for any value'
    urls: dict[str, str] = {}
    for name, issuer in spec.issuer.items():
        at = ("issuer", name)
        yield from _name_mistakes(at, name)
        if urls.setdefault(issuer.issuer, name) != name:
            yield (*at, "issuer"), "issuer-twice", f"`{urls[issuer.issuer]}` has the same `issuer`", "name each issuer once"
        yield from _jwks_mistakes((*at, "jwks"), name, issuer, path)


def _name_mistakes(at: tuple[str, ...], name: str) -> Iterable[Mistake]:
    if not _NAME.fullmatch(name):
        yield at, "name", f"{shown(name)} is not a name", "up to 100 letters, digits and `._:/@-`, of which a letter or a digit is first"


def _jwks_mistakes(at: tuple[str, ...], name: str, spec: IssuerSpec, path: Path) -> Iterable[Mistake]:
    where = _jwks(spec.jwks, path)
    if isinstance(where, Path):
        try:
            if not _issuer(name, spec, path).read_keys():
                yield at, "jwks", f"{shown(spec.jwks)} holds no signing key for {', '.join(spec.algorithms)} with a `kid`", ""
        except UNREADABLE as error:
            yield at, "jwks", f"{shown(spec.jwks)} cannot be read as published keys", str(error)
    elif not _is_private(where):
        yield at, "jwks", f"{shown(spec.jwks)} is not an https address", "whoever can change the answer can make tokens: http is for loopback alone"


def _is_private(url: str) -> bool:
    """Whether nobody else can change what is read from there."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or "")))
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether a host, without its port, is this machine."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _jwks(text: str, path: Path) -> str | Path:
    return text if "://" in text else path.parent / text


def _issuer(name: str, spec: IssuerSpec, path: Path) -> Issuer:
    return Issuer(name, spec.issuer, spec.audience, _jwks(spec.jwks, path), list(spec.algorithms), spec.caller_claim)


def _read(path: Path, before: Mapping[str, Issuer]) -> _Book:
    """The callers of a file. An issuer that did not change keeps the keys that it published."""
    spec = read_callers(path, path.read_bytes())
    callers = {name: _caller(name, one) for name, one in spec.caller.items()}
    keys = {bytes.fromhex(digest): callers[name] for name, one in spec.caller.items() for digest in one.key_sha256}
    issuers = [_issuer(name, one, path) for name, one in spec.issuer.items()]
    same = {one.issuer: before.get(one.issuer, one) for one in issuers}
    return _Book(callers, keys, {one.issuer: same[one.issuer] if one.is_like(same[one.issuer]) else one for one in issuers})


def _caller(name: str, spec: CallerSpec) -> Caller:
    last = math.inf if spec.not_after is None else datetime.combine(spec.not_after, clock.max, UTC).timestamp()
    return Caller(name, frozenset(spec.roles), _table(spec.subjects), _table(spec.claims), spec.issuer, last)


def _table(listed: Mapping[str, str | Sequence[str | bool]]) -> Mapping[str, Values]:
    return {name: None if values == ANY else frozenset(values) for name, values in listed.items()}


__all__ = [
    "ROLES", "Caller", "Callers", "CallersUnavailable", "MistakenCallers", "NotAllowed", "NotAuthenticated", "authorization_of", "bearer", "is_loopback",
    "open_callers", "read_callers",
]  # fmt: skip
