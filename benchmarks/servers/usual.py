"""The same in FastAPI with pydantic models: what one writes who does not measure."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.servers.bare import answer


class Entity(BaseModel):
    type: str
    id: str
    properties: dict[str, Any] = {}


class Action(BaseModel):
    name: str
    properties: dict[str, Any] = {}


class Question(BaseModel):
    subject: Entity
    action: Action
    resource: Entity
    context: dict[str, Any] = {}


class Item(BaseModel):
    resource: Entity


class Questions(BaseModel):
    subject: Entity
    action: Action
    context: dict[str, Any] = {}
    evaluations: list[Item]


class Context(BaseModel):
    id: str
    pack: str
    consent_token: str
    reason_user: dict[str, str]
    obligations: list[Any]


class Told(BaseModel):
    decision: bool
    context: Context


class Several(BaseModel):
    evaluations: list[Told]


app = FastAPI()


@app.post("/access/v1/evaluation")
async def evaluation(question: Question) -> Told:
    return Told.model_validate(answer())


@app.post("/access/v1/evaluations")
async def evaluations(questions: Questions) -> Several:
    return Several.model_validate({"evaluations": [answer() for _ in questions.evaluations]})
