"""The fixture that runs a contract test once per adapter."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from aiki_actors.storage import Storage
from tests.contract.storage_cases import ADAPTERS


@pytest.fixture(params=sorted(ADAPTERS))
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Storage, None]:
    """Open each adapter in turn."""
    async with ADAPTERS[request.param](tmp_path) as opened:
        yield opened
