"""The pages about the command line, and the list of edits, are what the code and the tests say."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import cast

from tests.docs._markdown import ROOT, name_of


def generated_pages() -> dict[Path, str]:
    """Generate the pages anew."""
    generator = runpy.run_path(str(ROOT / "docs" / "_generate_cli.py"))
    return cast("Callable[[], dict[Path, str]]", generator["generated_pages"])()


def test_the_pages_of_the_command_line_are_up_to_date() -> None:
    """They are written anew by `python docs/_generate_cli.py`."""
    stale = [
        name_of(path)
        for path, text in generated_pages().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    assert not stale, f"run `python docs/_generate_cli.py`: {', '.join(stale)}"


def test_every_edit_that_is_tried_is_shown() -> None:
    from tests.integration.code_changes import EDITS

    (text,) = (
        text for path, text in generated_pages().items() if path.name == "live-with-code-changes.md"
    )
    assert all(f"| {edit.change} |" in text for edit in EDITS)
