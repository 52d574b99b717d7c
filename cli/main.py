"""The `habilis` command. Each command reads its arguments, calls the engine and prints: see `cli.edge` for exit codes."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from cli import callers, checking, demo, imports, journal, log, requests, serve, service_demo
from cli import vectors as vector_reports
from cli.edge import (
    PACK,
    Misuse,
    choose,
    command,
    finding,
    language_of,
    need_folder,
    open_directory,
    open_pack,
    open_pdp,
    print_json,
    read_bytes,
    say,
    split_settings,
)
from cli.grids import GridView
from engine.errors import PackError
from engine.vectors import Packs, VectorError, read_vectors, run

app = typer.Typer(
    name="habilis", no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Decide who may do what to a patient's documents, and say why. The jobs of policy officers and reviewers, from a shell.",
    epilog="Exit codes: 0 fine; 1 a finding (a pack that does not check, a vector that fails, packs that differ); 2 misuse, said on stderr.",
)  # fmt: skip
vectors = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Run test vectors, or start a new one.")
app.add_typer(vectors, name="vectors")
app.add_typer(imports.app, name="consent")  # the commands of cli.consent, and its own beside them
app.add_typer(log.app, name="log")
app.add_typer(journal.app, name="journal")
app.add_typer(callers.app, name="caller")
app.command(epilog="\b\nExamples:\n  habilis serve --open --create --data habilis-data\n  habilis serve --callers callers.toml --workers 2")(serve.serve)

PackPath = Annotated[Path, typer.Argument(metavar="PACK", help="The folder of a pack, or a compiled pack.", show_default=False)]
PackOption = Annotated[Path, typer.Option("--pack", metavar="PACK", help="The folder of a pack, or a compiled pack.")]
Requests = Annotated[Path, typer.Argument(metavar="FILE|-", help="Requests: a JSON object, a list, JSON lines, or AuthZEN evaluations.", show_default=False)]
Settings = Annotated[list[str] | None, typer.Option("--settings", metavar="NAME=VALUE", help="A setting of the pack that differs; may be repeated.")]
DirectoryFile = Annotated[Path | None, typer.Option("--directory", metavar="FILE", help="A sheet of professionals: docs/consent.md.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Language = Annotated[str | None, typer.Option("--lang", metavar="fr|en", help="The language of the reasons.", show_default=False)]


def _examples(*lines: str) -> str:
    """An epilog whose lines stay as they are."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"habilis {version('habilis')}")
        raise typer.Exit()


@app.callback()
def main(_: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)] = False) -> None:
    pass


# --- packs -----------------------------------------------------------------------------------------------------------


@app.command(epilog=_examples("habilis check policies", "habilis check policies --settings inferred_cells=follow --json"))
@command
def check(pack: PackPath, settings: Settings = None, json: AsJson = False) -> None:
    """Check a pack and say what it is.

    Every mistake at once, with its place and a way to mend it; or the pack's name, digest and meaning, which columns of its grids open anything under the
    settings, and which invariants are proved. Exit code 1 when it does not check.
    """
    try:
        told = checking.summary(open_pdp(pack, settings or ()))
    except PackError as error:
        if json:
            print_json({"fine": False, "errors": [asdict(one) for one in error.diagnostics]})
        else:
            say(str(error))
            say(f"{len(error.diagnostics)} mistakes" if len(error.diagnostics) > 1 else "1 mistake")
        finding()
    if json:
        print_json(told)
    else:
        for line in checking.lines_of(told):
            say(line)


@app.command(epilog=_examples("habilis compile policies -o dmp-fr.habilis"))
@command
def compile(
    pack: PackPath,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where to write it.", show_default=False)],
    settings: Settings = None,
    json: AsJson = False,
) -> None:
    """Compile a pack into one file.

    It decides without being compiled again. The same pack gives the same bytes.
    """
    from engine.compiled import dump

    pdp = open_pdp(pack, settings or ())
    data = dump(pdp)
    output.write_bytes(data)
    if json:
        print_json({"file": str(output), "bytes": len(data), "name": pdp.pack.name, "version": pdp.pack.version, "digest": pdp.pack.digest})
    else:
        say(f"{output}: {pdp.pack.name} {pdp.pack.version}, {len(data):,} bytes, digest {pdp.pack.digest}")


@app.command(epilog=_examples("habilis matrix policies --profession G15_60", "habilis matrix policies --type 11488-4 --action deposit"))
@command
def matrix(
    pack: PackPath,
    profession: Annotated[str | None, typer.Option(metavar="ID", help="Only the column of this profession.", show_default=False)] = None,
    column: Annotated[str | None, typer.Option(metavar="COLUMN", help="Only this column.", show_default=False)] = None,
    type: Annotated[str | None, typer.Option("--type", metavar="CODE", help="Only this document type.", show_default=False)] = None,
    action: Annotated[str | None, typer.Option(metavar="read|deposit", help="Which grid; the first when left out.", show_default=False)] = None,
    settings: Settings = None,
    json: AsJson = False,
) -> None:
    """Show a grid, a column, a row or a cell.

    With where a cell comes from, and what it gives under the settings.
    """
    view = GridView(open_pack(pack, settings or ()), action, profession, column, type)
    if json:
        print_json(view.as_dict())
    else:
        for line in view.lines():
            say(line)


@app.command(epilog=_examples("habilis diff live/policies policies", "habilis diff policies policies --settings-after inferred_cells=follow"))
@command
def diff(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="The pack as it is.", show_default=False)],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="The pack as it would be.", show_default=False)],
    settings: Settings = None,
    settings_after: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A setting that differs in AFTER only; may be repeated.")] = None,
    json: AsJson = False,
) -> None:
    """Say exactly what an edit opens and closes.

    In situations, compared on the diagrams: first refusals that become permits. Exit code 1 when the packs differ.
    """
    from engine.analysis.diff import diff as compare

    found = compare(open_pdp(before, settings or ()), open_pdp(after, [*(settings or ()), *(settings_after or ())]))
    if json:
        print_json(found.as_dict())
    else:
        say(found.text())
    if not found.is_empty:
        finding()


# --- decisions -------------------------------------------------------------------------------------------------------


@app.command(epilog=_examples("habilis decide request.json", "cat requests.jsonl | habilis decide --pack dmp-fr.habilis --json -"))
@command
def decide(
    file: Requests,
    pack: PackOption = Path(PACK),
    settings: Settings = None,
    directory: DirectoryFile = None,
    lang: Language = None,
    json: AsJson = False,
) -> None:
    """Decide requests in a file.

    A request is {subject, action, resource, context}, with the record's `directives`, `at` (now, when left out) and `revision` (all, when left out). A resource
    may be a FHIR R4 DocumentReference. What is printed is for reviewers: a discreet refusal shows its rule.
    """
    batch = requests.read_batch(read_bytes(file), str(file))
    pdp = open_pdp(pack, settings or ())
    language = language_of(pdp.pack, lang)
    answers = list(requests.answers(pdp, batch, open_directory(directory, pdp.pack)))
    if json:
        batch.print_json([requests.reply(answer) for answer in answers])
    else:
        for answer in answers:
            for line in requests.lines_of(answer, language):
                say(line)


@app.command(epilog=_examples("habilis explain request.json", "habilis explain request.json --lang fr"))
@command
def explain(
    file: Requests,
    pack: PackOption = Path(PACK),
    settings: Settings = None,
    directory: DirectoryFile = None,
    lang: Language = None,
    json: AsJson = False,
) -> None:
    """Explain the decisions of requests in a file.

    The facts looked at, the rule and its article, the cell and its source, and what would turn the decision. With --json, apart: what the requester may be
    told, and what is for reviewers.
    """
    from engine.explain import explain as explain_answer

    batch = requests.read_batch(read_bytes(file), str(file))
    pdp = open_pdp(pack, settings or ())
    language = language_of(pdp.pack, lang)
    explanations = [explain_answer(answer) for answer in requests.answers(pdp, batch, open_directory(directory, pdp.pack))]
    if json:
        batch.print_json([{"requester": one.requester, "reviewer": one.reviewer} for one in explanations])
    else:
        say("\n\n".join(one.text(language) for one in explanations))


@app.command("demo", epilog=_examples("habilis demo", "habilis demo --lang fr"))
@command
def demonstrate(lang: Annotated[str, typer.Option("--lang", metavar="fr|en", help="The language of the reasons.")] = "en") -> None:
    """Decide a dozen requests of the French pack before your eyes, and explain one.

    Exit code 1 when an answer is not the one that the scenario expects.
    """
    lines, fine = demo.lines(choose("language", lang, ("fr", "en")))
    told, as_expected = service_demo.lines(lang)
    lines, fine = [*lines, *told], fine and as_expected
    for line in lines:
        say(line)
    if not fine:
        finding()


# --- vectors ---------------------------------------------------------------------------------------------------------


@vectors.command("run", epilog=_examples("habilis vectors run test_vectors", "habilis vectors run test_vectors --junit vectors.xml"))
@command
def run_vectors(
    paths: Annotated[list[Path], typer.Argument(metavar="PATHS...", help="Files of vectors, or folders of them.", show_default=False)],
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a JUnit report too.", show_default=False)] = None,
    pack: Annotated[Path | None, typer.Option(metavar="PACK", help="Another pack than the one that the files name.", show_default=False)] = None,
    settings: Settings = None,
    json: AsJson = False,
) -> None:
    """Run test vectors and say what they cover.

    A rule that decides no vector fails the run of a folder; of single files it is only told. Exit code 1 when a vector fails or cannot be read.
    """
    if pack:
        need_folder(pack)
    load = Packs(str(pack) if pack else None, split_settings(settings or ()))
    try:
        cases = read_vectors(paths, load)
    except VectorError as error:
        if json:
            print_json({"fine": False, "errors": [asdict(one) for one in error.diagnostics]})
        else:
            say(str(error))
        finding()
    if not cases:
        raise Misuse("there is no vector in " + ", ".join(f"`{path}`" for path in paths))
    report = run(cases, load, complete=any(path.is_dir() for path in paths))
    if junit:
        junit.write_bytes(vector_reports.junit(report))
    if json:
        print_json(report.as_dict())
    else:
        for line in vector_reports.lines_of(report):
            say(line)
    if not report.is_fine:
        finding()


@vectors.command("new", epilog=_examples("habilis vectors new R05 >> test_vectors/reading_rules.yaml"))
@command
def new_vector(
    rule: Annotated[str, typer.Argument(metavar="RULE", help="The id of a rule.", show_default=False)],
    pack: PackOption = Path(PACK),
    lang: Language = None,
    json: AsJson = False,
) -> None:
    """Print a vector with an empty `expect`.

    It is to be filled by hand, from the policy: put it under `vectors:`.
    """
    known = open_pack(pack)
    text = vector_reports.stub(known, rule, language_of(known, lang))
    print_json({"rule": rule, "vector": text}) if json else say(text)


if __name__ == "__main__":
    app()
