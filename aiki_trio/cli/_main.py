"""`main`: from what was typed to an exit code. Every error of ours ends here, as one line."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

import trio

from aiki_sdk import AikiError, InvalidRequest

from ._arguments import Carry, build_parser
from ._command import Command
from ._completion import subcommands
from ._exit import ExitCode, exit_code_of, only_error
from ._output import Output
from ._settings import CliSettings, read_settings

ABSENT: Final = {
    "schedules": "start runs with --delay, or let a run sleep and then continue as new",
    "keys": "tell the server its keys by AIKI_API_KEYS",
}
"""Commands that are asked for and not there yet, and what there is."""


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command.

    Args:
        argv: the words after `aiki`; None: those that the program was called with.

    Returns:
        The exit code; see `ExitCode`.
    """
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in ABSENT:
        return _refused(
            InvalidRequest(f"this version has no `aiki {words[0]}`; {ABSENT[words[0]]}"),
            Output(sys.stdout, sys.stderr, json="--json" in words),
        )
    parser = build_parser()
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as leaving:  # after --help, or with a usage message
        return leaving.code if isinstance(leaving.code, int) else ExitCode.USAGE
    if arguments.version is True and not arguments.group:
        sys.stdout.write(f"aiki-trio {importlib.metadata.version('aiki-trio')}\n")
        return ExitCode.OK
    if not hasattr(arguments, "carry"):
        return _show_help(parser, arguments)
    return _carry_out(arguments)


def _show_help(parser: ArgumentParser, arguments: Namespace) -> int:
    found = subcommands(parser).get(arguments.group or "")
    (parser if found is None else found[0]).print_help(sys.stderr)
    return ExitCode.USAGE


def _carry_out(arguments: Namespace) -> int:
    flags: dict[str, object] = vars(arguments)
    output = Output(sys.stdout, sys.stderr, json=flags.get("json") is True)
    try:
        settings = read_settings(flags, os.environ, Path.cwd())
        output.json = settings.json
        output.colour = _wants_colour(settings)
        command = Command(arguments, settings, output)
        return trio.run(cast("Carry", arguments.carry), command)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read has enough (`aiki runs list | head`); Python must not complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except (AikiError, BaseExceptionGroup) as raised:
        return _refused(only_error(raised), output)


def _refused(error: BaseException, output: Output) -> int:
    match error:
        case AikiError():
            output.error(error)
            return exit_code_of(error)
        case KeyboardInterrupt():
            return ExitCode.INTERRUPTED
        case _:
            raise error


def _wants_colour(settings: CliSettings) -> bool:
    if settings.json or settings.color == "never":
        return False
    if settings.color == "always":
        return True
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
