"""What commands print: tables and lines for people, JSON for programs, colours where they help.

With `--json` standard output holds JSON and nothing else: one document per command, or one line
per item where a command streams. What is said beside it (notes, errors) goes to standard error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, TextIO

from attrs import define

from aiki_sdk import AikiError, JsonValue, RunStatus

_RESET: Final = "\x1b[0m"
_BOLD: Final = "\x1b[1m"
_DIM: Final = "\x1b[2m"
_RED: Final = "\x1b[31m"
_GREEN: Final = "\x1b[32m"
_YELLOW: Final = "\x1b[33m"
_CYAN: Final = "\x1b[36m"

_COLOURS: Final[Mapping[str, str]] = {
    RunStatus.COMPLETED: _GREEN,
    RunStatus.RUNNING: _CYAN,
    RunStatus.FAILED: _RED,
    RunStatus.STALLED: _RED,
    RunStatus.CANCELLED: _DIM,
    RunStatus.PAUSED: _YELLOW,
    RunStatus.AWAITING_RETRY: _YELLOW,
    "ok": _GREEN,
    "safe": _GREEN,
    "warning": _YELLOW,
    "needs a version": _YELLOW,
    "fault": _RED,
    "would diverge": _RED,
}
"""Words that stand alone in a cell and are coloured there."""


@define(eq=False)
class Output:
    """Where a command prints, and how."""

    out: TextIO
    err: TextIO
    json: bool = False
    colour: bool = False

    def line(self, text: str = "") -> None:
        """Print a line of the answer."""
        self.out.write(f"{text}\n")
        self.out.flush()

    def note(self, text: str) -> None:
        """Say something beside the answer."""
        self.err.write(f"{text}\n")
        self.err.flush()

    def document(self, value: JsonValue) -> None:
        """Print a JSON document for a program."""
        self.line(json.dumps(value, ensure_ascii=False, indent=2 if self.colour else None))

    def item(self, value: JsonValue) -> None:
        """Print one item of a stream, on one line."""
        self.line(json.dumps(value, ensure_ascii=False, separators=(",", ":")))

    def error(self, error: AikiError) -> None:
        """Say why the command did not do it."""
        if self.json:
            problem: JsonValue = {
                "error": {"code": error.code, "message": error.message, "details": error.details}
            }
            self.note(json.dumps(problem, ensure_ascii=False))
        else:
            self.note(f"{self.paint('error:', _RED)} {error.message}")

    def paint(self, text: str, colour: str) -> str:
        """Colour a text, if colours are wanted."""
        return f"{colour}{text}{_RESET}" if self.colour and colour else text

    def word(self, text: str) -> str:
        """Colour a status or verdict."""
        return self.paint(text, _COLOURS.get(text, ""))

    def dim(self, text: str) -> str:
        """Let a text step back."""
        return self.paint(text, _DIM)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows under a heading; with rich, if it is installed and colours are wanted."""
        if not rows:
            return
        if not self.colour or not self._rich_table(columns, rows):
            self._plain_table(columns, rows)

    def _rich_table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
        try:
            from rich.box import SIMPLE_HEAD
            from rich.console import Console
            from rich.table import Table
            from rich.text import Text
        except ImportError:
            return False
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for number, column in enumerate(columns):
            # Ids are copied into the next command: they are never broken or cut.
            table.add_column(column, overflow="fold", no_wrap=number == 0)
        for row in rows:
            table.add_row(*(Text.from_ansi(self.word(cell)) for cell in row))
        Console(file=self.out, force_terminal=True).print(table)
        return True

    def _plain_table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        widths = [max(len(cell) for cell in cells) for cells in zip(columns, *rows, strict=True)]
        heading = [column.ljust(width) for column, width in zip(columns, widths, strict=True)]
        self.line(self.paint("  ".join(heading).rstrip(), _BOLD))
        for row in rows:
            cells = [
                self.word(cell) + " " * (width - len(cell))
                for cell, width in zip(row, widths, strict=True)
            ]
            self.line("  ".join(cells).rstrip())


def shown_time(at: datetime | None) -> str:
    """Write a time as people read it, in UTC to the second; empty for None."""
    return "" if at is None else at.strftime("%Y-%m-%d %H:%M:%S")


def shown_span(span: timedelta) -> str:
    """Write a length of time by its two largest units, such as `3 h 12 min`."""
    seconds = abs(span) / timedelta(seconds=1)
    if seconds < 1:
        return "less than 1 s"
    whole = int(seconds)
    parts = [
        f"{count} {unit}"
        for count, unit in (
            (whole // 86_400, "d"),
            (whole // 3_600 % 24, "h"),
            (whole // 60 % 60, "min"),
            (whole % 60, "s"),
        )
        if count
    ]
    return " ".join(parts[:2])


def shown_json(value: JsonValue) -> str:
    """Write a payload on one line."""
    return json.dumps(value, ensure_ascii=False)
