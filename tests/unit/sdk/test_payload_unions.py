"""Unions: told apart by JSON where that is enough, else by name, and never by guessing."""

from datetime import UTC, date, datetime, timedelta
from enum import Enum
from typing import Any, Literal, Optional, Union
from uuid import UUID

import pytest
from attrs import frozen

from aiki_sdk import CONVERTER, JsonValue, PayloadError


class Colour(Enum):
    RED = "red"


@frozen
class Cat:
    name: str


@frozen
class Dog:
    name: str


class Other:
    @frozen
    class Cat:
        lives: int


UNTAGGED: list[tuple[Any, Any, JsonValue]] = [
    (None, Cat | None, None),
    (
        Cat("Tom"),
        Optional[Cat],  # noqa: UP045  # the old spelling
        {"name": "Tom"},
    ),
    (1, Union[int, str], 1),  # noqa: UP007  # the old spelling
    ("1", int | str, "1"),
    (True, bool | int, True),
    (1, bool | int, 1),
    (1.0, int | float, 1.0),
    (1, int | float, 1),
    (1, float | str, 1.0),
    ("a", Literal["a", "b"] | int, "a"),
    (5, Literal["a"] | int, 5),
    ("x", Literal["a"] | str, "x"),  # noqa: PYI051  # allowed, if odd
    (None, Literal["a", None] | int, None),  # noqa: PYI061  # the other spelling
    (date(2026, 1, 2), date | int, "2026-01-02"),
    ([1], list[int] | dict[str, int], [1]),
    ({"a": 1}, list[int] | dict[str, int], {"a": 1}),
    (Cat("Tom"), Cat | str | int | None, {"name": "Tom"}),
    (UUID(int=1), Literal["none"] | UUID, "00000000-0000-0000-0000-000000000001"),
    ("none", Literal["none"] | UUID, "none"),
    ([Cat("a"), None], list[Cat | None], [{"name": "a"}, None]),
]

TAGGED: list[tuple[Any, Any, JsonValue]] = [
    (Dog("Rex"), Cat | Dog, {"$type": "Dog", "name": "Rex"}),
    (Cat("Tom"), Cat | Dog | None, {"$type": "Cat", "name": "Tom"}),
    (None, Cat | Dog | None, None),
    ("x", str | date, "x"),
    (date(2026, 1, 2), str | date, {"$type": "date", "value": "2026-01-02"}),
    (Colour.RED, str | Colour, {"$type": "Colour", "value": "red"}),
    (Cat("Tom"), str | date | Cat, {"$type": "Cat", "name": "Tom"}),
    ({"$type": "Cat"}, Cat | dict[str, str], {"$type": "dict", "value": {"$type": "Cat"}}),
    (Cat("Tom"), Cat | dict[str, str], {"$type": "Cat", "name": "Tom"}),
    ({1}, list[int] | set[int], {"$type": "set", "value": [1]}),
    ([1], list[int] | set[int], {"$type": "list", "value": [1]}),
    (timedelta(seconds=1), timedelta | int, {"$type": "timedelta", "value": 1.0}),
    (1, timedelta | int, 1),
    (Other.Cat(9), Cat | Other.Cat, {"$type": f"{__name__}.Other.Cat", "lives": 9}),
    (Cat("Tom"), Cat | Other.Cat, {"$type": f"{__name__}.Cat", "name": "Tom"}),
]


@pytest.mark.parametrize(("value", "type_", "json"), [*UNTAGGED, *TAGGED])
def test_a_member_travels_and_comes_back_as_itself(value: Any, type_: Any, json: JsonValue) -> None:
    converted = CONVERTER.to_json(value, type_)
    assert converted == json
    assert type(converted) is type(json)
    back = CONVERTER.from_json(converted, type_)
    assert back == value
    assert type(back) is type(value) or (type_ == float | str and back == value)


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (True, int | str),
        (True, int | None),
        (True, float | str),
        (Dog("x"), Cat | None),
        (Dog("x"), Cat | str),
        (1.5, int | str),
        ("c", Literal["a"] | int),
        (None, Cat | Dog),
        (b"x", int | str),
    ],
)
def test_a_value_of_no_member_is_refused(value: Any, type_: Any) -> None:
    with pytest.raises(PayloadError, match="expected"):
        CONVERTER.to_json(value, type_)


@pytest.mark.parametrize(
    ("json", "type_"),
    [
        (True, int | str),
        (1.5, int | str),
        ({"name": "x"}, Cat | Dog),
        ({"$type": "Cow", "name": "x"}, Cat | Dog),
        ({"$type": ["Cat"], "name": "x"}, Cat | Dog),
        ({"$type": "date"}, str | date),
        ([], int | str),
        ("c", Literal["a"] | int),
        (None, int | str),
    ],
)
def test_json_of_no_member_is_refused(json: Any, type_: Any) -> None:
    with pytest.raises(PayloadError, match=r"expected|missing"):
        CONVERTER.from_json(json, type_)


def test_the_message_lists_the_members() -> None:
    with pytest.raises(PayloadError, match=r"must be one of Cat, Dog"):
        CONVERTER.from_json({}, Cat | Dog)
    with pytest.raises(PayloadError, match=r"expected int \| str, got"):
        CONVERTER.to_json(b"", int | str)


@pytest.mark.parametrize("type_", [list[int] | list[str], dict[str, int] | dict[str, str]])
def test_members_that_cannot_be_told_apart_are_refused(type_: Any) -> None:
    with pytest.raises(PayloadError, match="cannot be told apart"):
        CONVERTER.to_json([], type_)


def test_a_union_with_any_is_any() -> None:
    assert CONVERTER.to_json({"a": Cat("x")}, Any | None) == {"a": {"name": "x"}}


def test_the_form_depends_on_the_type_alone() -> None:
    """Declaring the members in another order changes nothing."""
    for value in (Cat("a"), Dog("b"), "s", datetime(2026, 1, 1, tzinfo=UTC)):
        assert CONVERTER.to_json(value, Cat | str | Dog | datetime) == CONVERTER.to_json(
            value, datetime | Dog | Cat | str
        )
