"""The pytest plugin: the fixture `aiki`, and async tests that use it, without any configuration.

A test that asks for `aiki` runs under Trio on a clock that skips time, with the kit open around it:

* with plain pytest this plugin runs it;
* with pytest-trio (`trio_mode`, or the marker `trio`) that one runs it, so that its async fixtures
  work, and is given the clock by its marker, unless the test has a clock fixture of its own.

The marker `aiki` gives the kit options: `@pytest.mark.aiki(storage="sqlite:///runs.db")`, a file in
the test's `tmp_path`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Any, Final, cast

import pytest
import trio
from trio.testing import MockClock

from ._kit import Aiki

FIXTURE: Final = "aiki"
_FILE: Final = "sqlite:///"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "aiki(storage, workflows, settings, start, seed): options of the `aiki` fixture; "
        "see aiki_trio.testing.Aiki.",
    )


@pytest.fixture
def aiki(request: pytest.FixtureRequest) -> Aiki:
    """Return a whole system in which time skips itself; open while an async test runs."""
    marker = request.node.get_closest_marker(FIXTURE)
    options: dict[str, Any] = {} if marker is None else dict(marker.kwargs)
    if marker is not None and marker.args:
        message = f"@pytest.mark.aiki takes keywords only, not {marker.args!r}: storage=..."
        raise pytest.UsageError(message)
    storage = options.get("storage", "")
    if storage.startswith(_FILE) and not storage.startswith(f"{_FILE}/"):
        folder: Path = request.getfixturevalue("tmp_path")
        options["storage"] = f"{_FILE}{folder / storage.removeprefix(_FILE)}"
    options.setdefault("seed", request.node.name)
    return Aiki(**options)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests that pytest-trio will run our clock; it takes a runner from its marker."""
    for item in items:
        marker = item.get_closest_marker("trio")
        if isinstance(item, pytest.Function) and marker is not None and _is_ours(item):
            runner = marker.kwargs.get("run", trio.run)
            item.add_marker(pytest.mark.trio(run=_with_clock(runner)), append=False)


def _is_ours(item: pytest.Function) -> bool:
    return FIXTURE in item.fixturenames and inspect.iscoroutinefunction(_function(item))


def _function(item: pytest.Function) -> Callable[..., Awaitable[object]]:
    return cast("Callable[..., Awaitable[object]]", item.obj)


def _with_clock(runner: Callable[..., Any]) -> Callable[..., Any]:
    """Make a runner that skips time unless it is given a clock."""

    def run(async_fn: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        if options.get("clock") is None:
            options["clock"] = MockClock(autojump_threshold=0)
        return runner(async_fn, *args, **options)

    return run


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Open the kit around the test's function, before anybody else wraps it."""
    if isinstance(item, pytest.Function) and _is_ours(item):
        kit = item.funcargs[FIXTURE]
        if isinstance(kit, Aiki):  # else the project has a fixture of this name of its own
            original = item.obj
            item.obj = _opened(kit, _function(item))
            try:
                return (yield)
            finally:
                item.obj = original
    return (yield)


def _opened(
    kit: Aiki, function: Callable[..., Awaitable[object]]
) -> Callable[..., Awaitable[object]]:
    @functools.wraps(function)
    async def test(**fixtures: Any) -> None:
        __tracebackhide__ = True
        async with kit:
            await function(**fixtures)

    return test


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that nobody else runs."""
    __tracebackhide__ = True
    if not _is_ours(pyfuncitem) or pyfuncitem.get_closest_marker("trio") is not None:
        return None
    if not isinstance(pyfuncitem.funcargs[FIXTURE], Aiki):
        return None
    # The arguments that the function itself takes: fixtures may be asked for without being those.
    signature = inspect.signature(_function(pyfuncitem))
    fixtures = {name: pyfuncitem.funcargs[name] for name in signature.parameters}
    clocks = [value for value in fixtures.values() if isinstance(value, trio.abc.Clock)]
    clock = clocks[0] if clocks else MockClock(autojump_threshold=0)
    trio.run(functools.partial(_function(pyfuncitem), **fixtures), clock=clock)
    return True
