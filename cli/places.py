"""Where a command finds store, log and journal: as its options say, or the folder that holds everything, or the environment, as for `habilis serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.settings import Places, make_folder
from api.settings import places as said

__all__ = ["Data", "JournalUrl", "LogUrl", "StoreUrl", "journal_at", "log_at", "make_folder", "store_at"]

Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="FOLDER", help="Where store, log and journal are, as SQLite files; habilis-data, when nothing is said.", show_default=False),
]
StoreUrl = Annotated[
    str | None, typer.Option("--store", metavar="URL", help="sqlite:///FILE or postgresql://USER@HOST/DATABASE (HABILIS_STORE).", show_default=False)
]
LogUrl = Annotated[
    str | None, typer.Option("--log", metavar="URL", help="sqlite:///FOLDER or postgresql://USER@HOST/DATABASE (HABILIS_LOG).", show_default=False)
]
JournalUrl = Annotated[
    str | None, typer.Option("--journal", metavar="URL", help="sqlite:///FILE or postgresql://USER@HOST/DATABASE (HABILIS_JOURNAL).", show_default=False)
]


def store_at(data: Path | None, store: str | None) -> str:
    """The URL of the consent store."""
    return Places(**said(data, store=store)).store.get_secret_value()


def log_at(data: Path | None, log: str | None) -> str:
    """The URL of the decision log."""
    return Places(**said(data, log=log)).log.get_secret_value()


def journal_at(data: Path | None, journal: str | None) -> str:
    """The URL of the journal."""
    return Places(**said(data, journal=journal)).journal.get_secret_value()
