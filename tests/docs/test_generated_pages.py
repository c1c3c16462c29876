"""The pages that are generated from the code are up to date, and complete."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import cast

import aiki_sdk
import aiki_trio
from aiki_gateway._problems import STATUSES, problem_of
from aiki_sdk import AikiError
from tests.docs._markdown import ROOT, name_of


def generated_pages() -> dict[Path, str]:
    """Generate the pages anew."""
    generator = runpy.run_path(str(ROOT / "docs" / "_generate_api.py"))
    return cast("Callable[[], dict[Path, str]]", generator["generated_pages"])()


def test_the_generated_pages_are_up_to_date() -> None:
    """They are written anew by `python docs/_generate_api.py`."""
    stale = [
        name_of(path)
        for path, text in generated_pages().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    assert not stale, f"run `python docs/_generate_api.py`: {', '.join(stale)}"


def test_every_error_code_has_a_page_and_no_page_is_left_over() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "reference" / "errors").glob("*.md")}
    assert pages == set(STATUSES)


def test_the_type_of_a_problem_ends_in_the_name_of_its_page() -> None:
    for code in STATUSES:
        error = AikiError.from_wire("no", {"code": code})
        kind = problem_of(error).type
        page = ROOT / "docs" / "reference" / "errors" / f"{kind.rpartition('/')[2]}.md"
        assert f"`{kind}`" in page.read_text(encoding="utf-8")


def test_every_public_name_has_its_place_in_the_reference() -> None:
    text = "".join(generated_pages().values())
    names = sorted({*aiki_sdk.__all__, *aiki_trio.__all__})
    missing = [name for name in names if f"`{name}`" not in text]
    assert not missing, f"the reference says nothing of {', '.join(missing)}"
