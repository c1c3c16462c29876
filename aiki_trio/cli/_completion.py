"""`aiki completion`: a script per shell, made of the parser and printed once.

The scripts are static: completing a word starts no Python. Print them anew after an upgrade.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Final

from attrs import frozen

from ._command import Command
from ._exit import ExitCode

SHELLS: Final = ("bash", "zsh", "fish")


@frozen
class Level:
    """A command, and what may follow it.

    Attributes:
        path: the words that lead here, such as `runs list`; empty for `aiki` itself.
        commands: further commands and what they do.
        flags: its flags and what they mean.
    """

    path: str
    commands: Mapping[str, str]
    flags: Mapping[str, str]


def subcommands(
    parser: argparse.ArgumentParser,
) -> dict[str, tuple[argparse.ArgumentParser, str]]:
    """Return the commands below a parser: each one's parser and what it does."""
    for action in parser._actions:  # noqa: SLF001  # argparse has no other way
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            parsers: dict[str, argparse.ArgumentParser] = vars(action)["choices"]
            choices = action._choices_actions  # noqa: SLF001
            helps = {choice.dest: choice.help or "" for choice in choices}
            return {name: (found, helps.get(name, "")) for name, found in parsers.items()}
    return {}


def flags(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the flags of a parser that are shown."""
    actions = parser._actions  # noqa: SLF001
    return [one for one in actions if one.option_strings and one.help != argparse.SUPPRESS]


def levels(parser: argparse.ArgumentParser, path: str = "") -> Iterator[Level]:
    """Yield every command of a parser, itself first."""
    below = subcommands(parser)
    shown = {flag: action.help or "" for action in flags(parser) for flag in action.option_strings}
    yield Level(path, {name: text for name, (_, text) in below.items()}, shown)
    for name, (child, _) in below.items():
        yield from levels(child, f"{path} {name}".strip())


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script of a shell."""
    known = list(levels(parser))
    if shell == "fish":
        return _fish(known)
    return _bash(known) if shell == "bash" else _zsh(known)


async def complete(command: Command) -> ExitCode:
    """Print the script."""
    from ._arguments import build_parser

    command.output.line(completion_script(build_parser(), command.arguments.shell).rstrip())
    return ExitCode.OK


def _cases(known: list[Level], indent: str) -> str:
    """Map each path to the words that may follow, as the arms of a shell's `case`."""
    return "\n".join(
        f'{indent}"{level.path}") words="{" ".join([*level.commands, *level.flags])}" ;;'
        for level in known
    )


def _paths(known: list[Level]) -> str:
    return "|".join(f'"{level.path}"' for level in known if level.path)


def _bash(known: list[Level]) -> str:
    return f"""# bash completion of aiki; use: eval "$(aiki completion bash)"
_aiki() {{
    local path="" word words next
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        next="${{path:+$path }}$word"
        case "$next" in {_paths(known)}) path="$next" ;; esac
    done
    case "$path" in
{_cases(known, "        ")}
    esac
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
    [ ${{#COMPREPLY[@]}} -gt 0 ] || COMPREPLY=($(compgen -f -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -F _aiki aiki
"""


def _zsh(known: list[Level]) -> str:
    return f"""#compdef aiki
# zsh completion of aiki; use: eval "$(aiki completion zsh)", or save it as _aiki in $fpath
_aiki() {{
    local at="" word known next
    for word in "${{(@)words[2,CURRENT-1]}}"; do
        next="${{at:+$at }}$word"
        case "$next" in ({_paths(known)}) at="$next" ;; esac
    done
    case "$at" in
{_cases(known, "        ").replace('words="', 'known="')}
    esac
    compadd -- ${{=known}}
    _files
}}
compdef _aiki aiki
"""


def _fish(known: list[Level]) -> str:
    lines = [
        "# fish completion of aiki; use: aiki completion fish | source",
        "function __aiki_at",
        "    set -l at ''",
        "    for word in (commandline -opc)[2..]",
        '        set -l next (string trim -- "$at $word")',
        f'        contains -- "$next" {_fish_paths(known)}; and set at "$next"',
        "    end",
        '    test "$at" = "$argv[1]"',
        "end",
    ]
    for level in known:
        condition = f"-n '__aiki_at \"{level.path}\"'"
        lines += [
            f"complete -c aiki {condition} -f -a {name} -d {_quoted(text)}"
            for name, text in level.commands.items()
        ]
        lines += [
            f"complete -c aiki {condition} -l {flag[2:]} -d {_quoted(text)}"
            for flag, text in level.flags.items()
            if flag.startswith("--")
        ]
    return "\n".join(lines) + "\n"


def _fish_paths(known: list[Level]) -> str:
    return " ".join(f"'{level.path}'" for level in known if level.path)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
