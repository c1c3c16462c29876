"""Executes the Python of one page: a program, run in a fresh process for each page.

It reads the page's blocks from standard input (JSON) and executes them top to bottom in one
namespace, that of `__main__`. A block that awaits at its top level runs under `trio.run`. Line
numbers in tracebacks are those of the page. Functions named `test_…` are then run with pytest,
since a test that is only defined shows nothing.

Invariant: exit code 0 and a last line `COMPLETE` mean that every block ran, and ended as its page
says. Neither alone is enough: a block may leave the process early, or fail after it seemed to end.
"""

from __future__ import annotations

import ast
import gc
import inspect
import json
import linecache
import sys
import threading
import types
from collections.abc import Coroutine
from pathlib import Path
from typing import TypedDict, cast

import trio

COMPLETE = "-- the page is complete --"


class PageError(Exception):
    """A page does not do what it says."""


class Unit(TypedDict):
    """What is compiled at once: a block, together with those that continue it."""

    text: str
    line: int
    raises: str | None
    file: str | None


def leaves(error: BaseException) -> list[BaseException]:
    """Flatten exception groups: a nursery's group of one stands for the one."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return [leaf for inner in group.exceptions for leaf in leaves(inner)]
    return [error]


def execute(unit: Unit, page: str, namespace: dict[str, object]) -> bool:
    """Run one unit; return whether it awaited at its top level."""
    # Empty lines before the text make every traceback point into the page.
    source = "\n" * (unit["line"] - 1) + unit["text"]
    filename = f"{page}:{unit['line']}"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    code = compile(
        source, filename, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )
    result: object = eval(code, namespace)
    if not code.co_flags & inspect.CO_COROUTINE:
        return False

    async def drive() -> None:
        await cast("Coroutine[object, object, None]", result)

    trio.run(drive)
    return True


def check(unit: Unit, page: str, namespace: dict[str, object]) -> bool:
    """Run one unit and hold it to the error that its page announces, if it does."""
    where = f"{page}:{unit['line']}"
    expected = unit["raises"]
    try:
        awaited = execute(unit, page, namespace)
    except BaseException as error:
        if expected is None:
            raise
        names = sorted({type(leaf).__name__ for leaf in leaves(error)})
        if names != [expected]:
            message = f"{where}: raised {', '.join(names)}, and the page says {expected}"
            raise PageError(message) from error
        return True
    if expected is not None:
        message = f"{where}: raised nothing, and the page says {expected}"
        raise PageError(message)
    return awaited


def save(unit: Unit, name: str, namespace: dict[str, object]) -> None:
    """Write a unit to the file that its page names, and import that file."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(unit["text"], encoding="utf-8")
    if path.suffix == ".py":
        execute(
            {**unit, "text": f"import {'.'.join(path.with_suffix('').parts)}\n"}, name, namespace
        )


def run_tests(units: list[Unit]) -> int:
    """Run the page's `test_…` functions, as a user would run a file that holds the page's code."""
    import pytest

    Path("pytest.ini").write_text("[pytest]\ntrio_mode = true\nfilterwarnings = error\n")
    Path("test_page.py").write_text("\n".join(unit["text"] for unit in units), encoding="utf-8")
    # The page has imported the package that pytest would rewrite, as its plugin's, for its asserts.
    quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return pytest.main(["-q", "-p", "no:cacheprovider", *quiet, "test_page.py"])


def execute_page(page: str, units: list[Unit]) -> int:
    """Execute the units of a page, then its tests; return the exit code."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.path.insert(0, "")
    namespace = module.__dict__
    plain: list[Unit] = []
    for unit in units:
        if unit["file"] is not None:
            save(unit, unit["file"], namespace)
        elif not check(unit, page, namespace):
            plain.append(unit)
    if any(name.startswith("test_") and callable(value) for name, value in namespace.items()):
        return run_tests(plain)
    return 0


def main() -> int:
    """Execute the page that standard input describes."""
    # What Python only prints (a coroutine never awaited, an error in a thread) fails the page too.
    unraised: list[str] = []

    def in_finalizer(found: sys.UnraisableHookArgs) -> None:
        unraised.append(f"{found.exc_type.__name__}: {found.exc_value}")

    def in_thread(found: threading.ExceptHookArgs) -> None:
        unraised.append(f"{found.exc_type.__name__}: {found.exc_value}")

    sys.unraisablehook = in_finalizer
    threading.excepthook = in_thread
    described: dict[str, object] = json.load(sys.stdin)
    page = cast("str", described["page"])
    try:
        code = execute_page(page, cast("list[Unit]", described["units"]))
    finally:
        gc.collect()
        for error in unraised:
            print(f"{page}: {error}", flush=True)
    if code or unraised:
        return code or 1
    print(COMPLETE, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
