"""The shapes of pack.toml and vocabulary.toml, as pydantic models: what an officer may write, before anything is made of it.

Unknown keys are mistakes. What the words mean is in `engine.vocabulary` and docs/facts.md; `engine.pack` turns the one into the other.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StrictBool, StrictInt, StrictStr, Tag

Scalar = StrictBool | StrictInt | StrictStr
Word = StrictBool | StrictStr
"""A value of a fact."""


class Spec(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PackHead(Spec):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    version: int = Field(ge=1, strict=True)
    title: str = ""
    effective_from: date | None = None
    effective_until: date | None = None
    time_zone: str
    languages: list[str] = Field(default=["en"], min_length=1)
    node_budget: int = Field(default=200_000, ge=100, strict=True)


class SettingSpec(Spec):
    value: Scalar
    about: str = ""
    unit: Literal["days", "months", "years", ""] = ""
    choices: list[Scalar] | None = None


class ObligationSpec(Spec):
    """Any other key is a language of the pack, and its value the words in it."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, StrictStr] = Field(init=False)
    to: Literal["requester", "service"]
    actions: list[str] | None = None
    properties: dict[str, str] = {}


class FhirSpec(Spec):
    patient_systems: list[str] = []
    author_systems: list[str] = []
    author_prefix: str = ""
    structure_systems: list[str] = []
    structure_prefix: str = ""
    status: dict[str, str] = {}


class IdentifierSpec(Spec):
    about: str = ""
    example: str = ""
    pattern: str = Field(min_length=1)
    check: Literal["luhn", "mod97"] | None = None
    letters: dict[str, str] = {}
    subjects: list[str] = []
    targets: list[str] = []
    paths: list[str] = []


class DirectorySpec(Spec):
    """Of which people a directory speaks: those whose identifiers have this format."""

    identifier: str


class AdmissionPatientSpec(Spec):
    at: str
    systems: list[str] = Field(min_length=1)
    identifier: str


class AdmissionStructureSpec(Spec):
    at: str
    authorities: list[str] = []
    identifier: str


class AdmissionFieldSpec(Spec):
    codes: dict[str, str] = Field(min_length=1)
    date: str | None = None


class AdmissionSpec(Spec):
    """What admission messages (HL7v2) mean: `engine.consent.admissions`."""

    messages: list[str] = Field(min_length=1)
    segments: list[str]
    subject: dict[str, str]
    context: dict[str, str] = {}
    patient: AdmissionPatientSpec
    structure: AdmissionStructureSpec
    action: dict[str, dict[str, str | dict[str, str]]] = {}
    places: dict[str, AdmissionFieldSpec] = Field(alias="field", min_length=1)


class ServiceSpec(Spec):
    """What the service asks the policy before it shows something of a record: an action for each, and what is left out is not offered.

    `previewed`: the action of which a preview says how it would be decided. `known_documents`: obligations that are met, among traces, by leaving out those of
    documents.
    """

    access_list: str | None = None
    traces: str | None = None
    preview: str | None = None
    previewed: str | None = None
    known_documents: list[str] = []


class PackSpec(Spec):
    pack: PackHead
    default: dict[str, str] = {}
    discreet: dict[str, str] = {}
    setting: dict[str, SettingSpec] = {}
    obligation: dict[str, ObligationSpec] = {}
    fhir: FhirSpec = FhirSpec()
    identifier: dict[str, IdentifierSpec] = {}
    directory: DirectorySpec | None = None
    admission: AdmissionSpec | None = None
    service: ServiceSpec = ServiceSpec()


class SettingTest(Spec):
    """A value that depends on a setting: true when it is `equals`."""

    setting: str
    equals: Scalar = Field(alias="is")


class ConditionRef(Spec):
    condition: str


def _meaning_tag(value: Any) -> str:
    if not isinstance(value, dict):
        return "a word"
    return "a condition" if "condition" in value else "a setting"


Meaning = Annotated[
    Annotated[Word, Tag("a word")] | Annotated[SettingTest, Tag("a setting")] | Annotated[ConditionRef, Tag("a condition")], Discriminator(_meaning_tag)
]
"""What a letter of a grid stands for. Told apart by its keys, so that a mistake in one shape is not reported as a mistake in all."""


class ColumnSpec(Spec):
    of: str
    code_list: str = Field(alias="list")
    column: str


class FactSpec(Spec):
    about: str = Field(min_length=1)
    from_: str = Field(default="", alias="from")
    changeable: bool = False
    absent: Word
    unknown: Word | None = None


class GivenSpec(FactSpec):
    form: Literal["given"]
    of: str
    values: list[str] | None = None
    text: bool = False


class SameSpec(FactSpec):
    form: Literal["same"]
    of: list[str] = Field(min_length=2, max_length=2)


class MemberSpec(FactSpec):
    form: Literal["member"]
    of: str
    among: list[str] = Field(alias="in", min_length=1)
    several: bool = False


class HeldSpec(FactSpec):
    form: Literal["held"]
    kind: str
    of: Annotated[dict[str, str], Field(min_length=1)] | Literal["everybody"]
    where: dict[str, str] = Field(default={}, alias="with")
    narrowed: dict[str, str] = {}
    via: str | None = None
    ended: bool = False


class ElapsedSpec(FactSpec):
    form: Literal["elapsed"]
    since: str
    at_least: dict[Literal["days", "months", "years"], StrictStr | StrictInt] = Field(min_length=1, max_length=1)


class CodedSpec(FactSpec):
    form: Literal["coded"]
    of: str
    codes: dict[str, Word] | None = None
    code_list: str | None = Field(default=None, alias="list")
    column: str | None = None
    among: list[str] | None = Field(default=None, alias="in")
    several: bool = False
    values: list[str] | None = None


class CellSpec(FactSpec):
    form: Literal["cell"]
    grid: str
    row: str
    column: ColumnSpec | None = None
    column_is: str | None = None
    letters: dict[str, Meaning]
    values: list[str] | None = None


AnyFact = Annotated[
    GivenSpec | SameSpec | MemberSpec | HeldSpec | ElapsedSpec | CodedSpec | CellSpec,
    Field(discriminator="form"),
]


class KindSpec(Spec):
    targets: list[str] = Field(min_length=1)
    intervals: list[str] = []
    properties: list[str] = []
    narrows: dict[str, Annotated[list[str], Field(min_length=1)]] = {}
    dates: list[str] = []
    words: dict[str, Annotated[list[str], Field(min_length=1)]] = {}
    rows: dict[str, str] = {}
    not_after: dict[str, Annotated[list[str], Field(min_length=1)]] = {}
    ends: list[str] = []
    group: str | None = None


class ActSpec(Spec):
    kind: str
    when: str = ""
    withdraw: bool = False
    target: str | dict[str, str] | None = None
    from_: Literal["now"] | None = Field(default=None, alias="from")
    until: str | None = None
    days: str | None = None
    properties: dict[str, str] = {}
    required: list[str] = []


class GridSpec(Spec):
    file: str
    letters: dict[str, Literal["published", "inferred", "derived"]]
    provenance: str | None = None


class ListSpec(Spec):
    file: str


class VocabularySpec(Spec):
    subjects: list[str] = Field(min_length=1)
    actions: dict[str, list[str]] = Field(min_length=1)
    alias: dict[str, dict[str, str]] = {}
    kind: dict[str, KindSpec] = {}
    grid: dict[str, GridSpec] = {}
    code_list: dict[str, ListSpec] = Field(default={}, alias="list")
    condition: dict[str, str] = {}
    act: dict[str, list[ActSpec]] = {}
    fact: dict[str, dict[str, AnyFact]]
    impossible: dict[str, str] = {}
