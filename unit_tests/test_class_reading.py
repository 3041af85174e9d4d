"""Class reading: what a caller's class makes of values, and when it makes the same of two."""

import dataclasses
import datetime as dt
import enum
import ipaddress
import pathlib
import uuid
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NotRequired

import pytest
from pydantic import (
    AliasChoices,
    AnyUrl,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    SecretStr,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic.v1 import BaseModel as BaseModelV1
from pydantic.v1 import Field as FieldV1
from typing_extensions import TypedDict

from langchain_rlfocal.answers.schemas import Schema, reader_of


def schema_of(kind):
    rules = kind.model_json_schema() if hasattr(kind, "model_json_schema") else {}
    return Schema(rules, reader_of(kind))


def of(**fields):
    """A schema of a class with one field for each type; a pair is a type and a default."""
    body = {name: one[1] for name, one in fields.items() if isinstance(one, tuple)}
    hints = {name: one[0] if isinstance(one, tuple) else one for name, one in fields.items()}
    return schema_of(type("Made", (BaseModel,), {**body, "__annotations__": hints}))


def same(schema, one, other):
    readings = [schema.read(value) for value in (one, other)]
    assert [reading.fault for reading in readings] == [None, None]
    return schema.label(readings[0].value) == schema.label(readings[1].value)


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Point(NamedTuple):
    x: int
    y: int


class Node(BaseModel):
    name: str
    children: list["Node"] = []
    note: str | None = None


# ---- what is one value in two spellings, and what is not


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        (Decimal, "19.99", 19.99), (Decimal, "19.990", "19.99"), (list[Decimal], ["20.00", 3], [20.0, "3.0"]),
        (dict[str, Decimal], {"a": "1.0", "b": 2}, {"b": "2", "a": 1}), (dict[int, str], {"1": "x"}, {"01": "x"}),
        (int, "3", 3.0), (float, 1, "1.0"), (bool, "yes", True),
        (dt.datetime, "2024-05-01T12:00:00Z", "2024-05-01T12:00:00+00:00"),
        (dt.datetime, "2024-05-01T12:00:00Z", "2024-05-01T14:00:00+02:00"),
        (dt.datetime, "2024-05-01T12:00:00Z", 1714564800), (dt.datetime, "2024-05-01 12:00", "2024-05-01T12:00:00.000"),
        (dt.date, "2024-05-01", "2024-05-01T00:00:00"), (dt.time, "12:00", "12:00:00"), (dt.timedelta, "PT60S", 60),
        (Color, "red", "RED"), (Color, "red", " Red"), (Level, "HIGH", 2),
        (list[Level | None], ["low", None], [1, None]), (Literal["yes", "no"], "yes", "YES"),
        (uuid.UUID, "C0FFEE00-0000-4000-8000-000000000000", "c0ffee00000040008000000000000000"),
        (set[str], ["a", "b"], ["b", "a", "a"]), (frozenset[Decimal], ["1", "2.0"], [2, 1.0]),
        (tuple[int, str], ["1", "x"], [1, "x"]), (Point, {"x": 1, "y": 2}, [1, "2"]), (bytes, "abc", "abc"),
        (AnyUrl, "http://a.org", "http://a.org/"), (ipaddress.IPv6Address, "::1", "0:0:0:0:0:0:0:1"),
        (pathlib.Path, "a/b", "a//b"), (SecretStr, "x", "x"), (str, "Andr\u00e9", "Andre\u0301"),
        (list[str], ["Rome ", "New  York"], ["rome", "New York"]),
        (Node, {"name": "r", "children": [{"name": "x"}]}, {"name": "r", "children": [{"name": "x", "children": [], "note": None}]}),
    ],
)  # fmt: skip
def test_what_the_class_makes_the_same_is_the_same(kind, one, other):
    assert same(of(field=kind), {"field": one}, {"field": other})


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        (Decimal, "19.99", "19.9900001"), (Decimal, "1" * 60, "1" * 59 + "2"), (int, 10**60, 10**60 + 1),
        (dt.datetime, "2024-05-01T12:00:00Z", "2024-05-01T12:00:00"),
        (dt.datetime, "2024-05-01T12:00:00Z", "2024-05-01T12:00:00+02:00"),
        (dt.datetime, "2024-05-01T12:00:00Z", "2024-05-01T12:00:00.000001Z"),
        (dt.datetime, "0001-01-01T00:00:00+05:00", "0001-01-01T00:00:00+06:00"), (Color, "red", "green"),
        (Literal["a", "A"], "a", "A"), (Annotated[str, Field(pattern="^[aA]$")], "a", "A"),
        (list[str], ["a", "b"], ["b", "a"]), (set[str], ["a"], ["a", "b"]), (SecretStr, "x", "y"),
        (pathlib.Path, "a/b", "A/b"), (dt.timedelta, 60, 61), (str, "a", "b"), (Any, "1", 1), (int | str, "1", 1),
        (Node, {"name": "r"}, {"name": "r", "note": "x"}),
    ],
)  # fmt: skip
def test_what_the_class_makes_different_is_different(kind, one, other):
    assert not same(of(field=kind), {"field": one}, {"field": other})


def test_what_is_absent_is_its_default():
    schema = of(n=(int, 3), note=(str | None, None), tags=(list[str], []))

    assert same(schema, {}, {"n": "3", "note": None, "tags": []})
    assert not same(schema, {}, {"n": 4})
    assert schema.read({}).value == {"n": 3, "note": None, "tags": []}


def test_a_default_that_differs_from_time_to_time_says_nothing():
    class Entry(BaseModel):
        id: uuid.UUID = Field(default_factory=uuid.uuid4)
        tags: list[str] = Field(default_factory=list)
        copy_of: str = Field(default_factory=lambda data: data["name"])
        name: str

    schema = schema_of(Entry)
    assert same(schema, {"name": "x", "copy_of": "x"}, {"name": "x", "copy_of": "x", "tags": []})
    assert "id" not in schema.read({"name": "x", "copy_of": "x"}).value


# ---- classes of every kind


class Priced(BaseModel):
    amount: Decimal
    n: int = 3


class PricedV1(BaseModelV1):
    amount: Decimal = FieldV1(alias="Amount")
    n: int = 3
    inner: list[dict[str, Decimal]] = []


class Part(TypedDict, total=False):
    amount: Decimal


class PricedDict(TypedDict):
    amount: Annotated[Decimal, ..., "How much."]
    n: Annotated[int, 3, "How many."]
    parts: NotRequired[list[Part]]


@dataclasses.dataclass
class PricedClass:
    amount: Decimal
    n: int = 3
    tags: list[str] = dataclasses.field(default_factory=list)


@pytest.mark.parametrize("kind", [Priced, PricedV1, PricedDict, PricedClass])
def test_classes_of_every_kind_read(kind):
    name = "Amount" if kind is PricedV1 else "amount"
    schema = Schema({}, reader_of(kind))

    assert same(schema, {name: "20.00"}, {name: 20.0, "n": "3"})
    assert not same(schema, {name: "20.00"}, {name: 20.0, "n": 4})
    assert "amount" in schema.read({name: "much"}).fault.lower()
    assert schema.read({}).fault is not None
    assert schema.write(schema.read({name: "20.00"}).value)[name] == "20.00"


def test_what_a_typed_dict_may_lack_stays_absent_at_every_depth():
    schema = Schema({}, reader_of(PricedDict))
    value = {"amount": 1, "parts": [{}, {"amount": "2.0"}]}

    assert schema.write(schema.read(value).value) == {"amount": "1", "n": 3, "parts": [{}, {"amount": "2.0"}]}
    assert not same(schema, value, {"amount": 1, "parts": [{}, {}]})
    assert not same(schema, value, {"amount": 1})


def test_aliases_are_written_as_the_class_reads_them():
    class Named(BaseModel):
        model_config = ConfigDict(populate_by_name=True)
        full_name: str = Field(alias="fullName")
        age: int = Field(0, validation_alias=AliasChoices("age_years", "age"), serialization_alias="old")

    schema = schema_of(Named)
    assert same(schema, {"fullName": "Ann", "age": 3}, {"full_name": "ann", "age_years": "3"})
    assert schema.write(schema.read({"full_name": "Ann", "age": 3}).value) == {"fullName": "Ann", "age_years": 3}


def test_extra_properties_count_where_the_class_keeps_them():
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        n: int

    assert not same(schema_of(Open), {"n": 1}, {"n": 1, "more": 2})
    assert same(of(n=int), {"n": 1}, {"n": 1, "more": 2})


def test_a_root_model_is_what_it_holds():
    kind = type("Numbers", (RootModel[list[Decimal]],), {})
    schema = Schema({"type": "array"}, reader_of(kind))

    assert same(schema, ["1.0"], [1])
    assert schema.write(schema.read(["1.0"]).value) == ["1.0"]


# ---- validators


class Dollars(BaseModel):
    amount: Decimal

    @field_validator("amount", mode="before")
    @classmethod
    def _plain(cls, value):
        return value.strip("$").replace(",", "") if isinstance(value, str) else value


class Cents(BaseModel):
    amount: int

    @field_validator("amount", mode="before")
    @classmethod
    def _times_100(cls, value):
        return round(float(str(value).strip("$")) * 100)


def test_the_classes_own_validators_see_a_value_before_its_schema():
    assert same(schema_of(Dollars), {"amount": "$1,234.50"}, {"amount": 1234.5})
    assert schema_of(Dollars).read({"amount": "much"}).fault.startswith("`amount`: ")


def test_what_would_be_read_otherwise_a_second_time_is_not_written():
    schema = schema_of(Cents)

    assert same(schema, {"amount": "$19.99"}, {"amount": 19.99})
    assert schema.write(schema.read({"amount": "$19.99"}).value) is None


def test_serializers_decide_nothing():
    class Year(BaseModel):
        day: dt.date

        @field_serializer("day")
        def _year(self, day):
            return day.year

    assert not same(schema_of(Year), {"day": "2024-05-01"}, {"day": "2024-05-02"})


def _raise(error):
    raise error


@pytest.mark.parametrize(
    "strange",
    [
        lambda: _raise(KeyError("odd")),
        lambda: _raise(StopIteration()),
        lambda: _raise(ValueError("\x1b[31m\ud800 many\nlines sk-abcdefghijklmnop " + "x" * 1000)),
        lambda: Loop.model_validate({"n": 1}),
    ],
)
def test_whatever_a_validator_raises_is_a_fault(strange):
    class Strange(BaseModel):
        n: int

        @model_validator(mode="before")
        @classmethod
        def _odd(cls, value):
            return strange() if value["n"] == 1 else value

    schema = schema_of(Strange)
    fault = schema.read({"n": 1}).fault
    assert 0 < len(fault) <= 200
    assert fault.isprintable()
    assert "sk-a" not in fault
    assert schema.read({"n": 2}).fault is None


class Loop(BaseModel):
    n: int

    @field_validator("n", mode="before")
    @classmethod
    def _again(cls, value):
        return cls._again(value)


def test_a_validator_cannot_change_the_value_that_it_is_given():
    class Greedy(BaseModel):
        n: int

        @model_validator(mode="before")
        @classmethod
        def _take(cls, value):
            return {"n": value.pop("n")}

    value = {"n": 1}
    assert schema_of(Greedy).read(value).value == {"n": 1}
    assert value == {"n": 1}


def test_a_class_that_makes_what_nobody_knows_has_its_values_compared_as_written():
    class Handle:
        def __init__(self, name):
            self.name = name

    class Holder(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        handle: Annotated[Any, Field()]

        @field_validator("handle")
        @classmethod
        def _open(cls, value, info: ValidationInfo):
            return Handle(value)

    schema = Schema({}, reader_of(Holder))
    assert same(schema, {"handle": "a"}, {"handle": "A "})
    assert not same(schema, {"handle": "1"}, {"handle": 1})
    assert schema.write(schema.read({"handle": "a"}).value) == {"handle": "a"}
