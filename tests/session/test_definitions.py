"""What is told of a workflow where its code is not, and what follows from it for a start."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
import trio

from aiki_actors.server import WorkflowCatalogue
from aiki_actors.storage import MemoryStorage
from aiki_sdk import (
    Event,
    InvalidRequest,
    JsonValue,
    PayloadError,
    Question,
    Retry,
    Run,
    WorkflowRegistry,
    workflow,
)
from aiki_sdk.protocol import (
    ParameterInfo,
    StartRequest,
    WorkflowDefinition,
    definition_of,
    from_wire,
    to_wire,
)
from tests.session.clusters import ALL

HASH = "0" * 64


@workflow(
    name="rich",
    version="2.1.0",
    retry=Retry.fixed(3, 1),
    timeout=60,
    pool="big",
    priority="high",
    events=[Event("paid", str)],
    questions=[Question("status", str, str)],
    cancel_grace=5,
    on_divergence="stall",
    retention=10,
)
async def rich(
    run: Run, /, a: int, b: str = "x", *rest: int, when: datetime | None = None, **more: int
) -> str:
    return b


@pytest.mark.parametrize("flow", [*ALL, rich])
def test_a_definition_travels_unchanged(flow: Any) -> None:
    definition = definition_of(flow)
    assert from_wire(to_wire(definition), WorkflowDefinition, "definition") == definition


def test_a_definition_has_everything_that_a_run_is_created_with() -> None:
    definition = definition_of(rich)
    assert definition.key == "rich@2.1.0"
    assert (definition.pool, definition.priority, definition.timeout_s) == ("big", "high", 60)
    assert (definition.cancel_grace_s, definition.retention_s) == (5, 10)
    assert (definition.events, definition.questions) == (("paid",), ("status",))
    assert definition.parameters is not None
    told = {one.name: (one.required, one.fills, one.default) for one in definition.parameters}
    assert told == {
        "a": (True, False, None),
        "b": (False, True, "x"),
        "rest": (False, False, None),
        "when": (False, True, None),
        "more": (False, False, None),
    }


def test_defaults_are_filled_in_and_mistakes_are_named() -> None:
    definition = definition_of(rich)
    assert definition.fill_in({"a": 1}) == ({"a": 1, "b": "x", "when": None}, True)
    full: JsonValue = {"a": 1, "b": "y", "when": None}
    assert definition.fill_in(full) == (full, False)
    with pytest.raises(PayloadError, match="'a'; it is required"):
        definition.fill_in({"b": "y"})
    with pytest.raises(PayloadError, match="no parameter 'z'"):
        definition.fill_in({"a": 1, "z": 2})
    with pytest.raises(PayloadError, match="expected an object"):
        definition.fill_in([1])


def test_defaults_are_not_told_where_payloads_are_sealed() -> None:
    definition = definition_of(rich, defaults=False)
    assert definition.parameters is not None
    assert ParameterInfo(name="b", required=False, type="str") in definition.parameters


def test_a_start_brings_the_definition_of_its_own_workflow_alone() -> None:
    definition = definition_of(rich)
    StartRequest(workflow="rich", version="2.1.0", input={}, input_hash=HASH, definition=definition)
    with pytest.raises(InvalidRequest, match="definition"):
        StartRequest(
            workflow="rich", version="2.2.0", input={}, input_hash=HASH, definition=definition
        )


async def test_the_newest_version_is_found_and_the_code_goes_first() -> None:
    storage = MemoryStorage()
    catalogue = WorkflowCatalogue(WorkflowRegistry([rich]), storage)
    old = WorkflowDefinition(name="rich", version="1.9.0")
    new = WorkflowDefinition(name="rich", version="10.0.0", pool="new")
    lie = WorkflowDefinition(name="rich", version="2.1.0", pool="lie")
    await catalogue.announce("default", [old, new, lie])
    assert catalogue.resolve("default", "rich", None) == new
    assert catalogue.resolve("default", "rich", "2.1.0").pool == "big"
    assert catalogue.resolve("other", "rich", None).version == "2.1.0"
    again = WorkflowCatalogue(WorkflowRegistry(), storage)
    await again.load()
    assert again.resolve("default", "rich", None) == new
    assert [one.version for one in again.all_of("default")] == ["1.9.0", "10.0.0", "2.1.0"]


async def test_what_could_not_be_kept_is_kept_with_the_next_announcement() -> None:
    storage = MemoryStorage()
    catalogue = WorkflowCatalogue(WorkflowRegistry(), storage)
    one = WorkflowDefinition(name="one", version="1")
    with trio.CancelScope() as scope:
        scope.cancel()
        await catalogue.announce("default", [one])
    assert await storage.workflows() == []
    await catalogue.announce("default", [one])
    assert [kept.name for kept in await storage.workflows()] == ["one"]
