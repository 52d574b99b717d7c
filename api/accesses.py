"""What became of a permit: a store says what it showed. A permit is no access; the patient's journal tells accesses, and marks permits of which nobody spoke.

Nothing is looked up here: a store that reports must not wait for more than the log. Whoever follows the log finds the decision, or sees that there is none, and
believes of several callers only the one that asked for it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import Field, StringConstraints

from api.callers import Caller
from api.shapes import Role, RuntimeOf, Shape, by_of
from engine.decision_log.entries import entry
from engine.request import LONGEST

router = APIRouter(prefix="/access/v1", tags=["accesses"])
Store = Annotated[Caller, Depends(Role("store"))]

DecisionId = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9a-f]{26}$")]
"""What an answer gave as `context.id`."""


class Outcome(Shape):
    """`decision`: the identifier of the decision; `document`: the one of its documents that was shown, or was not after all."""

    decision: DecisionId
    document: Annotated[str, Field(strict=True, max_length=LONGEST, pattern=r"\S")]
    outcome: Literal["shown", "not_shown"]


@router.post("/outcome")
async def outcome(body: Outcome, request: Request, runtime: RuntimeOf, caller: Store) -> dict[str, bool]:
    """Say whether a document was shown, after its bytes were sent. It is in the log when this answers; saying it twice does no harm."""
    by = by_of(request, caller)
    now = runtime.service.clock()
    said = {"decision": body.decision, "document": body.document, "outcome": body.outcome}
    await runtime.log.append(entry("outcome", now, caller=by.caller, request=by.request or None, **said))
    return {"recorded": True}
