"""Payload conversion, type by type: what travels, in which form, and how the rest is refused."""

import enum
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    TypedDict,
    TypeVar,
)
from uuid import UUID

import attrs
import pytest
from attrs import define, frozen

from aiki_sdk import CONVERTER, JsonValue, PayloadConverter, PayloadError, dumps, loads

T = TypeVar("T")
OrderId = NewType("OrderId", str)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Rights(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Odd(enum.Enum):
    PAIR = (1, 2)
    ONE = "1"


@frozen
class Item:
    price: int
    name: str = "thing"


@frozen
class Order:
    id: OrderId
    items: list[Item]
    note: str | None = None


@frozen
class PricedItem(Item):
    tax: int = 0


@dataclass
class Point:
    x: float
    y: float = 0.0
    tags: list[str] = field(default_factory=list)


@frozen
class Box(Generic[T]):
    content: T
    more: list[T] = attrs.field(factory=list)


@frozen
class IntBox(Box[int]):
    label: str = ""


@frozen
class Relabelled(Box[int], Generic[T]):
    extra: T | None = None


@frozen
class Node:
    value: int
    next: "Node | None" = None
    children: "list[Node]" = attrs.field(factory=list)


@define
class Private:
    _secret: int
    computed: int = attrs.field(init=False, default=7)
    kw: str = attrs.field(kw_only=True, default="k")


@frozen
class Awkward:
    """Fields with the names of parameters of the code generator."""

    cl: int
    converter: str = "c"


@frozen
class Even:
    number: int

    def __attrs_post_init__(self) -> None:
        if self.number % 2:
            message = f"{self.number} is odd"
            raise ValueError(message)


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Pair(NamedTuple):
    left: int
    right: str = "r"


ROUND_TRIPS: list[tuple[Any, Any, JsonValue]] = [
    (None, None, None),
    (True, bool, True),
    (3, int, 3),
    (2**90, int, 2**90),
    (Level.HIGH, int, 2),
    (3, float, 3.0),
    ("x", str, "x"),
    ("x", OrderId, "x"),
    (3, Annotated[int, "positive"], 3),
    (datetime(2026, 1, 2, tzinfo=UTC), datetime, "2026-01-02T00:00:00.000000+00:00"),
    (date(2026, 1, 2), date, "2026-01-02"),
    (time(1, 2, 3, 4), time, "01:02:03.000004"),
    (timedelta(minutes=1, milliseconds=500), timedelta, 60.5),
    (timedelta.max, timedelta, "PT86399999999999.999999S"),
    (timedelta.min, timedelta, -86399999913600.0),
    (UUID(int=5), UUID, "00000000-0000-0000-0000-000000000005"),
    (Decimal("1E+3"), Decimal, "1E+3"),
    (b"\x00\xff", bytes, "AP8="),
    (bytearray(b"ab"), bytearray, "YWI="),
    (Colour.RED, Colour, "red"),
    (Level.LOW, Level, 1),
    (Rights.READ | Rights.WRITE, Rights, 3),
    (Odd.PAIR, Odd, "PAIR"),
    (Odd.ONE, Odd, "ONE"),
    ("a", Literal["a", "b"], "a"),
    (Colour.BLUE, Literal[Colour.BLUE, 1], "blue"),
    ([1, 2], list[int], [1, 2]),
    ([1, "a", None], list, [1, "a", None]),
    ((1, "a"), tuple[int, str], [1, "a"]),
    ((1, 2, 3), tuple[int, ...], [1, 2, 3]),
    ((), tuple[()], []),
    ((1, 2), tuple, [1, 2]),
    (deque([1]), deque[int], [1]),
    ({3, 10, 2}, set[int], [10, 2, 3]),
    (frozenset({"b", "a"}), frozenset[str], ["a", "b"]),
    ({"a": 1}, dict[str, int], {"a": 1}),
    ({-1: "a"}, dict[int, str], {"-1": "a"}),
    ({Colour.RED: 1}, dict[Colour, int], {"red": 1}),
    ({Level.HIGH: 1}, dict[Level, int], {"2": 1}),
    ({UUID(int=0): 1}, dict[UUID, int], {"00000000-0000-0000-0000-000000000000": 1}),
    ({date(2026, 1, 2): 1}, dict[date, int], {"2026-01-02": 1}),
    ([1], Sequence[int], [1]),
    ([1], Iterable[int], [1]),
    ({"a": 1}, Mapping[str, int], {"a": 1}),
    (Item(3), Item, {"price": 3, "name": "thing"}),
    (
        Order(OrderId("o"), [Item(1)]),
        Order,
        {"id": "o", "items": [{"price": 1, "name": "thing"}], "note": None},
    ),
    (PricedItem(1, tax=2), PricedItem, {"price": 1, "name": "thing", "tax": 2}),
    (Point(1, 2, ["a"]), Point, {"x": 1.0, "y": 2.0, "tags": ["a"]}),
    (Box(1, [2]), Box[int], {"content": 1, "more": [2]}),
    (Box(Item(1)), Box[Item], {"content": {"price": 1, "name": "thing"}, "more": []}),
    (Box(Box("x")), Box[Box[str]], {"content": {"content": "x", "more": []}, "more": []}),
    (IntBox(1, label="l"), IntBox, {"content": 1, "more": [], "label": "l"}),
    (Relabelled(1, extra="e"), Relabelled[str], {"content": 1, "more": [], "extra": "e"}),
    (
        Node(1, Node(2), [Node(3)]),
        Node,
        {
            "value": 1,
            "next": {"value": 2, "next": None, "children": []},
            "children": [{"value": 3, "next": None, "children": []}],
        },
    ),
    (Private(5, kw="x"), Private, {"_secret": 5, "kw": "x"}),
    (Awkward(1, "d"), Awkward, {"cl": 1, "converter": "d"}),
    ({"title": "Alien"}, Movie, {"title": "Alien"}),
    ({"title": "Alien", "year": 1979}, Movie, {"title": "Alien", "year": 1979}),
    (Pair(1, "b"), Pair, [1, "b"]),
    ({"a": [1, None]}, Any, {"a": [1, None]}),
    ([{"x": 1}], JsonValue, [{"x": 1}]),
]


def shown(value: object) -> str:
    """Name a value the same in every process: the order of a set of texts is another in each."""
    text = str(sorted(value)) if isinstance(value, set | frozenset) else str(value)
    return text[:40]


@pytest.mark.parametrize(("value", "type_", "json"), ROUND_TRIPS, ids=shown)
def test_a_type_travels_in_its_one_form(value: Any, type_: Any, json: JsonValue) -> None:
    converted = CONVERTER.to_json(value, type_)
    assert converted == json
    assert type(converted) is type(json)
    back = CONVERTER.from_json(loads(dumps(converted)), type_)
    assert back == value
    if type_ not in (int, float, Iterable[int]):
        assert type(back) is type(value)


REFUSED_VALUES: list[tuple[Any, Any, str]] = [
    (True, int, "value: expected int, got bool"),
    ("3", int, "value: expected int, got str"),
    (1, bool, "value: expected bool, got int"),
    (1, str, "value: expected str, got int"),
    (True, float, "value: expected float, got bool"),
    (float("nan"), float, "nan is not a JSON number"),
    (10**400, float, "too large for a float"),
    (float("inf"), Any, "inf is not a JSON number"),
    (Decimal("NaN"), Decimal, "NaN is not a number"),
    (datetime(2026, 1, 1, tzinfo=UTC), date, "expected datetime.date, got datetime.datetime"),
    ("abc", list[str], "expected list, got str"),
    ([1, "a"], list[int], r"value\[1\]: expected int, got str"),
    ((1,), tuple[int, str], "expected 2 members, got 1"),
    ([1], set[int], "expected set, got list"),
    ({"a": "x"}, dict[str, int], r"value\['a'\]: expected int, got str"),
    ({1: 2}, dict[str, int], r"value\[1\]: as a key: expected str, got int"),
    ({1: 2}, Any, "the key 1 is not a str.*dict"),
    ({"a": {1, object()}}, Any, r"value\['a'\]\{…\}: object cannot travel"),
    (Order(OrderId("o"), [Item(1), Item("x")]), Order, r"value\.items\[1\]\.price: expected int"),  # type: ignore[arg-type]
    (Node(1, Node(2, Node("x"))), Node, r"value\.next\.next\.value: expected int"),  # type: ignore[arg-type]
    (PricedItem(1), Item, "would lose its own fields as a .*Item"),
    (Point(1), Item, "expected .*Item, got .*Point"),
    ("green", Literal["red"], "expected one of 'red'"),
    (True, Literal[1], "expected one of 1"),
    ([], Literal[1], "expected one of 1"),
    ({"title": "A", "length": 1}, Movie, "declares no 'length'"),
    ({"year": 1}, Movie, r"value\.title: missing"),
    (1, Colour, "expected .*Colour, got int"),
    (object(), Any, "object cannot travel"),
    (print, Any, "cannot travel"),
    (Item, Any, "cannot travel"),
    ({"a": [Item(1), open]}, Any, r"value\['a'\]\[1\]: .*cannot travel"),
]


@pytest.mark.parametrize(("value", "type_", "message"), REFUSED_VALUES)
def test_a_value_that_does_not_fit_is_named_by_place(value: Any, type_: Any, message: str) -> None:
    with pytest.raises(PayloadError, match=message):
        CONVERTER.to_json(value, type_)


REFUSED_JSON: list[tuple[Any, Any, str]] = [
    (True, int, "expected an integer, got a boolean"),
    (1.0, int, "expected an integer, got a number"),
    ("1", int, "expected an integer, got a string"),
    (1, bool, "expected a boolean, got an integer"),
    (None, str, "expected a string, got null"),
    ("1", float, "expected a number, got a string"),
    (0, None, "expected null, got an integer"),
    ("x", datetime, "expected an ISO 8601 date and time, got another string"),
    (1, datetime, "expected an ISO 8601 date and time, got an integer"),
    ("2026-13-01", date, "expected an ISO 8601 date"),
    ("P1Y", timedelta, "expected a duration"),
    ("P", timedelta, "expected a duration"),
    (1e300, timedelta, "expected a duration"),
    ("zz", UUID, "expected a UUID"),
    ("1,5", Decimal, "expected a decimal number"),
    ("Infinity", Decimal, "expected a decimal number"),
    ("%%%", bytes, "expected base64"),
    ("green", Colour, "not a value of .*Colour"),
    (True, Level, "expected a value of .*Level, got a boolean"),
    (3, Level, "not a value of .*Level"),
    ([], Colour, "expected a value of .*Colour, got a list"),
    ("red", Rights, "expected a value of .*Rights, got a string"),
    ("THREE", Odd, "not the name of a member"),
    ({}, list[int], "expected a list, got an object"),
    ([1], dict[str, int], "expected an object, got a list"),
    ({"x": 1}, dict[int, int], r"value\['x'\]: as a key: expected digits"),
    ({"01": 1}, dict[int, int], "as a key: expected digits"),
    ([1, 2], tuple[int], "expected 1 members, got 2"),
    ([[1]], set[list[int]], "members of a set must be hashable"),
    ([1, "x"], set[int], r"value\[1\]: expected an integer"),
    ([], Item, "expected an object"),
    ({}, Item, r"value\.price: missing"),
    ({"price": 1, "name": 2}, Item, r"value\.name: expected a string"),
    (
        {"id": "a", "items": [{"price": "x"}]},
        Order,
        r"value\.items\[0\]\.price: expected an integer",
    ),
    ({"number": 3}, Even, "Even refused it: ValueError: 3 is odd"),
    ({"title": 1}, Movie, r"value\.title: expected a string"),
    ([1, 2], Pair, r"value\.right: expected a string"),
    ("c", Literal["a", "b"], "expected one of 'a', 'b'"),
    ({"cl": "x"}, Awkward, r"value\.cl: expected an integer"),
]


@pytest.mark.parametrize(("json", "type_", "message"), REFUSED_JSON)
def test_json_that_does_not_fit_is_named_by_place(json: Any, type_: Any, message: str) -> None:
    with pytest.raises(PayloadError, match=message):
        CONVERTER.from_json(json, type_)


class Opaque:
    pass


@frozen
class Holder:
    thing: Opaque


@pytest.mark.parametrize(
    ("type_", "message"),
    [
        (Opaque, "Opaque cannot travel; use attrs classes"),
        (list[Opaque], "Opaque cannot travel"),
        (Holder, r"Holder\.thing: .*Opaque cannot travel"),
        (dict[float, int], "float cannot be the key of a JSON object"),
        (dict[Item, int], "Item cannot be the key"),
        (type, "cannot travel"),
    ],
)
def test_a_type_that_cannot_travel_is_refused_before_any_value(type_: Any, message: str) -> None:
    with pytest.raises(PayloadError, match=message):
        CONVERTER.from_json({}, type_)


def test_unknown_keys_are_ignored_for_a_newer_sender_may_know_more() -> None:
    assert CONVERTER.from_json({"price": 1, "colour": "red"}, Item) == Item(1)


def test_iso_8601_durations_are_accepted() -> None:
    assert CONVERTER.from_json("P1DT2H3M4.5S", timedelta) == timedelta(1, 7384, 500_000)
    assert CONVERTER.from_json("P2W", timedelta) == timedelta(weeks=2)
    assert CONVERTER.from_json("-PT1S", timedelta) == timedelta(seconds=-1)
    assert CONVERTER.from_json(5, timedelta) == timedelta(seconds=5)


def test_the_missing_hook_of_an_enum_is_honoured() -> None:
    class Loose(enum.Enum):
        A = "a"

        @classmethod
        def _missing_(cls, value: object) -> "Loose | None":
            return cls.A if value == "A" else None

    assert CONVERTER.from_json("a", Loose) is Loose.A
    with pytest.raises(PayloadError):
        CONVERTER.from_json("b", Loose)


def test_an_untyped_value_converts_known_objects_by_their_class() -> None:
    value = {"at": date(2026, 1, 2), "items": (Item(1), {3, 1}), "c": Colour.RED}
    assert CONVERTER.to_json(value) == {
        "at": "2026-01-02",
        "items": [{"price": 1, "name": "thing"}, [1, 3]],
        "c": "red",
    }


def test_a_generic_class_without_its_parameter_converts_what_it_holds() -> None:
    assert CONVERTER.to_json(Box(Item(1)), Box) == {
        "content": {"price": 1, "name": "thing"},
        "more": [],
    }


def test_an_ordered_dict_travels_as_a_dict() -> None:
    assert CONVERTER.to_json(OrderedDict(a=1), dict[str, int]) == {"a": 1}
    assert CONVERTER.to_json(OrderedDict(a=1)) == {"a": 1}


def test_the_json_form_shares_nothing_with_the_value() -> None:
    """Or a value that is changed after the call would change what is journaled."""
    value = {"a": [1]}
    json = CONVERTER.to_json(value)
    value["a"].append(2)
    assert json == {"a": [1]}


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(PayloadError, match="nested deeper than 64 levels, or contains itself"):
        CONVERTER.to_json(value)


def test_an_annotation_that_cannot_be_resolved_is_named() -> None:
    @frozen
    class Lost:
        thing: "Nowhere"  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(PayloadError, match=r"Lost cannot be resolved: .*Nowhere"):
        CONVERTER.to_json(Lost(1), Lost)


def test_a_registered_class_travels_by_its_own_rules() -> None:
    def read(json: JsonValue) -> complex:
        real, imaginary = CONVERTER.from_json(json, tuple[float, float])
        return complex(real, imaginary)

    converter = PayloadConverter()
    converter.register(complex, lambda one: [one.real, one.imag], read, kinds=["array"])
    assert converter.to_json([1 + 2j], list[complex]) == [[1.0, 2.0]]
    assert converter.from_json([[1.0, 2.0]], list[complex]) == [1 + 2j]
    assert converter.from_json(None, complex | None) is None
    with pytest.raises(PayloadError, match=r"not a JSON value|JSON has no such number"):
        converter.to_json(complex("nan"), complex)
    with pytest.raises(PayloadError, match="value"):
        converter.from_json(["a", "b"], complex)


def test_an_alias_and_a_final_mean_what_they_stand_for() -> None:
    assert CONVERTER.to_json(3, Final[int]) == 3


def test_a_codec_is_compiled_once() -> None:
    converter = PayloadConverter()
    assert converter.codec(Order) is converter.codec(Order)


class Stuck:
    """A class that cannot travel."""


@frozen
class Outer:
    inner: "Inner | None"
    odd: Stuck


@frozen
class Inner:
    outer: Outer | None = None


def test_a_type_that_cannot_travel_is_named_wherever_it_is_met_first() -> None:
    """What was compiled on the way to the failure does not count afterwards."""
    converter = PayloadConverter()
    value = Outer(None, Stuck())
    for _ in range(2):
        with pytest.raises(PayloadError, match="Stuck cannot travel"):
            converter.to_json(value, Outer)
        with pytest.raises(PayloadError, match="Stuck cannot travel"):
            converter.to_json(Inner(value), Inner)
        with pytest.raises(PayloadError, match="Stuck cannot travel"):
            converter.from_json({"outer": {"inner": None, "odd": 1}}, Inner)


@pytest.mark.parametrize("key", ["--1", "-", "", "1_000", "٣", "01", " 1", "9" * 5_000])
def test_a_key_that_is_no_number_does_not_fit(key: str) -> None:
    """Also where Python's own reading of numbers gives up with an error of another kind."""
    with pytest.raises(PayloadError, match="digits as a key"):
        CONVERTER.from_json({key: "x"}, dict[int, str])
