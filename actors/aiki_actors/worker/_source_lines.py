"""Where in a workflow's present code a task or a child workflow is called.

The journal keeps no source lines, so for a recorded call all that can be shown is where the code of
today mentions the same task or workflow. The code is read, never run: names are looked up in the
function's globals and closure, attributes in modules alone.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

from aiki_sdk import Workflow
from aiki_sdk._task import TaskDefinition

FUNCTIONS_MAX: Final = 100
"""Functions that are read; those of a workflow and what it calls in its own package are few."""

_MISSING: Final = object()


def mentions(function: Callable[..., Any], kind: str, name: str) -> list[str]:
    """Find where a workflow's code, or what it calls, mentions a task or a child: `file.py:12`.

    Args:
        function: the workflow's function.
        kind: `task` or `child`, as addresses have it.
        name: the task's or the workflow's name.

    Returns:
        The places in order, without repetition; empty if the source cannot be read.

    """
    found: dict[str, None] = {}
    for one in _reachable(function):
        for place, value in _names(one):
            if _is_it(value, kind, name):
                found[place] = None
    return list(found)


def _is_it(value: object, kind: str, name: str) -> bool:
    if kind == "task":
        return isinstance(value, TaskDefinition) and value.name == name
    return kind == "child" and isinstance(value, Workflow) and value.name == name


def _reachable(function: Callable[..., Any]) -> list[FunctionType]:
    """List the function and the plain functions of its package that it mentions, however deep."""
    first: object = inspect.unwrap(function)
    if not isinstance(first, FunctionType):
        return []
    package = _package(first)
    found: dict[CodeType, FunctionType] = {first.__code__: first}
    waiting = [first]
    while waiting and len(found) < FUNCTIONS_MAX:
        for _place, value in _names(waiting.pop()):
            if not isinstance(value, FunctionType) or value.__code__ in found:
                continue
            if _package(value) == package:
                found[value.__code__] = value
                waiting.append(value)
    return list(found.values())


def _package(function: FunctionType) -> str:
    # Code made by exec() in a bare namespace has no module.
    return str(function.__module__).partition(".")[0]


def _names(function: FunctionType) -> Iterator[tuple[str, object]]:
    """Yield the place and the value of each name in a function's source, decorators left out."""
    code = function.__code__
    try:
        lines, first = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        return  # no source at hand, as in an interactive session
    file = Path(code.co_filename).name
    definition = tree.body[0]
    if isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef):
        tree = ast.Module(definition.body, [])
    for statement in tree.body:
        for node in ast.walk(statement):
            value = _value(node, function)
            if value is not _MISSING:
                yield f"{file}:{first + getattr(node, 'lineno', 1) - 1}", value


def _value(node: ast.AST, function: FunctionType) -> object:
    if isinstance(node, ast.Name):
        return _variable(node.id, function)
    if isinstance(node, ast.Attribute):
        owner = _value(node.value, function)
        if isinstance(owner, ModuleType):
            return vars(owner).get(node.attr, _MISSING)
    return _MISSING


def _variable(name: str, function: FunctionType) -> object:
    for free, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if free == name:
            try:
                return cell.cell_contents
            except ValueError:
                return _MISSING  # not assigned yet
    return function.__globals__.get(name, _MISSING)
