"""Workflows that workers announced: what every storage adapter promises about them."""

from __future__ import annotations

import pytest

from aiki_actors.storage import KnownWorkflow, Storage
from aiki_sdk import PayloadError


async def test_workflows_are_kept_by_namespace_name_and_version(storage: Storage) -> None:
    assert await storage.workflows() == []
    await storage.put_workflows([])
    b1 = KnownWorkflow("default", "b", "1.0.0", {"name": "b", "big": 2**70, "text": "é\n"})
    a2 = KnownWorkflow("default", "a", "2.0.0", {})
    a1 = KnownWorkflow("default", "a", "1.0.0", {"x": [1, None, True]})
    other = KnownWorkflow("another", "b", "1.0.0", {"other": 1})
    await storage.put_workflows([b1, a2])
    await storage.put_workflows([a1, other])
    assert await storage.workflows() == [other, a1, a2, b1]


async def test_the_last_word_on_a_workflow_counts(storage: Storage) -> None:
    first = KnownWorkflow("default", "a", "1.0.0", {"pool": "default"})
    second = KnownWorkflow("default", "a", "1.0.0", {"pool": "big"})
    await storage.put_workflows([first])
    await storage.put_workflows([second])
    assert await storage.workflows() == [second]


async def test_a_definition_that_cannot_be_stored_spoils_no_other_write(storage: Storage) -> None:
    good = KnownWorkflow("default", "a", "1.0.0", {})
    bad = KnownWorkflow("default", "b", "1.0.0", {"x": float("nan")})
    with pytest.raises(PayloadError):
        await storage.put_workflows([good, bad])
    assert await storage.workflows() == []
