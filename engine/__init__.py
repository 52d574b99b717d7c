"""Habilis as a library: a policy decision point for shared records.

    from engine import Action, Entity, Request, load_pdp

    pdp = load_pdp("policies")                      # read, check, compile, prove: about a second, once
    record = pdp.fold(directives, at)               # what one patient said, at an instant
    answer = pdp.decide(request, record)            # about two microseconds
    answers = pdp.decide_many(subject, action, documents, context, record)
    print(explain(answer).text())

Nothing here reads a clock, opens a connection or keeps a log.
"""

from engine.answer import Answer
from engine.consent.directives import Directive, parse_directives
from engine.consent.fold import Record, fold
from engine.errors import Diagnostic, HabilisError, PackError, RequestError, TooLarge
from engine.explain import Explanation, explain
from engine.pack import Pack, load_pack, parse_pack
from engine.pdp import Pdp, compile_pack, load_pdp
from engine.request import Action, Entity, Request, parse_json, parse_request

__all__ = [
    "Action", "Answer", "Diagnostic", "Directive", "Entity", "Explanation", "HabilisError", "Pack", "PackError", "Pdp", "Record", "Request", "RequestError",
    "TooLarge", "compile_pack", "explain", "fold", "load_pack", "load_pdp", "parse_directives", "parse_json", "parse_pack", "parse_request",
]  # fmt: skip
