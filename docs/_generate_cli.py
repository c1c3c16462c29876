"""Write `docs/reference/cli.md`, and the list of edits in `docs/how-to/live-with-code-changes.md`.

Run it from the repository after a change to a command, a flag, a setting of the command line, an
exit code or the list of edits that the tests try: `python docs/_generate_cli.py`. A test fails as
long as a page is stale.

Everything is read from the parser and the tables behind it, not from `--help`, whose layout differs
between releases of Python.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import attrs

ROOT: Final = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from aiki_trio.cli import (  # noqa: E402  # the list of edits needs the path above
    MEANINGS,
    CliSettings,
    build_parser,
    variable_of,
)
from aiki_trio.cli._completion import flags, subcommands  # noqa: E402
from tests.integration.code_changes import EDITS, SAFE, UNSAFE, Edit  # noqa: E402

REFERENCE: Final = ROOT / "docs" / "reference" / "cli.md"
CHANGES: Final = ROOT / "docs" / "how-to" / "live-with-code-changes.md"
GENERATED: Final = "<!-- Written by docs/_generate_cli.py; do not edit it by hand. -->"
BEGIN: Final = "<!-- The rest is written by docs/_generate_cli.py from the tests. -->"

SETTING_FLAGS: Final = frozenset(
    f"--{attribute.name.replace('_', '-')}" for attribute in attrs.fields(CliSettings)
)
EVERYWHERE: Final = frozenset({"-h", "--help", "--config", *SETTING_FLAGS})

INTRODUCTION: Final = """
`aiki COMMAND [ARGUMENTS] [FLAGS]`; `python -m aiki_trio.cli` is the same. This page is for looking
things up; [Use the command line](../how-to/use-the-command-line.md) shows it at work.

`RUN` is a run's id, or `WORKFLOW:REFERENCE_ID`. `JSON` is a document, `@FILE`, or `-` for standard
input. `TIME` is a number of seconds, or one with a unit: `90s`, `5m`, `2h`, `3d`. With `--json` a
command prints one document, or one line per item where it streams (`dev`, `runs watch`), and errors
are JSON on standard error.
"""

SETTINGS_TEXT: Final = """
A flag wins over the variable, the variable over the file, the file over the default. The file is
`aiki.toml` in the current folder, or the one that `--config` or `AIKI_CONFIG` names; its keys are
the settings' names. A key that is no setting is refused.
"""


def cell(text: str) -> str:
    """Write a text so that a table keeps its columns."""
    return text.replace("|", "\\|").replace("\n", " ")


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield the lines of a table."""
    names = list(columns)
    yield f"| {' | '.join(names)} |"
    yield "|" + "---|" * len(names)
    for row in rows:
        yield f"| {' | '.join(map(cell, row))} |"
    yield ""


def shown(action: argparse.Action) -> str:
    """Write a flag with its value, as it is typed."""
    flag = action.option_strings[-1]
    if action.nargs == 0:
        return f"`{flag}`"
    value = str(action.metavar or "")
    if action.choices is not None:
        value = " | ".join(map(str, action.choices))
    return f"`{flag} [{value}]`" if action.nargs == "?" else f"`{flag} {value}`"


def own_flags(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the flags of a command that are not settings."""
    return [one for one in flags(parser) if not EVERYWHERE.intersection(one.option_strings)]


def positionals(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the arguments that a command takes by position."""
    actions: list[argparse.Action] = vars(parser)["_actions"]
    return [
        one for one in actions if not one.option_strings and one.dest not in {"group", "command"}
    ]


def usage(path: str, parser: argparse.ArgumentParser) -> str:
    """Write how a command is called."""
    words = ["aiki", path]
    for action in positionals(parser):
        name = str(action.metavar or "|".join(map(str, action.choices or [action.dest])))
        words.append({"?": f"[{name}]", "+": f"{name}…"}.get(str(action.nargs), name))
    return " ".join(words)


def commands(
    parser: argparse.ArgumentParser, path: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    """Yield every command that does something: its words, its parser, and what it does."""
    for name, (child, meaning) in subcommands(parser).items():
        words = f"{path} {name}".strip()
        if subcommands(child):
            yield from commands(child, words)
        else:
            yield words, child, meaning


def command_lines(path: str, parser: argparse.ArgumentParser, meaning: str) -> Iterator[str]:
    """Yield the lines about one command."""
    yield from (f"### aiki {path}", "", f"{meaning[0].upper()}{meaning[1:].rstrip('?.')}.", "")
    yield from ("```text", usage(path, parser), "```", "")
    rows = [(shown(action), action.help or "") for action in own_flags(parser)]
    if rows:
        yield from table(("flag", "meaning"), rows)
    settings = [
        flag for action in flags(parser) for flag in action.option_strings if flag in SETTING_FLAGS
    ]
    if settings:
        yield f"Settings: {', '.join(f'`{flag}`' for flag in settings)}."
        yield ""


def setting_rows() -> Iterator[tuple[str, str, str, str]]:
    """Yield a row for each setting of the command line."""
    for attribute in attrs.fields(CliSettings):
        default = attribute.default
        text = {None: "", False: "false"}.get(default, str(default))
        meaning = attribute.metadata["meaning"]
        if attribute.metadata["choices"]:
            meaning += f" ({', '.join(attribute.metadata['choices'])})"
        yield f"`{attribute.name}`", f"`{variable_of(attribute.name)}`", text, meaning


def reference_page() -> str:
    """Return the page of commands, settings and exit codes."""
    lines = ["# Command line", "", GENERATED, INTRODUCTION, "## Commands", ""]
    for path, parser, meaning in commands(build_parser()):
        lines += command_lines(path, parser, meaning)
    lines += ["## Settings", SETTINGS_TEXT]
    lines += table(("setting and key", "variable", "default", "meaning"), setting_rows())
    lines += ["## Exit codes", ""]
    codes = [(str(int(code)), code.name.lower(), text) for code, text in MEANINGS.items()]
    lines += table(("code", "name", "meaning"), codes)
    return "\n".join(lines).rstrip("\n") + "\n"


def edit_rows(edits: Iterable[Edit]) -> Iterator[tuple[str, str, str]]:
    """Yield a row for each edit."""
    for edit in edits:
        yield edit.change, f"{edit.verdict.value}", edit.because


def changes_page() -> str:
    """Return the page about code changes: what is written by hand, then the list of edits."""
    head, begin, _ = CHANGES.read_text(encoding="utf-8").partition(BEGIN)
    assert begin, f"{CHANGES} lacks the line {BEGIN!r}"
    lines = [BEGIN, "", "## Safe edits", ""]
    lines += table(("change", "live runs", "why"), edit_rows(SAFE))
    lines += ["## Edits that need care", ""]
    lines += table(("change", "live runs", "why"), edit_rows(UNSAFE))
    lines += ["## The edits as they were tried", ""]
    lines += ["The run waits at `await run.wait(go)` when its code is replaced.", ""]
    for edit in EDITS:
        title = f"{edit.change[0].upper()}{edit.change[1:]}"
        lines += [f"**{title}**: {edit.verdict.value}.", "", "```diff", edit.diff, "```", ""]
    return head + "\n".join(lines).rstrip("\n") + "\n"


def generated_pages() -> dict[Path, str]:
    """Return every generated page and its text."""
    return {REFERENCE: reference_page(), CHANGES: changes_page()}


if __name__ == "__main__":
    for target, page in generated_pages().items():
        target.write_text(page, encoding="utf-8")
