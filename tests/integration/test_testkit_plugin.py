"""The pytest plugin in projects of its own: without pytest-trio, and beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WORKFLOW = """
import pytest
from datetime import timedelta
from aiki_sdk import Run, task, workflow


@task
async def charge(n: int) -> str:
    return f"charge-{n}"


@workflow(name="billing", version="1.0.0")
async def billing(run: Run, n: int) -> str:
    await run.sleep("cool-off", days=90)
    return await charge(n)


class TestBilling:
    async def test_in_a_class(self, aiki):
        handle = await aiki.start(billing, 1)
        await aiki.sleep(timedelta(days=91))
        assert await handle.result() == "charge-1"


@pytest.mark.aiki(storage="sqlite:///runs.db")
@pytest.mark.parametrize("n", [1, 2])
async def test_on_a_file(aiki, n, tmp_path):
    handle = await aiki.start(billing, n)
    assert await handle.result() == f"charge-{n}"
    assert (tmp_path / "runs.db").exists()


def test_a_plain_test_may_ask_for_it(aiki):
    with pytest.raises(Exception, match="write the test as `async def`"):
        aiki.now()
"""

ASYNC_FIXTURE = """

@pytest.fixture
async def number():
    yield 7


async def test_with_an_async_fixture(aiki, number):
    handle = await aiki.start(billing, number)
    assert await handle.result() == "charge-7"


async def test_with_a_clock_of_its_own(aiki, autojump_clock, nursery):
    handle = await aiki.start(billing, 1)
    assert await handle.result() == "charge-1"
"""

FAILING = """

async def test_that_fails(aiki):
    handle = await aiki.start(billing, 1)
    assert await handle.result() == "charge-2"


async def test_that_skips(aiki):
    pytest.skip("not today")
"""


def run_pytest(folder: Path, text: str, *options: str) -> str:
    """Run pytest in a project that has no configuration, and return its output."""
    (folder / "test_billing.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", *options]
    if not _is_installed():
        command += ["-p", "aiki_trio.testing.plugin"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def _is_installed() -> bool:
    from importlib.metadata import entry_points

    return "aiki" in entry_points(group="pytest11").names


def test_it_needs_neither_pytest_trio_nor_configuration(tmp_path: Path) -> None:
    output = run_pytest(tmp_path, WORKFLOW, "-p", "no:trio")
    assert "4 passed" in output, output


@pytest.mark.parametrize("trio_mode", ["true", "false"])
def test_it_works_beside_pytest_trio(tmp_path: Path, trio_mode: str) -> None:
    output = run_pytest(tmp_path, WORKFLOW, "-o", f"trio_mode={trio_mode}")
    assert "4 passed" in output, output


def test_it_works_with_the_fixtures_of_pytest_trio(tmp_path: Path) -> None:
    output = run_pytest(tmp_path, WORKFLOW + ASYNC_FIXTURE, "-o", "trio_mode=true")
    assert "6 passed" in output, output


def test_a_failing_test_is_shown_as_plain_pytest_shows_it(tmp_path: Path) -> None:
    output = run_pytest(tmp_path, WORKFLOW + FAILING, "-p", "no:trio")
    assert "1 failed, 4 passed, 1 skipped" in output, output
    assert "assert 'charge-1' == 'charge-2'" in output
    assert "Exception Group" not in output


def test_its_options_are_known_to_strict_projects(tmp_path: Path) -> None:
    output = run_pytest(tmp_path, WORKFLOW, "-p", "no:trio", "--strict-markers")
    assert "4 passed" in output, output
