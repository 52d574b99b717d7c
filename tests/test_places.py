"""One place for everything: a store, a log and a journal that the service made are found by every command, and each may be named by itself."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import api.server
import cli.consent
import cli.main
from api.settings import DATA, Places, Settings, places
from cli.places import journal_at, log_at, store_at
from engine.pdp import load_pdp

ROOT = Path(__file__).parent.parent
PDP = load_pdp(ROOT / "policies")
PATIENT = "279035121518989"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with nothing in it, and an environment that says nothing."""
    for name in ("STORE", "LOG", "JOURNAL", "LOG_KEY", "CALLERS", "OPEN"):
        monkeypatch.delenv(f"HABILIS_{name}", raising=False)
    monkeypatch.setattr(cli.consent, "open_pdp", lambda *_: PDP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def habilis(*arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(cli.main.app, [str(one) for one in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What `habilis serve` would have served with."""
    made: list[Settings] = []
    monkeypatch.setattr(api.server, "serve", made.append)
    monkeypatch.setattr(api.server, "unusable", lambda host, port: "")
    return made


def urls(settings: Places) -> list[str]:
    return [one.get_secret_value() for one in (settings.store, settings.log, settings.journal)]


def shell(data: Path | None = None) -> list[str]:
    return [store_at(data, None), log_at(data, None), journal_at(data, None)]


def test_every_command_looks_where_the_service_does(started: list[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    habilis("serve", "--open")
    assert urls(started[-1]) == shell() == shell(DATA) == [f"sqlite:///{DATA}/{name}" for name in ("consent.db", "decision-log", "journal.db")]
    habilis("serve", "--open", "--data", "here")
    assert urls(started[-1]) == shell(Path("here")) == [f"sqlite:///here/{name}" for name in ("consent.db", "decision-log", "journal.db")]
    for name in ("STORE", "LOG", "JOURNAL"):
        monkeypatch.setenv(f"HABILIS_{name}", f"sqlite:///{name}")
    habilis("serve", "--open")
    assert urls(started[-1]) == shell() == ["sqlite:///STORE", "sqlite:///LOG", "sqlite:///JOURNAL"]
    habilis("serve", "--open", "--data", "here")
    assert urls(started[-1]) == shell(Path("here")), "what is said on the line counts for more than the environment"


def test_what_is_named_by_itself_counts_for_more_than_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HABILIS_STORE", "sqlite:///STORE")
    assert store_at(Path("here"), "sqlite:///there.db") == store_at(None, "sqlite:///there.db") == "sqlite:///there.db"
    assert log_at(Path("here"), "sqlite:///there") == "sqlite:///there" and journal_at(Path("here"), "sqlite:///j.db") == "sqlite:///j.db"


def test_the_key_is_in_the_folder_unless_the_environment_names_another(started: list[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    habilis("serve", "--open", "--data", "here")
    monkeypatch.setenv("HABILIS_LOG_KEY", "/safe/key.pem")
    habilis("serve", "--open", "--data", "here")
    assert [one.log_key for one in started] == [Path("here/log-key.pem"), Path("/safe/key.pem")]
    assert places(Path("here"), log_key=Path("mine.pem"))["log_key"] == Path("mine.pem")


def test_a_key_that_a_file_of_settings_names_is_not_passed_over_either(elsewhere: Path, started: list[Settings]) -> None:
    (elsewhere / ".env").write_text("HABILIS_LOG_KEY=/safe/key.pem\nHABILIS_JOURNAL=sqlite:///j.db\n")
    habilis("serve", "--open", "--data", "here")
    assert started[-1].log_key == Path("/safe/key.pem") and journal_at(None, None) == "sqlite:///j.db"


@pytest.mark.parametrize("data", [[], ["--data", "a folder/of mine"]], ids=["nothing said", "a folder"])
def test_without_any_address_everything_goes_to_one_folder(elsewhere: Path, data: list[str]) -> None:
    habilis("consent", "init", *data)
    habilis("log", "init", *data)
    habilis("consent", "act", "open", PATIENT, "--with", "action.birth_date=1979-03-28", *data)
    assert "opened" in habilis("consent", "history", PATIENT, *data).stdout
    habilis("journal", "follow", "--once", *data)
    assert json.loads(habilis("journal", "reviews", "--json", *data).stdout)["reviews"] == []
    habilis("log", "show", *data)
    folder = elsewhere / (data[-1] if data else DATA)
    assert {one.name for one in folder.iterdir() if not one.name.endswith(("-wal", "-shm", ".follower"))} == {"consent.db", "decision-log", "journal.db"}
    assert [one.name for one in elsewhere.iterdir()] == [folder.relative_to(elsewhere).parts[0]]


def test_what_is_not_there_is_an_error_and_is_not_made(elsewhere: Path) -> None:
    for command in (("consent", "list", PATIENT), ("log", "show"), ("journal", "reviews")):
        assert "habilis-data" in habilis(*command, code=2).stderr
    assert list(elsewhere.iterdir()) == []


def test_what_is_no_address_is_said() -> None:
    assert "sqlite:///FILE" in habilis("consent", "init", "--store", "nonsense", code=2).stderr
    assert habilis("journal", "follow", "--once", "--journal", "nonsense", code=2).stderr


@pytest.mark.parametrize(("host", "why"), [("127.0.0.1", "something else listens there: end it, or choose another port"), ("localhost", None), ("::1", None)])
def test_an_address_that_is_taken_is_said_in_one_line(elsewhere: Path, host: str, why: str | None) -> None:
    try:
        taken = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    with taken:
        result = habilis("serve", "--open", "--create", "--host", host, "--port", taken.getsockname()[1], code=1)
        assert result.stdout == "" and len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith(f"cannot listen on {host}:{taken.getsockname()[1]}: {why or ''}")
    assert list(elsewhere.iterdir()) == []
    assert api.server.unusable(host, 0) == ""
