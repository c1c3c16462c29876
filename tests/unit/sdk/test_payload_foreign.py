"""Pydantic models and msgspec structs travel; without their libraries nothing of them is loaded."""

import subprocess
import sys
from datetime import date
from typing import Any
from uuid import UUID

import msgspec
import pydantic
import pytest
from attrs import frozen

from aiki_sdk import CONVERTER, PayloadError, dumps, loads


class Address(pydantic.BaseModel):
    street: str
    zip_code: str = pydantic.Field(alias="zip")
    seen: set[str] = set()


class Person(pydantic.BaseModel):
    name: str
    born: date
    home: Address | None = None
    score: float = 0.0


class Bird(msgspec.Struct, frozen=True):
    name: str
    id: UUID
    songs: frozenset[str] = frozenset()
    weight: float = 1.0


class Pair(msgspec.Struct, array_like=True):
    left: int
    right: int


@frozen
class Zoo:
    keeper: Person
    birds: list[Bird]


PERSON = Person(
    name="Ann",
    born=date(2000, 1, 2),
    home=Address(street="High", zip="1", seen={"b", "a", "c"}),
)
BIRD = Bird("Tit", UUID(int=1), frozenset({"x", "w", "v"}))


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (PERSON, Person),
        (BIRD, Bird),
        (Pair(1, 2), Pair),
        (Zoo(PERSON, [BIRD]), Zoo),
        (BIRD, Bird | None),
        (PERSON, Person | Zoo),
        (BIRD, Person | Bird),
    ],
)
def test_a_foreign_value_comes_back_equal(value: Any, type_: Any) -> None:
    json = CONVERTER.to_json(value, type_)
    assert CONVERTER.from_json(loads(dumps(json)), type_) == value


def test_their_sets_are_sorted() -> None:
    person: Any = CONVERTER.to_json(PERSON, Person)
    assert person["home"]["seen"] == ["a", "b", "c"]
    bird: Any = CONVERTER.to_json(BIRD, Bird)
    assert bird["songs"] == ["v", "w", "x"]


@pytest.mark.parametrize(
    ("value", "type_", "message"),
    [
        (PERSON.model_copy(update={"score": float("nan")}), Person, "JSON|float"),
        (Bird("Tit", UUID(int=1), weight=float("inf")), Bird, "JSON has no such number"),
        (Bird(object(), UUID(int=1)), Bird, "value"),  # type: ignore[arg-type]
        ({}, Person, "expected .*Person, got dict"),
        ({}, Bird, "expected .*Bird, got dict"),
    ],
)
def test_what_json_cannot_hold_is_refused(value: Any, type_: Any, message: str) -> None:
    with pytest.raises(PayloadError, match=message):
        CONVERTER.to_json(value, type_)


@pytest.mark.parametrize(
    ("json", "type_", "message"),
    [
        ({"name": "A", "born": "x"}, Person, r"value\.born: "),
        (
            {"name": "A", "born": "2000-01-01", "home": {"street": 1}},
            Person,
            r"value\.home\.street",
        ),
        ({"name": 1, "id": "x"}, Bird, r"value\.name: Expected `str`, got `int`"),
        ([1], Pair, "value: "),
    ],
)
def test_json_that_does_not_fit_is_named_by_place(json: Any, type_: Any, message: str) -> None:
    with pytest.raises(PayloadError, match=message):
        CONVERTER.from_json(json, type_)


def test_importing_the_sdk_loads_neither_library() -> None:
    program = (
        "import sys, aiki_sdk.payload, aiki_sdk._task; "
        "print(sorted({'pydantic', 'msgspec'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
