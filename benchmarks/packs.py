"""Packs that grow, made in memory from the French one: more rules, more exceptions, more cells; and one that must fail.

Every family keeps the whole French pack and adds what officers would add, so all slices, both clocks and all facts stay in play. Each added rule is
an outcome of its own: nothing merges that a reviewer would tell apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from random import Random

from engine.pack import MODEL, read_folder

FRENCH = Path(__file__).parent.parent / "policies"
Files = Mapping[str, bytes]

MODES = ("normal", "bris_de_glace", "centre_15")


def french() -> dict[str, bytes]:
    return read_folder(FRENCH)


def near_copies(files: Files, rules: int) -> dict[str, bytes]:
    """`rules` more rules that look like French ones, before those they copy: each a French condition with another mode, for one category of documents."""
    texts = [text for id, text in _reading_rules(files) if id not in ("R20-mode", "R20-role")]
    lines = []
    for n in range(rules):
        category, kind = divmod(n, len(texts))
        text = texts[kind]
        for mode in MODES:
            if f"'{mode}'" in text:
                text = text.replace(f"'{mode}'", f"'{MODES[(MODES.index(mode) + category) % 3]}'")
                break
        lines.append(f"p, N{n}, professional, reading, r.resource.category == 'c{category}' && ({text}), {'allow' if (n + category) % 2 else 'deny'}")
    return _with(files, lines, _word("resource.category", "c", rules // len(texts) + 2))


def by_specialty(files: Files, rules: int) -> dict[str, bytes]:
    """`rules` more rules, each an exception for one specialty, of as many specialties as there are rules."""
    conditions = (
        "r.context.access_mode == 'normal' && r.consent.authorised && r.matrix.read",
        "r.context.access_mode == 'bris_de_glace' && r.matrix.read",
        "r.consent.team_member && !r.consent.excluded",
        "r.matrix.treating && r.consent.equal_rights",
    )
    lines = [
        f"p, S{n}, professional, reading, r.subject.specialty == 's{n}' && {conditions[n % 4]}, {'deny' if n % 3 else 'allow'}" for n in range(rules)
    ]  # fmt: skip
    return _with(files, lines, _word("subject.specialty", "s", max(2, rules)))


def more_cells(files: Files, columns: int, rows: int) -> dict[str, bytes]:
    """The matrix with `columns` profession groups and `rows` document types, to read and to deposit; without the provenance of each cell."""
    rng = Random(columns * rows)
    made = dict(files)
    added: list[str] = []
    for name, letters in (("matrix/read.csv", "RXrx"), ("matrix/deposit.csv", ("W", "w", ""))):
        header, *lines = files[name].decode().splitlines()
        first = header.split(",").index("MEDECIN")
        added = [f"GROUP{n}" for n in range(header.count(",") + 1 - first, columns)]
        sheet = [",".join([header, *added])]
        sheet += [",".join([line, *rng.choices(letters, k=len(added))]) for line in lines]
        sheet += [",".join([f"T{n}", *["type"] * (first - 1), *rng.choices(letters, k=columns)]) for n in range(len(lines), rows)]
        made[name] = "\n".join(sheet).encode()
    professions = files["matrix/professions.csv"].decode().splitlines()
    names = professions[0].split(",")
    cells = {"category": "professionnel_de_sante"}
    professions += [",".join({**cells, "id": f"P{name}", "column": name}.get(one, "") for one in names) for name in added]
    made["matrix/professions.csv"] = "\n".join(professions).encode()
    made["vocabulary.toml"] = re.sub(rb'provenance = "matrix/provenance.csv"\n', b"", files["vocabulary.toml"])
    return made


def adversarial(rules: int = 100, facts: int = 30, literals: int = 3, seed: int = 1) -> dict[str, bytes]:
    """A pack whose diagram explodes: random rules of three literals over thirty booleans."""
    rng = Random(seed)
    lines = []
    for n in range(rules):
        chosen = rng.sample(range(facts), literals)
        text = " && ".join(rng.choice(("", "!")) + f"r.context.fact{one}" for one in chosen)
        lines.append(f"p, A{n}, *, read, {text}, {rng.choice(('allow', 'deny'))}")
    vocabulary = 'subjects = ["professional"]\n[actions]\ndocument = ["read"]\n'
    vocabulary += "".join(f'[fact.context.fact{n}]\nabout = "fact {n}"\nform = "given"\nof = "context.fact{n}"\nabsent = false\n' for n in range(facts))
    return {
        "pack.toml": b'[pack]\nname = "adversarial"\nversion = 1\ntime_zone = "Europe/Paris"\n',
        "vocabulary.toml": vocabulary.encode(),
        "model.conf": MODEL.encode(),
        "rules.csv": "\n".join(lines).encode(),
        "reasons.csv": "\n".join(["rule,legal_basis,discreet,obligations,fr,en", *(f"A{n},none,no,,non,no" for n in range(rules))]).encode(),
        "invariants.csv": b"id,form,subject,action,fact,condition\nnone,never_permit,*,read,,r.context.fact0 && !r.context.fact0\n",
    }


def _reading_rules(files: Files) -> list[tuple[str, str]]:
    """The French rules for reading by professionals that come after the checks of the record: id and condition."""
    found = []
    for line in files["rules.csv"].decode().splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if cells[0] == "p" and cells[2:4] == ["professional", "reading"] and cells[1] != "R04":
            found.append((cells[1], cells[4]))
    return found


def _with(files: Files, rules: list[str], facts: str) -> dict[str, bytes]:
    """The French pack with these rules before the first that permits reading, these facts, and a reason for each rule."""
    made = dict(files)
    lines = files["rules.csv"].decode().splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("p, R06-author"))
    made["rules.csv"] = "\n".join([*lines[:first], *rules, *lines[first:]]).encode()
    made["vocabulary.toml"] = files["vocabulary.toml"].replace(b"\n[impossible]\n", f"\n{facts}\n[impossible]\n".encode())
    header, *_ = files["reasons.csv"].decode().splitlines()
    cells = {"legal_basis": "benchmark", "discreet": "no", "fr": "Exception.", "en": "Exception."}
    reasons = [",".join(line.split(", ")[1] if name == "rule" else cells.get(name, "") for name in header.split(",")) for line in rules]
    made["reasons.csv"] = files["reasons.csv"].rstrip(b"\n") + b"\n" + "\n".join(reasons).encode() + b"\n"
    return made


def _word(name: str, prefix: str, values: int) -> str:
    """A `given` fact with so many values, in vocabulary.toml."""
    words = ", ".join(f'"{prefix}{n}"' for n in range(values))
    last = f'"{prefix}{values - 1}"'
    return f'[fact.{name}]\nabout = "A word of the benchmark."\nform = "given"\nof = "{name}"\nvalues = [{words}]\nabsent = {last}\nunknown = {last}\n'
