"""Relative links in the Markdown pages lead somewhere: to a file and a heading that exist."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs._markdown import ROOT, all_pages, anchors_of, links_of, name_of


def has_heading(path: Path, anchor: str) -> bool:
    """Tell whether a page has this anchor; in files of other kinds an anchor is not looked for."""
    return path.suffix != ".md" or anchor in anchors_of(path.read_text(encoding="utf-8"))


def broken_links(page: Path) -> list[str]:
    """List the links of a page that lead nowhere; other sites are not asked."""
    text = page.read_text(encoding="utf-8")
    broken: list[str] = []
    for line, target in links_of(text):
        where = f"{name_of(page)}:{line}: {target}"
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            continue
        path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        if not path.is_relative_to(ROOT):
            broken.append(f"{where} leads out of the repository")
        elif not path.exists():
            broken.append(f"{where} does not exist")
        elif path.is_dir() and parts.path.endswith(".md"):
            broken.append(f"{where} is a folder")
        elif parts.fragment and not has_heading(path, unquote(parts.fragment)):
            broken.append(f"{where}: {name_of(path)} has no such heading")
    return broken


@pytest.mark.parametrize("page", all_pages(), ids=name_of)
def test_relative_links_lead_somewhere(page: Path) -> None:
    broken = broken_links(page)
    assert not broken, "\n".join(broken)


def test_every_page_of_the_documentation_can_be_reached_from_its_index() -> None:
    """A page that no other page links to is not documentation; nobody finds it."""
    docs = ROOT / "docs"
    seen: set[Path] = set()
    waiting = [docs / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or not page.is_file():
            continue
        seen.add(page)
        for _, target in links_of(page.read_text(encoding="utf-8")):
            path = unquote(urlsplit(target).path)
            if path.endswith(".md") and not urlsplit(target).scheme:
                waiting.append((page.parent / path).resolve())
    # Decision records are found by their numbers.
    lost = [
        name_of(page)
        for page in sorted(docs.rglob("*.md"))
        if page not in seen and page.parent.name != "decisions"
    ]
    assert not lost, f"no page links to {', '.join(lost)}: link it from its part's index.md"


@pytest.mark.parametrize(
    ("text", "anchors"),
    [
        ("# A Run's life\n", {"a-runs-life"}),
        ("## `open_runtime`, in short\n", {"open_runtime-in-short"}),
        ("# Twice\n# Twice\n", {"twice", "twice-1"}),
        ("```text\n# not a heading\n```\n", set[str]()),
    ],
)
def test_anchors_are_named_as_they_are_when_the_pages_are_shown(
    text: str, anchors: set[str]
) -> None:
    assert anchors_of(text) == anchors


def test_links_are_found_in_prose_and_not_in_code() -> None:
    text = "See [a](a.md#x), `[b](b.md)` and [c]\n\n[c]: c.md\n```text\n[d](d.md)\n```\n"
    assert list(links_of(text)) == [(1, "a.md#x"), (3, "c.md")]
