"""Settings of the service: from the environment (`HABILIS_STORE`, ...), where secrets belong, or a `.env` file. Nothing is read from anywhere else."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

LOOPBACK = ("127.0.0.1", "::1", "localhost")
DATA = Path("habilis-data")
KEY = "log-key.pem"


def in_folder(folder: Path) -> dict[str, str]:
    """Store, log and journal as files of one folder."""
    return {"store": f"sqlite:///{folder}/consent.db", "log": f"sqlite:///{folder}/decision-log", "journal": f"sqlite:///{folder}/journal.db"}


_DEFAULT = {name: SecretStr(url) for name, url in in_folder(DATA).items()}


class Places(BaseSettings):
    """Where everything is kept: for the service and for every command alike."""

    model_config = SettingsConfigDict(env_prefix="HABILIS_", env_file=".env", extra="ignore", frozen=True)

    store: SecretStr = _DEFAULT["store"]
    log: SecretStr = _DEFAULT["log"]
    journal: SecretStr = _DEFAULT["journal"]
    log_key: Path | None = None
    """The private key that signs checkpoints."""


def places(folder: Path | None = None, **said: Any) -> dict[str, Any]:
    """Settings that were said: each by itself, or else by the folder that holds everything. What is not said comes from the environment, or is the default.

    The key is the one in the folder, unless the environment names another: whoever keeps it elsewhere does not mean to have a second one made.
    """
    made: dict[str, Any] = {} if folder is None else dict(in_folder(folder))
    if folder is not None and Places().log_key is None:
        made["log_key"] = folder / KEY
    return made | {name: value for name, value in said.items() if value is not None}


def make_folder(url: str) -> None:
    """Make the folder in which a file of SQLite is to be. What is no such address is said by whoever opens it."""
    with suppress(ArgumentError):
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)


class Settings(Places):
    """What `make serve` and a deployment set. Every member has a default that works on one machine but `callers`: nobody is let in unless somebody says so."""

    pack: Path = Path("policies")
    follow: bool | None = None
    """Keep the journal in a thread of a worker. Left out: where the log is in files; elsewhere a process of its own does it."""
    redis: SecretStr | None = None
    create: bool = False
    """Make the store, the log and the journal where they are not there. An empty store in the place of one not mounted says that nobody refused anything."""
    directory: Path | None = None
    callers: Path | None = None
    open: bool = False
    """Serve without authentication. On loopback only."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    public_url: str = ""
    """The identifier of this policy decision point, which its metadata repeat, whatever a Host header says: `https` behind a proxy that has the certificate.
    Where it listens, unless said."""

    max_body: Annotated[int, Field(ge=1_000)] = 2_000_000
    max_batch: Annotated[int, Field(ge=1)] = 1_000
    max_concurrency: Annotated[int, Field(ge=1)] = 1_000
    rate: Annotated[float, Field(ge=0)] = 0
    """Requests a second for each caller; 0: as many as it likes."""
    body_timeout: Annotated[float, Field(gt=0)] = 10.0
    page_size: Annotated[int, Field(ge=1, le=10_000)] = 500

    otlp: str | None = None
    """Where traces and metrics go (OTLP over HTTP); nowhere unless said."""
    sampling: Annotated[float, Field(ge=0, le=1)] = 0.001

    @property
    def follows(self) -> bool:
        return self.log.get_secret_value().startswith("sqlite:") if self.follow is None else self.follow

    @property
    def url(self) -> str:
        """`public_url`, or where the service listens."""
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")

    @model_validator(mode="after")
    def _closed(self) -> Settings:
        if self.open and self.host not in LOOPBACK:
            raise ValueError(f"open = true serves without authentication, on loopback only, not on {self.host}: name the callers instead")
        if not self.open and self.callers is None:
            raise ValueError("nobody may call: name a file of callers (HABILIS_CALLERS), or serve without authentication on loopback (HABILIS_OPEN=true)")
        return self
