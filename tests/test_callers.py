"""Who may call, and what a caller may say: the file, keys, and tokens of a real issuer (an HTTP server on loopback that publishes real keys)."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st
from typer.testing import CliRunner

import api.callers
import api.tokens
from api.callers import Caller, Callers, CallersUnavailable, MistakenCallers, NotAllowed, NotAuthenticated, authorization_of, bearer, is_loopback, open_callers
from cli.callers import new_key
from cli.main import app
from engine.request import Entity

KEY, OTHER = "a key of 256 random bits, say", "another key"


def digest(key):
    return sha256(key.encode()).hexdigest()


PACS = f"""
[caller.pacs]
key_sha256 = ["{digest(KEY)}"]
roles = ["store"]
subjects = {{ professional = "*", organisation = ["750712184"] }}
claims = {{ structure = ["750712184"], authentication = ["DIRECT", "STRONG"], profession = "*", urgent = [true] }}
"""


@pytest.fixture
def write(tmp_path):
    file = tmp_path / "callers.toml"

    def write(text):
        file.write_text(text)
        return file

    return write


def authenticate(callers, authorization):
    return asyncio.run(callers.authenticate(authorization))


def refused(callers, authorization):
    """Why somebody is not let in; `known` must say nothing then."""
    assert callers.known(authorization) is None
    with pytest.raises((NotAuthenticated, NotAllowed, CallersUnavailable)) as caught:
        authenticate(callers, authorization)
    assert callers.known(authorization) is None
    return type(caught.value).__name__, str(caught.value)


def unauthenticated(message):
    return "NotAuthenticated", message


UNKNOWN = unauthenticated("this key is not known, or no longer valid")


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER   {KEY} ", f"Bearer {KEY}".encode()])
def test_a_key_says_which_caller(write, header):
    callers = Callers.load(write(PACS))
    assert callers.known(header).name == authenticate(callers, header).name == "pacs"


@pytest.mark.parametrize("key", [OTHER, KEY + "x", KEY[:-1], KEY.upper(), digest(KEY), "é", b"\xff", "a.b", "a.b.c"])
def test_any_other_key_is_refused(write, key):
    assert refused(Callers.load(write(PACS)), f"Bearer {key}" if isinstance(key, str) else b"Bearer " + key) == UNKNOWN


@pytest.mark.parametrize("header", [None, "", b"", "Bearer", "Bearer ", KEY, f"Basic {KEY}", f"Bearer{KEY}", "Bearer " + "x" * 20_000])
def test_who_names_nobody_is_asked_to(write, header):
    callers = Callers.load(write(PACS))
    assert refused(callers, header) == unauthenticated("nobody is named: send `Authorization: Bearer KEY`")
    with pytest.raises(NotAuthenticated) as caught:
        authenticate(callers, header)
    assert caught.value.challenge == 'Bearer realm="habilis"'


def test_two_keys_are_good_while_one_replaces_the_other(write):
    file = write(PACS.replace('"]\nroles', f'", "{digest(OTHER).upper()}"]\nroles'))
    callers = Callers.load(file)
    assert callers.known(f"Bearer {KEY}") is callers.known(f"Bearer {OTHER}") is not None
    write(PACS.replace(digest(KEY), digest(OTHER)))
    assert callers.reload_if_changed()
    assert refused(callers, f"Bearer {KEY}") == UNKNOWN
    assert callers.known(f"Bearer {OTHER}").name == "pacs"
    assert not callers.reload_if_changed()


def test_a_mistaken_file_changes_nothing_and_is_told_once(write):
    file = write(PACS)
    callers = Callers.load(file)
    write(PACS.replace("store", "stor"))
    with pytest.raises(MistakenCallers):
        callers.reload_if_changed()
    assert callers.known(f"Bearer {KEY}").name == "pacs"
    assert not callers.reload_if_changed()
    file.unlink()
    with pytest.raises(OSError):
        callers.reload_if_changed()
    assert callers.known(f"Bearer {KEY}").name == "pacs"
    assert not callers.reload_if_changed()
    write(PACS.replace("pacs", "ris"))
    assert callers.reload_if_changed() and callers.known(f"Bearer {KEY}").name == "ris"


def test_a_file_that_is_watched_is_read_again_when_it_changes(write, caplog):
    file = write(PACS)
    callers = Callers.load(file)

    async def change():
        watching = asyncio.create_task(callers.watch(0.01))
        write(PACS.replace(digest(KEY), KEY))
        while not caplog.records:
            await asyncio.sleep(0.01)
        file.unlink()
        while len(caplog.records) < 2:
            await asyncio.sleep(0.01)
        assert callers.known(f"Bearer {KEY}").name == "pacs"
        write(PACS.replace("pacs", "ris"))
        while callers.known(f"Bearer {KEY}").name != "ris":
            await asyncio.sleep(0.01)
        watching.cancel()

    asyncio.run(asyncio.wait_for(change(), 30))
    assert [one.getMessage().partition(": ")[0] for one in caplog.records[:2]] == [
        "the file of callers is mistaken, and what was read before stays", "the file of callers cannot be read, and what was read before stays",
    ]  # fmt: skip
    assert KEY not in caplog.text


def test_a_caller_has_a_last_day(write, monkeypatch):
    callers = Callers.load(write(PACS + "not_after = 2027-01-01\n"))
    monkeypatch.setattr(api.callers, "time", lambda: 1798847999.0)  # 2027-01-01T23:59:59Z
    assert callers.known(f"Bearer {KEY}").name == "pacs"
    monkeypatch.setattr(api.callers, "time", lambda: 1798848000.0)
    assert refused(callers, f"Bearer {KEY}") == UNKNOWN


def test_the_last_of_all_days_is_a_day(write):
    assert Callers.load(write(PACS + "not_after = 9999-12-31\n")).known(f"Bearer {KEY}").name == "pacs"


def test_two_authorization_headers_are_none():
    assert authorization_of([(b"host", b"x")]) is None
    assert authorization_of([(b"host", b"x"), (b"authorization", b"Bearer a")]) == b"Bearer a"
    with pytest.raises(NotAuthenticated, match="there are two Authorization headers"):
        authorization_of([(b"authorization", b"Bearer a"), (b"authorization", b"Bearer a")])


# --- what a caller may say -------------------------------------------------------------------------------------------


def said(write, subject, text=PACS):
    """Where a caller says too much; nothing when it may say it all."""
    try:
        Callers.load(write(text)).callers["pacs"].check(subject)
    except NotAllowed as error:
        assert error.help and "750712" not in str(error) and "secret" not in str(error)
        return error.where
    return None


def professional(**properties):
    return Entity("professional", "10000000017", properties)


@pytest.mark.parametrize(
    ("subject", "where"),
    [
        (professional(), None),
        (professional(structure="750712184", authentication="DIRECT", profession="anything"), None),
        (professional(structure=["750712184", "750712184"], profession={"code": 1}), None),
        (professional(structure=None, secret=None), None),
        (professional(structure=[]), None),
        (professional(urgent=True), None),
        (Entity("organisation", "750712184"), None),
        (Entity("organisation", "750712185"), "subject.id"),
        (Entity("patient", "279035121518989"), "subject.type"),
        (Entity("Professional", "1"), "subject.type"),
        (professional(structure="750712185"), "subject.properties.structure"),
        (professional(structure="750712184 "), "subject.properties.structure"),
        (professional(structure=750712184), "subject.properties.structure"),
        (professional(structure=["750712184", "750712185"]), "subject.properties.structure"),
        (professional(structure=["750712184", None]), "subject.properties.structure"),
        (professional(structure=[["750712184"]]), "subject.properties.structure"),
        (professional(structure={"750712184": True}), "subject.properties.structure"),
        (professional(structure=""), "subject.properties.structure"),
        (professional(authentication="direct"), "subject.properties.authentication"),
        (professional(urgent=1), "subject.properties.urgent"),
        (professional(urgent=1.0), "subject.properties.urgent"),
        (professional(urgent="true"), "subject.properties.urgent"),
        (professional(urgent=False), "subject.properties.urgent"),
        (professional(name="a secret"), "subject.properties.name"),
        (professional(**{"*": "x"}), "subject.properties.*"),
        (professional(**{"x" * 99: "a secret"}), "subject.properties." + "x" * 60 + "…"),
        (professional(**{"a\nb": "a secret"}), "subject.properties.a\\nb"),
    ],
)
def test_a_caller_may_only_assert_what_is_listed(write, subject, where):
    assert said(write, subject) == where


def test_what_a_caller_may_not_assert_is_told_without_its_value(write):
    with pytest.raises(NotAllowed) as caught:
        Callers.load(write(PACS)).callers["pacs"].check(professional(structure="750712185"))
    assert str(caught.value) == "subject.properties.structure: `pacs` may not assert this (`claims` of the caller says what it may)"


def test_the_star_is_for_what_has_no_entry_of_its_own(write):
    text = PACS.replace('professional = "*"', '"*" = "*"').replace('profession = "*"', '"*" = "*"')
    assert said(write, professional(anything={"at": "all"}), text) is None
    assert said(write, Entity("patient", "1"), text) is None
    assert said(write, Entity("organisation", "750712185"), text) == "subject.id"
    assert said(write, professional(structure="750712185"), text) == "subject.properties.structure"
    assert said(write, professional(any="x"), PACS.replace('profession = "*"', '"*" = ["y"]')) == "subject.properties.any"
    assert said(write, Entity("patient", "1"), PACS.replace('professional = "*"', '"*" = ["2"]')) == "subject.id"


def test_a_caller_of_whom_nothing_is_said_may_say_nothing(write):
    text = f'[caller.pacs]\nkey_sha256 = ["{digest(KEY)}"]\nroles = ["store"]\n'
    assert said(write, professional(), text) == "subject.type"
    assert said(write, professional(), text + "subjects = { professional = [] }") == "subject.id"


def test_a_role_is_needed(write):
    caller = Callers.load(write(PACS)).callers["pacs"]
    caller.needs("store")
    caller.needs("officer", "store")
    with pytest.raises(NotAllowed) as caught:
        caller.needs("officer", "reviewer")
    assert str(caught.value) == "caller: `pacs` is no `officer` and no `reviewer`"


def test_without_authentication_everybody_may_everything(write):
    callers = open_callers()
    for header in (None, "Bearer guess", b"\xff"):
        caller = callers.known(header)
        assert caller is authenticate(callers, header) and caller.name == "open"
        caller.check(professional(anything=["at", {"all": 1}]))
        for role in api.callers.ROLES:
            caller.needs(role)
    callers.reload()
    assert not callers.reload_if_changed()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_loopback_is_this_machine(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "0.0.0.0", "::", "localhost.example", "127.0.0.1.example", "127.0.0.1:80", "x", ""])
def test_anything_else_is_not(host):
    assert not is_loopback(host)


# --- the file --------------------------------------------------------------------------------------------------------

CALLER = f'[caller.x]\nkey_sha256 = ["{digest(KEY)}"]\nroles = ["store"]\n'
ISSUER = '[issuer.sso]\nissuer = "https://sso.example"\naudience = "habilis"\njwks = "https://sso.example/jwks.json"\n'

MISTAKES = [
    ("[caller.x", "FILE:1: error[toml-syntax]: expected ']' at the end of a table declaration\n    1 | [caller.x"),
    (
        CALLER.replace("store", "stor"),
        "FILE:3: error[value-type]: `caller.x.roles.0` must be one of `store`, `consent_desk`, `officer`, `reviewer`, `portal`\n    3 | roles = [\"stor\"]",
    ),
    (CALLER.replace('["store"]', "[]"), "FILE:3: error[value-type]: `caller.x.roles` must be a list of at least 1\n    3 | roles = []"),
    (CALLER + 'claim = {}', "FILE:4: error[key-unknown]: `claim` is not a key here\n    4 | claim = {}\n  help: did you mean `claims`?"),
    (CALLER.replace("roles = [\"store\"]", ""), "FILE:1: error[key-missing]: the key `roles` is missing\n    1 | [caller.x]\n  help: add it to `caller.x`"),
    (
        CALLER + "password = 1",
        "FILE:4: error[key-unknown]: `password` is not a key here\n    4 | password = 1\n  help: the keys are caller, issuer, key_sha256, roles, subjects, "
        "claims, not_after, audience, jwks, algorithms, caller_claim",
    ),
    (
        '[caller.x]\nroles = ["store"]',
        "FILE:1: error[caller-locked-out]: `x` has neither a key nor an issuer: it can never call\n    1 | [caller.x]\n"
        "  help: add `key_sha256` (`habilis caller key` makes one)",
    ),
    (
        CALLER.replace(digest(KEY), KEY),
        "FILE:2: error[key-hash]: a key stands here as its SHA-256: 64 hexadecimal digits\n"
        "  help: `habilis caller key` makes a key and its hash",
    ),
    (
        CALLER + CALLER.replace("[caller.x]", "[caller.y]").replace(digest(KEY), digest(KEY).upper()),
        f"FILE:5: error[key-shared]: `y` has a key of `x`\n    5 | key_sha256 = [\"{digest(KEY).upper()}\"]\n  help: one key says one caller: make another",
    ),
    (
        CALLER + 'issuer = "ssso"\n' + ISSUER,
        'FILE:4: error[issuer-unknown]: there is no issuer `ssso`\n    4 | issuer = "ssso"\n  help: did you mean `sso`?',
    ),
    (CALLER + 'issuer = "sso"', 'FILE:4: error[issuer-unknown]: there is no issuer `sso`\n    4 | issuer = "sso"\n  help: add `[issuer.NAME]`'),
    (
        CALLER + 'claims = { structure = ["1", "*"] }',
        'FILE:4: error[any-in-list]: `"*"` in a list is no value of `structure`\n    4 | claims = { structure = ["1", "*"] }\n'
        '  help: write structure = "*" for any value',
    ),
    (CALLER + "claims = { a = 1 }", "FILE:4: error[value-type]: `caller.x.claims.a` must be one of `*`, or a list\n    4 | claims = { a = 1 }"),
    (CALLER + 'not_after = "2027-01-01"', 'FILE:4: error[value-type]: `caller.x.not_after` must be a date\n    4 | not_after = "2027-01-01"'),
    (CALLER + "not_after = 2027-01-01T00:00:00Z", "FILE:4: error[value-type]: `caller.x.not_after` must be a date\n    4 | not_after = 2027-01-01T00:00:00Z"),
    (
        CALLER.replace("caller.x", 'caller."a b"'),
        'FILE:1: error[name]: `a b` is not a name\n    1 | [caller."a b"]\n'
        "  help: up to 100 letters, digits and `._:/@-`, of which a letter or a digit is first",
    ),
    (
        ISSUER + 'algorithms = ["HS256"]',
        "FILE:5: error[value-type]: `issuer.sso.algorithms.0` must be one of `ES256`, `ES384`, `ES512`, `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, "
        '`EdDSA`\n    5 | algorithms = ["HS256"]',
    ),
    (
        ISSUER + 'algorithms = ["none"]',
        "FILE:5: error[value-type]: `issuer.sso.algorithms.0` must be one of `ES256`, `ES384`, `ES512`, `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, "
        '`EdDSA`\n    5 | algorithms = ["none"]',
    ),
    (
        ISSUER + ISSUER.replace("sso]", "two]"),
        'FILE:6: error[issuer-twice]: `sso` has the same `issuer`\n    6 | issuer = "https://sso.example"\n  help: name each issuer once',
    ),
    *(
        (
            ISSUER.replace("https://sso.example/jwks.json", url),
            f'FILE:4: error[jwks]: `{url}` is not an https address\n    4 | jwks = "{url}"\n'
            "  help: whoever can change the answer can make tokens: http is for loopback alone",
        )
        for url in ("http://sso.example/jwks.json", "file:///etc/jwks.json", "https://", "http://127.0.0.1.example/", "http://[/")
    ),
    (
        ISSUER.replace("https://sso.example/jwks.json", "text.json"),
        'FILE:4: error[jwks]: `text.json` cannot be read as published keys\n    4 | jwks = "text.json"\n  help: Expecting value: line 1 column 1 (char 0)',
    ),
    (
        ISSUER.replace("https://sso.example/jwks.json", "list.json"),
        'FILE:4: error[jwks]: `list.json` cannot be read as published keys\n    4 | jwks = "list.json"\n  help: it is not a JSON object with `keys`',
    ),
    (
        ISSUER.replace("https://sso.example/jwks.json", "secret.json"),
        'FILE:4: error[jwks]: `secret.json` holds no signing key for ES256, RS256 with a `kid`\n    4 | jwks = "secret.json"',
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "told"), MISTAKES)
def test_a_mistake_is_told_with_its_place(write, tmp_path, text, told):
    (tmp_path / "text.json").write_text("keys")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "secret.json").write_text('{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "1"}]}')
    with pytest.raises(MistakenCallers) as caught:
        Callers.load(write(text))
    assert str(caught.value).replace(str(tmp_path / "callers.toml"), "FILE") == told


def test_every_mistake_is_told_at_once(write):
    with pytest.raises(MistakenCallers) as caught:
        Callers.load(write(PACS.replace(digest(KEY), "x") + CALLER.replace(digest(KEY), "y") + 'issuer = "z"\n' + ISSUER.replace("https", "http")))
    assert [one.code for one in caught.value.diagnostics] == ["key-hash", "key-hash", "issuer-unknown", "jwks"]


def test_a_file_that_is_not_text_is_a_mistake(tmp_path):
    (tmp_path / "callers.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(MistakenCallers, match="this file is not UTF-8"):
        Callers.load(tmp_path / "callers.toml")


# --- tokens ----------------------------------------------------------------------------------------------------------


def number(value):
    return urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()


def published(key, kid, algorithm, **more):
    """A public key as an issuer publishes it."""
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return {**{name: value for name, value in made.items() if name != "key_ops"}, "kid": kid, "use": "sig", "alg": algorithm, **more}


EC, STRANGER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
RSA, ED = rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()
KEYS = [published(EC, "ec", "ES256"), published(RSA, "rsa", "RS256"), published(ED, "ed", "EdDSA")]


@dataclass
class SingleSignOn:
    """An issuer on loopback: what it publishes, how it misbehaves, how often it was asked."""

    body: bytes = json.dumps({"keys": KEYS}).encode()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0
    asked: int = 0
    url: str = ""
    stopped: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def issuer():
    found = SingleSignOn()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found.asked += 1
            found.stopped.wait(found.wait)
            self.send_response(found.status)
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(found.body)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}/jwks.json"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield found
        found.stopped.set()
        server.shutdown()
        thread.join()


PORTAL = """
[caller.portal]
issuer = "sso"
roles = ["portal"]
[issuer.sso]
issuer = "https://sso.example"
audience = "habilis"
jwks = "URL"
"""


@pytest.fixture
def load(write, issuer):
    return lambda text=PORTAL: Callers.load(write(text.replace("URL", issuer.url)))


CLAIMS = {"iss": "https://sso.example", "aud": "habilis", "azp": "portal", "sub": "somebody"}


def token(key=EC, kid="ec", algorithm="ES256", headers=None, **claims):
    whole = {"exp": int(time.time()) + 600} | CLAIMS | claims
    whole = {name: value for name, value in whole.items() if value is not None}
    return "Bearer " + jwt.encode(whole, key, algorithm, {"kid": kid} | (headers or {}))


def test_a_token_says_which_caller(load, issuer):
    callers = load()
    assert callers.known(token()) is None
    one = token()
    assert authenticate(callers, one).name == "portal"
    assert callers.known(one).name == callers.known(one.encode()).name == "portal"
    assert authenticate(callers, token(RSA, "rsa", "RS256")).name == "portal"
    assert authenticate(callers, token(aud=["other", "habilis"])).name == "portal"
    assert issuer.asked == 1


def test_other_algorithms_are_for_the_file_to_allow(load):
    ed = token(ED, "ed", "EdDSA")
    assert refused(load(), ed) == unauthenticated("the token does not name its key (`kid`), or is signed in a way that is not allowed")
    assert authenticate(load(PORTAL + 'algorithms = ["EdDSA"]\n'), ed).name == "portal"


def test_a_short_key_is_no_key(load, issuer):
    short = rsa.generate_private_key(65537, 1024)
    issuer.body = json.dumps({"keys": [published(short, "rsa", "RS256")]}).encode()
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        weak = token(short, "rsa", "RS256")
    assert refused(load(), weak) == NOT_VALID


def test_another_claim_may_name_the_caller(load):
    callers = load(PORTAL + 'caller_claim = "client_id"\n')
    assert authenticate(callers, token(client_id="portal", azp="other")).name == "portal"
    assert refused(callers, token()) == unauthenticated("the token is not valid")


def test_keys_may_stand_in_a_file(write, tmp_path):
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": KEYS}))
    callers = Callers.load(write(PORTAL.replace("URL", "jwks.json")))
    assert authenticate(callers, token()).name == "portal"


def unsigned(headers, **claims):
    def part(value):
        return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"Bearer {part(headers)}.{part({'exp': int(time.time()) + 600} | CLAIMS | claims)}."


def confused():
    """Signed with the public key as if it were a secret."""
    text = EC.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signing = unsigned({"alg": "HS256", "kid": "ec", "typ": "JWT"}).removeprefix("Bearer ")[:-1]
    signature = jwt.get_algorithm_by_name("HS256").sign(signing.encode(), text)
    return f"Bearer {signing}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def tampered():
    head, _, signature = token().split(".")
    return ".".join([head, unsigned({}, azp="other").split(".")[1], signature])


NOT_VALID = unauthenticated("the token is not valid")
NO_KEY = unauthenticated("the key of the token is not one that its issuer publishes")
NOT_ALLOWED = unauthenticated("the token does not name its key (`kid`), or is signed in a way that is not allowed")
NOT_LISTED = "NotAllowed", "caller: the token names a caller that is not listed for its issuer"
STRANGE_ISSUER = unauthenticated("the token is not of an issuer that is known here")

NOW = int(time.time())
FORGED = {
    "without a signature": (lambda: unsigned({"alg": "none", "kid": "ec"}), NOT_ALLOWED),
    "with an empty signature": (lambda: unsigned({"alg": "ES256", "kid": "ec"}), NOT_VALID),
    "signed with the public key as a secret": (confused, NOT_ALLOWED),
    "signed with another key": (lambda: token(STRANGER), NOT_VALID),
    "signed with another key that it brings along": (lambda: token(STRANGER, headers={"jwk": published(STRANGER, "ec", "ES256")}), NOT_VALID),
    "signed with another key that it points to": (lambda: token(STRANGER, headers={"jku": "http://127.0.0.1/jwks.json"}), NOT_VALID),
    "changed": (tampered, NOT_VALID),
    "of an unknown key": (lambda: token(STRANGER, "stranger"), NO_KEY),
    "of the other kind of key": (lambda: token(RSA, "ec", "RS256"), NO_KEY),
    "without kid": (lambda: unsigned({"alg": "ES256"}), NOT_ALLOWED),
    "with an odd kid": (lambda: unsigned({"alg": "ES256", "kid": ["ec"]}), NOT_VALID),
    "with another algorithm of the same key": (lambda: token(RSA, "rsa", "PS256"), NOT_ALLOWED),
    "with an extension that must be understood": (lambda: token(headers={"crit": ["exp"], "exp": 1}), NOT_VALID),
    "expired": (lambda: token(exp=NOW - 1), unauthenticated("the token has expired")),
    "expired, within the leeway": (lambda: token(exp=int(time.time())), unauthenticated("the token has expired")),
    "without an end": (lambda: token(exp=None), NOT_VALID),
    "with an endless end": (lambda: unsigned({"alg": "ES256", "kid": "ec"}, exp=float("inf")), NOT_VALID),
    "not valid yet": (lambda: token(nbf=NOW + 3600), unauthenticated("the token is not valid yet: is a clock wrong?")),
    "for another audience": (lambda: token(aud="other"), unauthenticated("the token is for another audience")),
    "for nobody": (lambda: token(aud=None), NOT_VALID),
    "of another issuer": (lambda: token(iss="https://evil.example"), STRANGE_ISSUER),
    "of several issuers": (lambda: unsigned({"alg": "ES256", "kid": "ec"}, iss=["https://sso.example"]), STRANGE_ISSUER),
    "of no issuer": (lambda: token(iss=None), STRANGE_ISSUER),
    "of a caller that is not listed": (lambda: token(azp="stranger"), NOT_LISTED),
    "of a caller of keys": (lambda: token(azp="pacs"), NOT_LISTED),
    "of a caller of the other issuer": (lambda: token(azp="desk"), NOT_LISTED),
    "of no caller": (lambda: token(azp=None), NOT_VALID),
    "of several callers": (lambda: token(azp=["portal"]), unauthenticated("`azp` of the token is not text")),
    "not JSON": (lambda: "Bearer a.b.c", NOT_VALID),
    "dots": (lambda: "Bearer ..", NOT_VALID),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_token_is_refused_that_is(load, name):
    made, why = FORGED[name]
    desk = '[caller.desk]\nissuer = "two"\nroles = ["consent_desk"]\n' + ISSUER.replace("[issuer.sso]", "[issuer.two]").replace("sso.", "two.")
    assert refused(load(PORTAL + PACS + desk), made()) == why


def test_the_clock_of_an_issuer_may_be_a_little_ahead(load):
    assert authenticate(load(), token(iat=int(time.time()) + 5, nbf=int(time.time()) + 5)).name == "portal"


@given(st.one_of(st.text(max_size=60), st.lists(st.text("abAB09-_=", max_size=20), min_size=3, max_size=3).map(".".join)))
@example("eyJhbGciOiJFUzI1NiIsImtpZCI6ImVjIn0." + "W" * 3000 + ".AA")
def test_rubbish_is_nobody(text):
    callers = _rubbish()
    with pytest.raises(NotAuthenticated):
        authenticate(callers, f"Bearer {text}")
    assert callers.known(f"Bearer {text}") is None


def _rubbish(made=[]):  # noqa: B006
    if not made:
        issuer = api.tokens.Issuer("sso", "https://sso.example", "habilis", "http://127.0.0.1:9/", ["ES256"], "azp")
        made.append(Callers(None, api.callers._Book({}, {}, {issuer.issuer: issuer})))
    return made[0]


def test_bytes_that_are_no_text_are_nobody():
    with pytest.raises(NotAuthenticated):
        authenticate(_rubbish(), b"Bearer \xff.a.b")


def nested(value):
    return urlsafe_b64encode(value).rstrip(b"=").decode()


@pytest.mark.parametrize("value", [b"[" * 3000, b'{"iss":' + b"9" * 4500 + b"}", b'{"iss":"\\ud800"}', b"\xff", b"null", b'{"iss":{}}', b'{"iss":1,"iss":2}'])
def test_hostile_json_is_nobody(value):
    for head in (b'{"alg":"ES256","kid":"ec"}', value):
        with pytest.raises(NotAuthenticated):
            authenticate(_rubbish(), f"Bearer {nested(head)}.{nested(value)}.AAAA")


# --- what is remembered of tokens ------------------------------------------------------------------------------------


class Clock:
    """Both clocks, moved by hand."""

    def __init__(self, monkeypatch):
        self.passed = self.stepped = 0.0
        for module in (api.callers, api.tokens):
            monkeypatch.setattr(module, "monotonic", lambda: time.monotonic() + self.passed)
            monkeypatch.setattr(module, "time", lambda: time.time() + self.passed + self.stepped)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_a_token_is_verified_again_after_a_minute(load, clock):
    callers, one = load(), token()
    authenticate(callers, one)
    clock.passed = 59
    assert callers.known(one).name == "portal"
    clock.passed = 60.1
    assert callers.known(one) is None
    assert authenticate(callers, one).name == "portal"
    assert callers.known(one).name == "portal"


def test_a_token_is_not_remembered_past_its_end(load, clock):
    callers, one = load(), token(exp=int(time.time()) + 20)
    authenticate(callers, one)
    clock.passed = 21
    assert callers.known(one) is None


def test_a_clock_that_is_set_back_keeps_no_token(load, clock):
    callers, one = load(), token(exp=int(time.time()) + 20)
    authenticate(callers, one)
    clock.passed, clock.stepped = 61, -3600
    assert callers.known(one) is None


def test_who_is_taken_out_of_the_file_is_out_at_once(load, write, issuer):
    callers, one = load(), token()
    authenticate(callers, one)
    write(PORTAL.replace("URL", issuer.url).replace("caller.portal", "caller.other"))
    assert callers.reload_if_changed()
    assert refused(callers, one) == NOT_LISTED
    assert issuer.asked == 1  # the issuer's keys are kept


def test_who_is_taken_out_while_the_issuer_is_asked_is_out(load, write, issuer):
    async def race():
        issuer.wait = 0.3
        task = asyncio.create_task(callers.authenticate(one))
        while not issuer.asked:
            await asyncio.sleep(0.01)
        write(PORTAL.replace("URL", issuer.url).replace("caller.portal", "caller.other"))
        callers.reload()
        await task

    callers, one = load(), token()
    with pytest.raises(NotAllowed):
        asyncio.run(race())
    assert callers.known(one) is None


def test_a_changed_issuer_is_asked_again(load, write, issuer):
    callers, one = load(), token()
    authenticate(callers, one)
    write(PORTAL.replace("URL", issuer.url) + 'algorithms = ["RS256"]')
    callers.reload()
    assert refused(callers, one) == NOT_ALLOWED


def test_a_caller_of_tokens_has_a_last_day_too(load):
    assert refused(load(PORTAL.replace("[issuer", "not_after = 2020-01-01\n[issuer")), token()) == unauthenticated("this caller is no longer let in")


def test_no_more_tokens_are_remembered_than_allowed(load, monkeypatch):
    callers, several = load(), [token(jti=str(n)) for n in range(12)]
    monkeypatch.setattr(api.callers, "MOST", 5)
    for one in several:
        authenticate(callers, one)
    assert len(callers._book.tokens) == 5
    assert [callers.known(one) is not None for one in several] == [False] * 7 + [True] * 5


def test_the_token_that_was_verified_longest_ago_is_forgotten_first(load, clock, monkeypatch):
    monkeypatch.setattr(api.callers, "MOST", 2)
    callers, (one, two, three) = load(), [token(jti=str(n)) for n in range(3)]
    authenticate(callers, one)
    clock.passed = 50
    authenticate(callers, two)
    clock.passed = 61
    for header in (one, three):
        authenticate(callers, header)
    assert [callers.known(header) is not None for header in (one, two, three)] == [True, False, True]


def test_what_is_refused_is_not_remembered(load):
    callers = load()
    for n in range(20):
        refused(callers, f"Bearer guess {n}")
        refused(callers, token(STRANGER, jti=str(n)))
    assert callers._book.tokens == {}


# --- an issuer that fails --------------------------------------------------------------------------------------------

UNREACHABLE = "CallersUnavailable", "the keys of the issuer `sso` cannot be read: try again later"


def broken(issuer, how):
    issuer.status, issuer.body, issuer.headers, issuer.wait = {
        "500": (500, b"", {}, 0), "404": (404, b"{}", {}, 0), "HTML": (200, b"<html>", {}, 0), "a list": (200, b"[]", {}, 0),
        "no keys": (200, b'{"keys": []}', {}, 0), "only secrets": (200, b'{"keys": [{"kty": "oct", "k": "AAAA", "kid": "ec", "alg": "HS256"}]}', {}, 0),
        "a redirection": (302, b"", {"Location": issuer.url}, 0), "a length that lies": (200, b"{", {"Content-Length": "100"}, 0),
        "nothing": (200, b"{}", {}, 30), "bytes": (200, b"\xff\xfe", {}, 0),
    }[how]  # fmt: skip


@pytest.mark.parametrize("how", ["500", "404", "HTML", "a list", "no keys", "a redirection", "a length that lies", "nothing", "bytes"])
def test_an_issuer_that_answers_badly_lets_nobody_in(load, issuer, monkeypatch, how):
    monkeypatch.setattr(api.tokens, "SOCKET", 0.3)
    broken(issuer, how)
    assert refused(load(), token()) == UNREACHABLE


def test_an_issuer_that_publishes_no_key_for_signatures_lets_nobody_in(load, issuer):
    broken(issuer, "only secrets")
    assert refused(load(), token()) == NO_KEY
    issuer.body = json.dumps({"keys": [published(EC, "ec", "ES256", use="enc")]}).encode()
    assert refused(load(), token()) == NO_KEY


def test_an_issuer_that_is_not_there_lets_nobody_in(write):
    callers = Callers.load(write(PORTAL.replace("URL", "http://127.0.0.1:9/jwks.json")))
    assert refused(callers, token()) == UNREACHABLE


@pytest.mark.parametrize("shorter", ["SOCKET", "PATIENCE"])
def test_a_caller_waits_no_longer_than_it_must(load, issuer, monkeypatch, shorter):
    monkeypatch.setattr(api.tokens, "SOCKET", 60)
    monkeypatch.setattr(api.tokens, "PATIENCE", 60)
    monkeypatch.setattr(api.tokens, shorter, 0.3)
    broken(issuer, "nothing")
    callers = load()

    async def ask():
        with pytest.raises(CallersUnavailable):
            await callers.authenticate(token())
        assert not issuer.stopped.is_set()
        issuer.stopped.set()  # or the thread would keep the loop from closing

    started = time.monotonic()
    asyncio.run(ask())
    assert time.monotonic() - started < 25  # the issuer would have answered after 30


def test_who_leaves_while_the_issuer_is_asked_takes_nobody_along(load, issuer):
    callers = load()
    issuer.wait = 0.2

    async def two():
        tasks = [asyncio.create_task(callers.authenticate(token(jti=str(n)))) for n in range(2)]
        while not issuer.asked:
            await asyncio.sleep(0.01)
        tasks[0].cancel()
        return await tasks[1]

    assert asyncio.run(two()).name == "portal"


def test_an_issuer_is_asked_once_however_many_wait(load, issuer):
    callers = load()
    issuer.wait = 0.2

    async def many():
        return await asyncio.gather(*(callers.authenticate(token(jti=str(n))) for n in range(30)))

    assert {caller.name for caller in asyncio.run(many())} == {"portal"}
    assert issuer.asked == 1


def test_a_failing_issuer_is_asked_once_in_ten_seconds(load, issuer, clock):
    broken(issuer, "500")
    callers = load()
    for _ in range(5):
        assert refused(callers, token()) == UNREACHABLE
    assert issuer.asked == 1
    issuer.status, issuer.body = 200, json.dumps({"keys": KEYS}).encode()
    assert refused(callers, token()) == UNREACHABLE
    clock.passed = 10.1
    assert authenticate(callers, token()).name == "portal"
    assert refused(callers, token(STRANGER, "stranger")) == NO_KEY


def test_a_new_key_is_found_and_unknown_ones_do_not_make_us_ask_all_the_time(load, issuer, clock):
    callers = load()
    assert authenticate(callers, token()).name == "portal"
    issuer.body = json.dumps({"keys": [*KEYS, published(STRANGER, "new", "ES256")]}).encode()
    for n in range(5):
        assert refused(callers, token(STRANGER, f"guess {n}")) == NO_KEY
    assert issuer.asked == 1
    clock.passed = 10.1
    assert authenticate(callers, token(STRANGER, "new")).name == "portal"
    assert issuer.asked == 2


def test_a_key_that_is_withdrawn_is_no_longer_good_after_five_minutes(load, issuer, clock):
    callers = load()
    authenticate(callers, token())
    issuer.body = json.dumps({"keys": KEYS[1:]}).encode()
    clock.passed = 301

    async def twice():
        # The first call after five minutes does not wait for the issuer; it makes it be asked.
        assert (await callers.authenticate(token(jti="1"))).name == "portal"
        await callers._book.issuers["https://sso.example"]._reading
        with pytest.raises(NotAuthenticated):
            await callers.authenticate(token(jti="2"))

    asyncio.run(twice())


def test_keys_are_good_for_an_hour_while_their_issuer_is_away(load, issuer, clock):
    callers = load()
    authenticate(callers, token())
    broken(issuer, "500")
    for clock.passed in (400, 2000, 3500):
        assert authenticate(callers, token(exp=int(time.time()) + 9999)).name == "portal"
    clock.passed = 3601
    assert refused(callers, token(exp=int(time.time()) + 9999)) == UNREACHABLE


# --- the command -----------------------------------------------------------------------------------------------------


def habilis(*arguments):
    return CliRunner().invoke(app, ["caller", *map(str, arguments)])


def test_a_new_caller_is_let_in_with_the_key_that_is_printed_once(tmp_path):
    file = tmp_path / "callers.toml"
    first = habilis(
        "new", "pacs", "--role", "store", "--role", "portal", "--subject", "professional", "--subject", "organisation=1", "--subject", "organisation=2",
        "--claim", "a b=é\"'", "--claim", "profession", "--not-after", "2030-12-31", "--file", file,
    )  # fmt: skip
    second = habilis("new", "a.b", "--role", "reviewer", "--file", file, "--json")
    assert (first.exit_code, second.exit_code) == (0, 0)
    made = first.stdout.split()[4]
    callers = Callers.load(file)
    caller = callers.known(f"Bearer {made}")
    assert made.startswith("habilis_") and made not in file.read_text()
    assert caller == Caller(
        "pacs", frozenset(["store", "portal"]), {"professional": None, "organisation": frozenset("12")}, {"a b": frozenset(["é\"'"]), "profession": None},
        None, caller.not_after,
    )  # fmt: skip
    assert callers.known(f"Bearer {json.loads(second.stdout)['key']}").name == "a.b"


def test_a_file_that_is_made_is_its_owners_alone_and_one_that_is_there_stays_as_it_is(tmp_path):
    file = tmp_path / "callers.toml"
    for mode in (0o600, 0o640):
        assert habilis("new", f"x{mode}", "--role", "store", "--file", file).exit_code == 0
        assert file.stat().st_mode & 0o777 == mode
        file.chmod(0o640)


def test_a_table_is_printed_where_no_file_is_named(tmp_path):
    told = habilis("new", "x", "--role", "officer").stdout
    file = tmp_path / "callers.toml"
    file.write_text(told.partition("\n\n")[2])
    assert Callers.load(file).known(f"Bearer {told.split()[4]}").roles == {"officer"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["x", "--role", "stor"], "unknown role `stor`: did you mean `store`?"),
        (["pacs", "--role", "store"], "there is a caller `pacs` in `callers.toml`: to give it another key, add the hash that `habilis caller key` prints"),
        (["a b", "--role", "store"], "error[name]: `a b` is not a name"),
        (["x", "--role", "store", "--not-after", "tomorrow"], "`tomorrow` is not a date: write 2027-12-31, say"),
        (["x", "--role", "store", "--claim", "=1"], "`=1` is neither NAME nor NAME=VALUE"),
        (["x", "--role", "store", "--claim", "a="], "`a=` is neither NAME nor NAME=VALUE"),
        (["x", "--role", "store", "--claim", "a", "--claim", "a=1"], "`a` is given with a value and without: without one it means any"),
        (["x", "--role", "store", "--claim", "a=1", "--claim", "a"], "`a` is given with a value and without: without one it means any"),
        (["x", "--role", "store", "--claim", "a=*"], 'write a = "*" for any value'),
    ],
)
def test_what_cannot_be_added_is_told_and_changes_nothing(tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "callers.toml").write_text(PACS)
    result = habilis("new", *arguments, "--file", "callers.toml")
    assert (result.exit_code, result.stdout) == (2, "") and told in result.stderr
    assert (tmp_path / "callers.toml").read_text() == PACS


def test_nothing_is_added_to_a_file_that_does_not_check(write):
    file = write(PACS.replace("store", "stor"))
    result = habilis("new", "x", "--role", "store", "--file", file)
    assert result.exit_code == 2 and "must be one of `store`" in result.stderr
    assert file.read_text() == PACS.replace("store", "stor")


def test_a_key_for_rotation_comes_with_its_hash(write):
    made = json.loads(habilis("key", "--json").stdout)
    assert digest(made["key"]) == made["sha256"]
    lines = habilis("key").stdout.split()
    assert digest(lines[4]) == lines[-1] and len(lines[4]) == 51
    assert new_key() != new_key()


def test_check_says_who_may_call(write):
    text = PACS + "not_after = 2020-01-01\n" + PORTAL.replace("URL", "https://sso.example/jwks.json")
    result = habilis("check", write(text))
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "pacs: store; 1 key, expired on 2020-01-01",
        "    speaks for professional: any",
        "    speaks for organisation: 750712184",
        "    asserts structure: 750712184",
        "    asserts authentication: DIRECT, STRONG",
        "    asserts profession: any",
        "    asserts urgent: true",
        "portal: portal; tokens of sso",
        "issuer sso: https://sso.example, audience habilis, ES256, RS256, caller in `azp`",
        f"{write(text)}:6: warning[claim-unread]: the pack reads no `urgent` of a subject",
        "    6 | " + text.splitlines()[5],
        "  help: it reads standing, profession, authentication, role, kind, structure",
    ]
    assert json.loads(habilis("check", write(text), "--json").stdout)["callers"]["pacs"]["expired"] is True
    assert habilis("check", write("")).stdout == "nobody may call\n"


def test_check_knows_the_words_of_the_pack(write):
    file = write(CALLER + 'subjects = { profesional = "*", "*" = "*" }\nclaims = { "*" = "*", profesion = "*", structure = [] }\n')
    result = habilis("check", file)
    assert (result.exit_code, result.stdout.splitlines()) == (1, [
        f"{file}:4: error[subject-unknown]: unknown subject type `profesional`",
        '    4 | subjects = { profesional = "*", "*" = "*" }',
        "  help: did you mean `professional`?",
        f"{file}:5: warning[claim-unread]: the pack reads no `profesion` of a subject",
        '    5 | claims = { "*" = "*", profesion = "*", structure = [] }',
        "  help: did you mean `profession`?",
        "1 mistake",
    ])  # fmt: skip
    told = json.loads(habilis("check", file, "--json").stdout)
    assert (told["fine"], [one["code"] for one in told["errors"]]) == (False, ["subject-unknown", "claim-unread"])
    readers = write(CALLER + 'subjects = { reader = "*" }\nclaims = { colour = "*" }\n')
    other = habilis("check", readers, "--pack", Path(__file__).parents[1] / "examples" / "library_pack", "--json")
    assert other.exit_code == 0 and [one["code"] for one in json.loads(other.stdout)["warnings"]] == ["claim-unread"]
    assert habilis("check", readers).exit_code == 1
    assert habilis("check", readers, "--pack", readers.parent / "none").exit_code == 2


def test_check_tells_every_mistake(write):
    file = write(CALLER.replace(digest(KEY), "x") + 'issuer = "z"\n')
    result = habilis("check", file)
    assert result.exit_code == 1 and result.stdout.endswith("2 mistakes\n")
    told = json.loads(habilis("check", file, "--json").stdout)
    assert (told["fine"], [one["code"] for one in told["errors"]]) == (False, ["key-hash", "issuer-unknown"])
    assert habilis("check", file.with_name("other.toml")).exit_code == 2


def test_bearer_takes_what_follows_the_scheme():
    assert (bearer("Bearer a b"), bearer("Basic a"), bearer("Bearer"), bearer(None)) == (b"a b", None, None, None)


def test_the_file_in_the_documentation_checks(write):
    page = (Path(__file__).parents[1] / "docs" / "callers.md").read_text()
    text = page.partition("```toml\n")[2].partition("```")[0]
    assert set(Callers.load(write(text)).callers) == {"pacs-chu", "patient-portal"}
    assert [key for key in api.callers._KEYS if f"{key} = " not in text and f"[{key}." not in text] == []
    assert [role for role in api.callers.ROLES if f"| `{role}` |" not in page] == []
