"""A test that a page names as the proof of a promise exists, in the file that the page names."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs._markdown import ROOT, name_of, pages

named_test = re.compile(r"`(?P<file>tests/[\w/]+\.py)?(?:::)?(?P<test>test_\w+)`")
named_file = re.compile(r"`(?P<file>tests/[\w/]+\.py)")


@cache
def known_tests() -> dict[str, set[str]]:
    """Map the name of each test function to the files that define one of that name."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.setdefault(node.name, set()).add(name_of(path))
    return found


def offences_in(text: str) -> list[str]:
    """List the tests and test files which a text names and which do not exist."""
    known = known_tests()
    offences = [
        f"{match['file'] or ''}::{match['test']}"
        for match in named_test.finditer(text)
        if match["test"] not in known or (match["file"] or "") not in {"", *known[match["test"]]}
    ]
    files = {match["file"] for match in named_file.finditer(text)}
    return offences + sorted(file for file in files if not (ROOT / file).is_file())


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    offences = offences_in(page.read_text(encoding="utf-8"))
    assert not offences, f"{name_of(page)} names what does not exist: {', '.join(offences)}"


def test_a_test_that_does_not_exist_is_noticed() -> None:
    """Guards the test above: its patterns see what pages write."""
    this = "tests/docs/test_named_tests.py"
    assert offences_in(f"`{this}::test_every_test_that_a_page_names_exists`, `{this}`") == []
    assert offences_in("`test_nothing_of_this_name`") == ["::test_nothing_of_this_name"]
    assert offences_in("`tests/unit/nowhere.py`") == ["tests/unit/nowhere.py"]
