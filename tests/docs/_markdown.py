"""Reads the repository's Markdown: which pages there are, their fenced blocks, links and headings.

It knows as much of Markdown as these pages use, and refuses what it would have to guess about.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from attrs import field, frozen

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^(?P<indent> *)(?P<marks>`{3,}|~{3,})(?P<info>[^`]*)$")
_DIRECTIVE = re.compile(r"^\s*<!--\s*(?P<name>[a-z]+)(?::\s*(?P<value>\S+))?\s*-->\s*$")
_INLINE_CODE = re.compile(r"(`+).+?\1")
_LINK = re.compile(
    r"!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\((?P<target><[^>]*>|[^()\s]+)(?:\s+\"[^\"]*\")?\)"
)
_DEFINITION = re.compile(r"^\s{0,3}\[[^\]]+\]:\s*(?P<target>\S+)")
_HEADING = re.compile(r"^#{1,6}\s+(?P<text>.*?)\s*#*\s*$")
_ANCHOR = re.compile(r"<a\s+(?:id|name)=\"(?P<name>[^\"]+)\"")


@frozen
class Block:
    """A fenced block: what its fence says it is, its text, and the comments right above it.

    `line` is that of the block's first line of text, counted from 1 in the page.
    """

    language: str
    text: str
    line: int
    directives: dict[str, str] = field(factory=dict[str, str])


def pages() -> list[Path]:
    """List the pages whose code is executed: what a user reads."""
    top = [path for name in ("README.md", "ARCHITECTURE.md") if (path := ROOT / name).is_file()]
    return [*top, *sorted((ROOT / "docs").rglob("*.md"))]


def all_pages() -> list[Path]:
    """List every Markdown page of the repository, those for contributors included."""
    folders = ("docs", "examples", "tests", "aiki_trio", "actors", "gateway", "sdk")
    nested = (path for folder in folders for path in (ROOT / folder).rglob("*.md"))
    return sorted({*ROOT.glob("*.md"), *nested})


def name_of(page: Path) -> str:
    """Name a page from the repository's root, for test ids and messages."""
    return page.relative_to(ROOT).as_posix()


def blocks_of(text: str) -> list[Block]:
    """Find the fenced blocks of a page, in order.

    Raises:
        ValueError: a fence is never closed, or a line sticks out of an indented block.
    """
    blocks: list[Block] = []
    directives: dict[str, str] = {}
    lines = enumerate(text.splitlines(), start=1)
    for number, line in lines:
        opening = _FENCE.match(line)
        directive = _DIRECTIVE.match(line)
        if opening:
            body = _body(lines, opening, number)
            blocks.append(Block(opening["info"].strip(), body, number + 1, directives))
            directives = {}
        elif directive:
            directives = {**directives, directive["name"]: directive["value"] or ""}
        elif line.strip():
            directives = {}
    return blocks


def _body(lines: Iterator[tuple[int, str]], opening: re.Match[str], opened_at: int) -> str:
    indent, marks = opening["indent"], opening["marks"]
    body: list[str] = []
    for number, line in lines:
        closing = line.strip()
        if closing.startswith(marks) and not closing.strip(marks[0]):
            return "\n".join(body) + "\n"
        if line.strip() and not line.startswith(indent):
            message = f"line {number}: less indented than its fence on line {opened_at}"
            raise ValueError(message)
        body.append(line[len(indent) :])
    message = f"line {opened_at}: this fence is never closed"
    raise ValueError(message)


def prose_of(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a page that are not inside a fenced block, each with its number."""
    marks = ""
    for number, line in enumerate(text.splitlines(), start=1):
        fence = _FENCE.match(line)
        if marks:
            closing = line.strip()
            if closing.startswith(marks) and not closing.strip(marks[0]):
                marks = ""
        elif fence:
            marks = fence["marks"]
        else:
            yield number, line


def links_of(text: str) -> Iterator[tuple[int, str]]:
    """Yield the target of each link and image outside of code, with its line."""
    for number, line in prose_of(text):
        visible = _INLINE_CODE.sub(lambda code: "x" * len(code[0]), line)
        for match in [*_LINK.finditer(visible), *_DEFINITION.finditer(visible)]:
            yield number, match["target"].strip("<>")


def anchors_of(text: str) -> frozenset[str]:
    """List what `#name` may refer to in a page: its headings, as GitHub slugs, and `<a id>`."""
    anchors: set[str] = set()
    for _, line in prose_of(text):
        anchors.update(match["name"] for match in _ANCHOR.finditer(line))
        heading = _HEADING.match(line)
        if heading is None:
            continue
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading["text"])
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        repeated = 0
        while (unique := f"{slug}-{repeated}" if repeated else slug) in anchors:
            repeated += 1
        anchors.add(unique)
    return frozenset(anchors)
