"""`@task`: durable inside a workflow, the plain function outside, and fast at knowing its input."""

import enum
import functools
import logging
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any, Literal, NoReturn, assert_type

import pytest
import trio
from attrs import frozen

from aiki_sdk import (
    AnyTask,
    InvalidRequest,
    JsonValue,
    PayloadError,
    PayloadTooLarge,
    RecordedTypeMismatch,
    Retry,
    SyncTask,
    Task,
    TaskContext,
    current_task,
    current_workflow,
    input_hash,
    task,
    task_context,
)
from aiki_sdk._errors import NotInTask


@frozen
class Order:
    id: str
    amount: int


class Colour(enum.Enum):
    RED = "red"


@task(retry=Retry.exponential(max_attempts=5, base_delay=0.5), timeout=30)
async def charge_card(order: Order) -> str:
    """Charge the card."""
    return f"charge-{order.id}"


@task
def render_invoice(order: Order, charge_id: str = "none") -> str:
    return f"{order.id}:{charge_id}"


@task
def everything(a: int, /, b: int = 2, *rest: int, c: int, d: int = 4, **more: float) -> int:
    return a + b + sum(rest) + c + d


@task
def add(n: int) -> int:
    return n + 1


def without_annotations() -> Any:
    """Return a task of a function that has none."""
    namespace: dict[str, Any] = {}

    def untyped(value: Any, other: Any = None) -> Any:
        return value

    untyped.__annotations__ = namespace
    return task(untyped)


class Port:
    """A workflow that records the calls and answers each with the plain function's result."""

    def __init__(self) -> None:
        self.calls: list[tuple[AnyTask, tuple[Any, ...], Mapping[str, Any]]] = []

    def call_task(
        self, task: AnyTask, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Coroutine[Any, Any, Any]:
        self.calls.append((task, args, kwargs))

        async def answer() -> Any:
            await trio.lowlevel.checkpoint()
            json, _ = task.encode_input(args, kwargs)
            again = task.decode_input(json)
            return f"{task.name}{again}"

        return answer()


def test_outside_a_workflow_a_plain_task_is_just_the_function() -> None:
    plain: Any = render_invoice(Order("o", 1), "c")
    assert plain == "o:c"
    assert render_invoice.function(Order("o", 1)) == "o:none"


async def test_outside_a_workflow_an_async_task_is_just_the_function() -> None:
    assert await charge_card(Order("o", 1)) == "charge-o"
    assert await charge_card.function(Order("o", 1)) == "charge-o"


async def test_inside_a_workflow_both_kinds_go_through_the_port_and_are_awaited() -> None:
    port = Port()
    token = current_workflow.set(port)
    try:
        charge = await charge_card(Order("o", 1))
        invoice = await render_invoice(Order("o", 1), charge_id="c")
    finally:
        current_workflow.reset(token)
    assert charge == "charge-card((Order(id='o', amount=1),), {})"
    assert invoice == "render-invoice((Order(id='o', amount=1), 'c'), {})"
    assert [call[0] for call in port.calls] == [charge_card, render_invoice]


async def test_a_task_can_be_handed_to_a_nursery_inside_a_workflow() -> None:
    port = Port()
    token = current_workflow.set(port)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(add, 1)
            nursery.start_soon(charge_card, Order("o", 1))
    finally:
        current_workflow.reset(token)
    assert {call[0].name for call in port.calls} == {"add", "charge-card"}


def test_the_call_reaches_the_port_before_it_is_awaited() -> None:
    """So that the index of the call is taken in call order."""
    port = Port()
    token = current_workflow.set(port)
    try:
        coroutine = add(1)
        assert len(port.calls) == 1
        coroutine.close()
    finally:
        current_workflow.reset(token)


async def test_types_are_kept() -> None:
    assert isinstance(charge_card, Task)
    assert isinstance(render_invoice, SyncTask)
    assert_type(await charge_card(Order("o", 1)), str)
    assert_type(await charge_card.options(timeout=3)(Order("o", 1)), str)
    assert_type(render_invoice.function(Order("o", 1)), str)


def test_the_function_shows_through() -> None:
    assert charge_card.__name__ == "charge_card"
    assert charge_card.__doc__ == "Charge the card."
    assert charge_card.__module__ == __name__
    assert repr(charge_card) == f"<task 'charge-card' of {__name__}.charge_card>"


def test_defaults_of_the_options() -> None:
    assert add.name == "add"
    assert add.settings.retry == Retry.never()
    assert add.settings.runtime == "thread"
    assert charge_card.settings.runtime == "trio"
    assert charge_card.settings.timeout_s == 30
    assert add.settings.timeout_s is None
    assert not add.settings.at_most_once


def test_options_change_one_call_and_keep_the_identity() -> None:
    other = charge_card.options(
        retry=Retry.fixed(2, 1), timeout=timedelta(seconds=5), heartbeat_timeout=2, pool="gpu"
    )
    assert other.name == charge_card.name
    assert other.settings.retry == Retry.fixed(2, 1)
    assert (other.settings.timeout_s, other.settings.heartbeat_timeout_s) == (5, 2)
    assert other.settings.pool == "gpu"
    assert charge_card.settings.timeout_s == 30
    assert charge_card.options().settings == charge_card.settings
    assert charge_card.options(timeout=None).settings.timeout_s is None
    assert other.encode_input((Order("o", 1),)) == charge_card.encode_input((Order("o", 1),))


def test_the_input_is_every_parameter_by_name_with_defaults() -> None:
    json, digest = render_invoice.encode_input((Order("o", 1),))
    assert json == {"order": {"id": "o", "amount": 1}, "charge_id": "none"}
    assert digest == input_hash(dict(json))


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((Order("o", 1), "none"), {}),
        ((Order("o", 1),), {"charge_id": "none"}),
        ((), {"charge_id": "none", "order": Order("o", 1)}),
    ],
)
def test_equal_calls_have_one_hash_however_they_are_written(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    assert (
        render_invoice.encode_input(args, kwargs)[1]
        == (render_invoice.encode_input((Order("o", 1),))[1])
    )


@pytest.mark.parametrize(
    ("args", "kwargs", "json", "again"),
    [
        ((1,), {"c": 3}, {"a": 1, "b": 2, "rest": [], "c": 3, "d": 4, "more": {}}, (1, 2)),
        (
            (1, 5, 6, 7),
            {"c": 3, "d": 8, "e": 9},
            {"a": 1, "b": 5, "rest": [6, 7], "c": 3, "d": 8, "more": {"e": 9.0}},
            (1, 5, 6, 7),
        ),
    ],
)
def test_every_kind_of_parameter_travels(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    json: JsonValue,
    again: tuple[Any, ...],
) -> None:
    assert everything.encode_input(args, kwargs)[0] == json
    back_args, back_kwargs = everything.decode_input(json)
    assert back_args == again
    assert everything.function(*back_args, **back_kwargs) == everything.function(*args, **kwargs)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1, 2), {}), ((1,), {"n": 1}), ((), {"m": 1}), ((1,), {"m": 1})],
)
def test_arguments_that_do_not_fit_are_a_type_error_that_names_the_task(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    with pytest.raises(TypeError, match="task 'add': "):
        add.encode_input(args, kwargs)


def test_a_positional_only_parameter_cannot_be_given_by_name() -> None:
    with pytest.raises(TypeError, match="task 'everything'"):
        everything.bind((), {"a": 1, "c": 2})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("x", "task 'add': n: expected int, got str"),
        (True, "task 'add': n: expected int, got bool"),
        (object(), "task 'add': n: expected int, got object"),
    ],
)
def test_an_argument_that_cannot_travel_is_named(value: Any, message: str) -> None:
    with pytest.raises(PayloadError, match=message):
        add.encode_input((value,))
    with pytest.raises(PayloadError, match=message):
        add.encode_input((), {"n": value})


def test_text_that_cannot_be_stored_is_named_by_parameter() -> None:
    with pytest.raises(PayloadError, match=r"task 'render-invoice': charge_id .*surrogate"):
        render_invoice.encode_input((Order("o", 1), "\ud800"))
    with pytest.raises(PayloadError, match=r"order\['id'\] .*NUL"):
        render_invoice.encode_input((Order("\x00", 1),))


def test_an_input_over_the_limit_is_refused() -> None:
    with pytest.raises(PayloadTooLarge, match="the input of task 'render-invoice'"):
        render_invoice.encode_input((Order("o", 1), "x" * 2_100_000))


@pytest.mark.parametrize(
    ("json", "message"),
    [
        ([], "the input of task 'render-invoice' .*expected an object"),
        ({}, "the input has no 'order'; it is required"),
        ({"order": {}}, r"order\.id: missing"),
        ({"order": {"id": "o", "amount": "x"}}, r"order\.amount: expected an integer"),
        ({"order": {"id": "o", "amount": 1}, "colour": 1}, "has no parameter 'colour'"),
    ],
)
def test_an_input_that_does_not_fit_is_named(json: JsonValue, message: str) -> None:
    with pytest.raises(PayloadError, match=message):
        render_invoice.decode_input(json)


def test_a_parameter_added_later_takes_its_default() -> None:
    args, kwargs = render_invoice.decode_input({"order": {"id": "o", "amount": 1}})
    assert (args, kwargs) == ((Order("o", 1), "none"), {})


def test_a_result_travels_by_the_declared_type() -> None:
    @task
    def make(order_id: str) -> Order | None:
        return Order(order_id, 1)

    json = make.encode_output(Order("o", 1))
    assert json == {"id": "o", "amount": 1}
    assert make.decode_output(json) == Order("o", 1)
    text: Any = "1"
    with pytest.raises(PayloadError, match=r"the result of task 'make'\.amount: expected int"):
        make.encode_output(Order("o", text))


def test_a_recorded_result_that_no_longer_fits_names_the_field() -> None:
    @task
    def make() -> Order:
        return Order("o", 1)

    with pytest.raises(RecordedTypeMismatch, match=r"result of task 'make'.*result\.amount") as one:
        make.decode_output({"id": "o"})
    assert one.value.path == "result.amount"


def test_an_upcast_makes_an_older_result_fit() -> None:
    def add_amount(json: JsonValue) -> JsonValue:
        assert isinstance(json, dict)
        return {"amount": 0, **json}

    @task(upcast=add_amount)
    def make() -> Order:
        return Order("o", 1)

    assert make.decode_output({"id": "o"}) == Order("o", 0)
    assert make.decode_output({"id": "o", "amount": 3}) == Order("o", 3)
    with pytest.raises(RecordedTypeMismatch):
        make.decode_output({})


def test_without_annotations_json_travels_as_it_is() -> None:
    untyped = without_annotations()
    json, _ = untyped.encode_input(({"a": Colour.RED},))
    assert json == {"value": {"a": "red"}, "other": None}
    assert untyped.decode_input(json) == (({"a": "red"}, None), {})


def test_a_task_that_never_returns_or_returns_nothing_records_null() -> None:
    @task
    def nothing() -> None: ...

    @task
    def never() -> NoReturn:
        raise RuntimeError

    assert nothing.encode_output(None) is None
    assert never.encode_output(None) is None


def test_annotations_may_name_what_is_defined_later() -> None:
    assert later.encode_input((Later(1),))[0] == {"value": {"number": 1}}


@task
def later(value: "Later") -> "list[Later]":
    return [value]


@frozen
class Later:
    number: int


def test_an_annotation_that_cannot_be_resolved_names_the_parameter() -> None:
    @task
    def lost(good: int, bad: int) -> int:
        return good

    lost.function.__annotations__["bad"] = "Nowhere"

    with pytest.raises(PayloadError, match=r"task 'lost': the type of parameter 'bad' cannot be"):
        lost.encode_input((1, 2))


def test_a_parameter_type_that_cannot_travel_names_the_parameter() -> None:
    @task
    def hold(lock: logging.Logger) -> None: ...

    @task
    def give() -> list[logging.Logger]:
        return []

    with pytest.raises(PayloadError, match=r"task 'hold': parameter 'lock': .*cannot travel"):
        hold.encode_input((1,))
    with pytest.raises(PayloadError, match=r"task 'give': the result: .*cannot travel"):
        give.encode_input(())


def test_a_json_value_parameter_takes_any_json() -> None:
    @task
    def store(document: JsonValue) -> JsonValue:
        return document

    assert store.encode_input(({"a": [1, None]},))[0] == {"document": {"a": [1, None]}}
    assert store.decode_output([1, {"x": "y"}]) == [1, {"x": "y"}]


def test_a_wrapped_function_keeps_its_signature() -> None:
    def logged(function: Callable[[int], int]) -> Callable[[int], int]:
        @functools.wraps(function)
        def wrapper(n: int) -> int:
            return function(n)

        return wrapper

    @task
    @logged
    def double(n: int) -> int:
        return 2 * n

    assert double.encode_input((3,))[0] == {"n": 3}
    with pytest.raises(PayloadError):
        double.encode_input(("x",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a b"}, "task name 'a b' is not valid"),
        ({"timeout": 0}, "timeout=0 is not valid"),
        ({"timeout": "5"}, "timeout='5' is not valid"),
        ({"heartbeat_timeout": timedelta(-1)}, "heartbeat_timeout="),
        ({"retry": 3}, "retry=3 is not valid"),
        ({"pool": ""}, "pool name '' is not valid"),
        (
            {"runtime": "trio"},
            "runtime='trio' is not valid for task 'plain'.*'thread' or 'process'",
        ),
        ({"runtime": "gevent"}, "runtime='gevent'"),
    ],
)
def test_a_wrong_option_is_named_with_its_value(options: dict[str, Any], message: str) -> None:
    def plain() -> None: ...

    with pytest.raises(InvalidRequest, match=message):
        task(**options)(plain)


def test_an_async_function_cannot_run_in_a_thread() -> None:
    async def fetch() -> None: ...

    wrong: Literal["thread", "process"]
    for wrong in ("thread", "process"):
        with pytest.raises(InvalidRequest, match="'trio' or 'asyncio'"):
            task(runtime=wrong)(fetch)
    assert task(runtime="asyncio")(fetch).settings.runtime == "asyncio"


def test_what_is_no_function_is_refused() -> None:
    def numbers() -> Any:
        yield 1

    decorate: Any = task
    for wrong in (print, "name", add, numbers, Order):
        with pytest.raises(InvalidRequest):
            decorate(wrong)


def test_the_context_of_a_task_is_at_hand_inside_and_an_error_outside() -> None:
    beats: list[JsonValue] = []
    context = TaskContext(
        name="add",
        run_id="run_1",
        attempt=2,
        idempotency_key="key",
        logger=logging.getLogger("test"),
        on_heartbeat=beats.append,
    )
    with pytest.raises(NotInTask, match="outside a task"):
        current_task()
    port = Port()
    token = current_workflow.set(port)
    try:
        with task_context(context):
            assert current_task() is context
            plain: Any = add(1)
            assert plain == 2
            context.heartbeat({"done": 5})
        assert port.calls == []
    finally:
        current_workflow.reset(token)
    assert beats == [{"done": 5}]
    assert context.last_heartbeat == {"done": 5}
    with pytest.raises(PayloadError, match="heartbeat details"):
        context.heartbeat(object())
