"""Events: names, types and their data."""

from typing import Any, assert_type

import pytest
from attrs import frozen

from aiki_sdk import Event, InvalidRequest, PayloadError


@frozen
class Payment:
    amount: int


def test_an_event_knows_the_type_of_its_data() -> None:
    event = Event("payment-received", str)
    assert_type(event, Event[str])
    assert event.name == "payment-received"
    assert event.decode(event.encode("txn-1")) == "txn-1"


def test_an_event_without_a_type_carries_nothing() -> None:
    ping = Event("ping")
    assert_type(ping, Event[None])
    assert ping.encode(None) is None
    something: Any = 1
    with pytest.raises(PayloadError, match="event 'ping'"):
        ping.encode(something)


def test_an_event_may_carry_a_class_or_a_union() -> None:
    assert Event("paid", Payment).decode({"amount": 3}) == Payment(3)
    assert Event("any", int | str).decode("x") == "x"


def test_data_of_a_wrong_type_is_named_by_place() -> None:
    text: Any = "3"
    with pytest.raises(PayloadError, match=r"event 'paid'\.amount: expected int, got str"):
        Event("paid", Payment).encode(Payment(text))
    with pytest.raises(PayloadError, match=r"event 'paid'\.amount: missing"):
        Event("paid", Payment).decode({})


def test_events_are_equal_by_name_and_type() -> None:
    assert Event("a", str) == Event("a", str)
    assert Event("a", str) != Event("a", int)
    assert Event("a", str) != "a"
    assert hash(Event("a", str)) == hash(Event("a", str))
    assert repr(Event("a", str)) == "Event('a', str)"
    assert repr(Event("ping")) == "Event('ping')"


@pytest.mark.parametrize("name", ["", "-a", "a b", "a:b", "é", "a" * 129, "a\n", 3])
def test_a_wrong_name_is_refused_with_the_rule(name: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"event name .* is not valid: use 1 to 128"):
        Event(name)


@pytest.mark.parametrize("name", ["a", "A/b.c_d-9", "0", "a" * 128])
def test_a_right_name_is_kept(name: str) -> None:
    assert Event(name).name == name
