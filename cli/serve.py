"""`habilis serve`: the decision service over HTTP. What it does is `api`'s; settings come from the environment, and what is said here goes before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from cli.edge import Misuse, command, say
from cli.places import Data

LOUD = """\
*** OPEN: no authentication. Whoever reaches {url} may ask anything and change any record. ***
*** On this machine only, for a trial. Name the callers (--callers FILE) for anything else. ***"""


@command
def serve(
    pack: Annotated[Path | None, typer.Option(metavar="PACK", help="The folder of a pack, or a compiled pack.", show_default=False)] = None,
    data: Data = None,
    callers: Annotated[Path | None, typer.Option(metavar="FILE", help="Who may call.", show_default=False)] = None,
    open_: Annotated[bool, typer.Option("--open", help="Serve without authentication, on loopback only.")] = False,
    create: Annotated[bool, typer.Option("--create", help="Make the store, the log and its key where they are not there.")] = False,
    host: Annotated[str | None, typer.Option(help="The address to listen on.", show_default=False)] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on.", show_default=False)] = None,
    workers: Annotated[int | None, typer.Option(help="How many processes answer.", show_default=False)] = None,
) -> None:
    """Serve decisions over HTTP (AuthZEN 1.0), each in the log before it is answered.

    Every setting is an environment variable too (HABILIS_STORE, HABILIS_LOG, HABILIS_CALLERS ...); secrets belong there.
    """
    from api.server import serve as start
    from api.server import unusable
    from api.settings import Settings, places

    said: dict[str, Any] = {"pack": pack, "callers": callers, "host": host, "port": port, "workers": workers, "open": open_ or None, "create": create or None}
    try:
        settings = Settings(**places(data, **said))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Misuse(f"{where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}") from None
    url = f"http://{settings.host}:{settings.port}"
    if why := unusable(settings.host, settings.port):
        typer.echo(f"cannot listen on {settings.host}:{settings.port}: {why}", err=True)
        raise typer.Exit(1)
    if settings.open:
        say(LOUD.format(url=url))
    say(f"{url} (described at {url}/openapi.json); stop with Ctrl-C")
    start(settings)
