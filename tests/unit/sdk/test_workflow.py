"""`@workflow` and the registry: checked when they are written, not when they run."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from attrs import frozen

from aiki_sdk import (
    DuplicateName,
    Event,
    InvalidRequest,
    PayloadError,
    Retry,
    UnknownEvent,
    UnknownWorkflow,
    Workflow,
    WorkflowRegistry,
    workflow,
)

if TYPE_CHECKING:
    from aiki_sdk._run import Run

paid = Event("payment-received", str)


@frozen
class Order:
    id: str
    amount: int


@workflow(
    name="order-processing",
    version="1.0.0",
    retry=Retry.fixed(max_attempts=3, delay=60),
    events=[paid],
)
async def process_order(run: "Run", order: Order, fast: bool = False) -> str:
    """Process an order."""
    return order.id


def make(version: str, name: str = "order") -> Workflow[[], None]:
    @workflow(name, version)
    async def made(run: "Run") -> None: ...

    return made


def test_the_run_is_no_part_of_the_input() -> None:
    json, digest = process_order.encode_input((Order("o", 1),))
    assert json == {"order": {"id": "o", "amount": 1}, "fast": False}
    assert len(digest) == 64
    assert process_order.decode_input(json) == ((Order("o", 1), False), {})
    assert list(process_order.bind((Order("o", 1), True))) == ["order", "fast"]


def test_an_input_that_does_not_fit_names_the_workflow() -> None:
    with pytest.raises(PayloadError, match="workflow 'order-processing': order: expected"):
        process_order.encode_input((3,))
    with pytest.raises(TypeError, match="workflow 'order-processing': "):
        process_order.encode_input(())


def test_the_result_travels_by_the_declared_type() -> None:
    assert process_order.decode_output(process_order.encode_output("x")) == "x"
    with pytest.raises(PayloadError, match="the result of workflow 'order-processing'"):
        process_order.encode_output(1)


def test_calling_it_says_how_to_start_it() -> None:
    with pytest.raises(TypeError, match=r"client\.start\(process_order, \.\.\.\).*run\.call"):
        process_order(Order("o", 1))


async def test_the_function_stays_callable() -> None:
    run: Any = None
    assert await process_order.function(run, Order("o", 1)) == "o"
    assert process_order.__doc__ == "Process an order."


def test_settings_and_their_defaults() -> None:
    settings = make("1").settings
    assert settings.retry == Retry.never()
    assert (settings.timeout_s, settings.pool, settings.priority) == (None, "default", "normal")
    assert (settings.cancel_grace_s, settings.on_divergence, settings.retention_s) == (
        60,
        None,
        None,
    )

    @workflow(
        "w",
        "1",
        timeout=timedelta(days=1),
        pool="gpu",
        priority="high",
        cancel_grace=5,
        on_divergence="fail",
        retention=timedelta(days=7),
    )
    async def tuned(run: "Run") -> None: ...

    assert tuned.settings.timeout_s == 86_400
    assert tuned.settings.retention_s == 7 * 86_400
    assert tuned.settings.on_divergence == "fail"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a b"}, "workflow name 'a b' is not valid"),
        ({"version": "1:0"}, "workflow version '1:0' is not valid"),
        ({"version": 1}, "workflow version 1 is not valid"),
        ({"priority": "urgent"}, "priority='urgent' is not valid: use 'high' or 'normal' or 'low'"),
        ({"on_divergence": "ignore"}, "on_divergence='ignore'"),
        ({"timeout": -1}, "timeout=-1"),
        ({"cancel_grace": None}, "cancel_grace=None"),
        ({"retry": "yes"}, "retry='yes'"),
        ({"pool": ":"}, "pool name ':'"),
        ({"events": ["paid"]}, "pass Event objects"),
        (
            {"events": [paid, Event("payment-received")]},
            "event 'payment-received' is defined twice",
        ),
    ],
)
def test_a_wrong_option_is_named_with_its_value(options: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"name": "w", "version": "1", **options}
    with pytest.raises(InvalidRequest, match=message):
        workflow(**given)


def test_the_first_parameter_must_be_the_run() -> None:
    async def nothing() -> None: ...

    async def other(order: Order) -> None: ...

    async def only_keyword(*, run: "Run") -> None: ...

    async def unnamed(context: Any) -> None: ...

    unnamed.__annotations__ = {}
    decorate: Any = workflow("w", "1")
    for wrong in (nothing, other, only_keyword, unnamed):
        with pytest.raises(
            InvalidRequest, match=r"first parameter of workflow 'w' must be the run"
        ):
            decorate(wrong)


def test_the_run_is_known_under_every_spelling() -> None:
    from aiki_sdk import _run as sdk

    async def by_class(run: sdk.Run) -> None: ...

    async def by_path(run: "sdk.Run") -> None: ...

    async def by_name(run: Any) -> None: ...

    by_name.__annotations__ = {}

    async def renamed(context: "Run", order: Order) -> None: ...

    decorate: Any = workflow("w", "1")
    for right in (by_class, by_path, by_name, renamed):
        assert isinstance(decorate(right), Workflow)


def test_it_must_be_async() -> None:
    decorate: Any = workflow("w", "1")
    with pytest.raises(InvalidRequest, match="must be an `async def` function"):
        decorate(lambda run: None)


def test_an_undeclared_event_lists_the_declared_ones() -> None:
    assert process_order.event("payment-received") == paid
    with pytest.raises(UnknownEvent, match="declared: payment-received"):
        process_order.event("refunded")


def test_the_registry_finds_by_name_and_version() -> None:
    one, two = make("1.0.0"), make("2.0.0")
    registry = WorkflowRegistry([one, two, process_order])
    assert registry.resolve("order", "1.0.0") is one
    assert registry.get("order", "3") is None
    assert registry.keys() == ["order@1.0.0", "order@2.0.0", "order-processing@1.0.0"]
    assert len(registry) == 3
    assert one in registry
    assert make("1.0.0") not in registry


@pytest.mark.parametrize(
    ("versions", "latest"),
    [
        (["1.0.0", "10.0.0", "9.0.0"], "10.0.0"),
        (["1.0.0", "1.0.0-rc.1"], "1.0.0"),
        (["1.0.0-rc.2", "1.0.0-rc.10", "1.0.0-alpha"], "1.0.0-rc.10"),
        (["2", "v1.5"], "2"),
        (["2026-spring", "blue", "green"], "green"),
    ],
)
def test_without_a_version_the_latest_is_meant(versions: list[str], latest: str) -> None:
    registry = WorkflowRegistry(make(version) for version in versions)
    assert registry.resolve("order").version == latest


def test_an_unknown_workflow_lists_what_is_registered() -> None:
    registry = WorkflowRegistry([make("1.0.0")])
    for name, version in (("order", "2.0.0"), ("ordre", None), ("ordre", "1.0.0")):
        with pytest.raises(UnknownWorkflow, match=r"registered: order@1\.0\.0"):
            registry.resolve(name, version)


def test_two_workflows_of_one_name_and_version_are_refused_with_both_places() -> None:
    one = make("1.0.0")
    registry = WorkflowRegistry([one, one])
    with pytest.raises(DuplicateName, match=rf"order@1\.0\.0.*{one.location}"):
        registry.add(make("1.0.0"))


def test_what_is_no_workflow_is_refused() -> None:
    wrong: Any = print
    with pytest.raises(InvalidRequest, match="decorate it with @workflow"):
        WorkflowRegistry([wrong])
