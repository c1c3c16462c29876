"""Checks the commands that a page shows: that each names something which exists.

Commands are not executed: they install, serve and wait. What can rot in them is their names: a nox
session that was renamed, a module that was moved, an extra that is gone. A command that this module
does not know is refused, so that whoever writes a new kind of command says here how it is checked.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

from aiki_trio.cli import build_parser
from tests.docs._markdown import ROOT, Block

# Shown to readers, and nothing of this repository is named in them.
_FOREIGN = frozenset(
    {"cd", "createdb", "curl", "docker", "echo", "eval", "export", "git", "kill", "mkdir", "psql"}
    | {"codespell", "lint-imports", "mypy", "pyright", "ruff"}
    | {"redis-cli", "redis-server", "source", ".", "systemctl", "uv"}
)
_SEPARATORS = frozenset({"&&", "||", ";", "|", "&"})
_ASSIGNMENT = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*=")


def nox_sessions() -> frozenset[str]:
    """Read the names of the sessions from the noxfile, without running it."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    return frozenset(
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any("nox.session" in ast.unparse(decorator) for decorator in node.decorator_list)
    )


def project() -> dict[str, dict[str, object]]:
    """Read the `project` table of pyproject.toml."""
    table: dict[str, dict[str, object]] = tomllib.loads((ROOT / "pyproject.toml").read_text())[
        "project"
    ]
    return table


def commands_of(block: Block) -> Iterator[tuple[int, list[str]]]:
    """Split a block into commands, each with its line; joined, piped and continued ones too.

    In a `console` block the commands are the lines after a `$`; the rest is what they print.
    """
    line = block.line
    pending = ""
    for number, raw in enumerate(block.text.splitlines(), start=block.line):
        text = raw
        if not pending:
            line = number
            if block.language == "console":
                if not raw.startswith("$ "):
                    continue
                text = raw.removeprefix("$ ")
        if text.endswith("\\"):
            pending += text[:-1] + " "
            continue
        lexer = shlex.shlex(pending + text, posix=True, punctuation_chars="&|;")
        lexer.whitespace_split = True
        pending = ""
        command: list[str] = []
        for word in lexer:
            if word in _SEPARATORS:
                yield line, command
                command = []
            else:
                command.append(word)
        yield line, command


def complaint(command: list[str]) -> str | None:
    """Say what is wrong with a command; None if everything that it names exists."""
    words = list(command)
    while words and _ASSIGNMENT.match(words[0]):
        words.pop(0)
    if not words or words[0] in _FOREIGN:
        return None
    program, *arguments = words
    check = _CHECKS.get(program)
    if check is not None:
        return check(arguments)
    if "/" in program:
        return _missing_file(program)
    return f"nothing here knows how to check {program!r}: teach tests/docs/_commands.py"


def _missing_file(name: str) -> str | None:
    return None if (ROOT / name).exists() else f"{name} does not exist"


def _python(arguments: list[str]) -> str | None:
    match arguments:
        case ["-m", "nox", *rest]:
            return _nox(rest)
        case ["-m", "pip", *rest]:
            return _pip(rest)
        case ["-m", "pytest", *rest]:
            return _pytest(rest)
        case ["-m", "venv", *_]:
            return None
        case ["-m", module, *_]:
            return _module(module)
        case [script, *_] if script.endswith(".py"):
            return _missing_file(script)
        case _:
            return f"`python {' '.join(arguments)}`: neither -m MODULE nor a script"


def _module(name: str) -> str | None:
    path = ROOT / Path(*name.split("."))
    if path.with_suffix(".py").is_file() or (path / "__main__.py").is_file():
        return None
    try:
        found = importlib.util.find_spec(f"{name}.__main__") or importlib.util.find_spec(name)
    except ModuleNotFoundError:
        found = None
    return None if found else f"there is no module {name}"


def _nox(arguments: list[str]) -> str | None:
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    sessions = nox_sessions()
    if own in ([], ["-l"], ["--list"]):
        return None
    if own[0] not in {"-s", "--session", "--sessions", "-e"}:
        return f"nox option {own[0]!r}: pages show `-s SESSION` and `-l` only"
    for name in own[1:]:
        # A session on several interpreters is also known as NAME-VERSION.
        if re.sub(r"-3\.\d+$", "", name) not in sessions:
            return f"noxfile.py has no session {name!r}; it has {', '.join(sorted(sessions))}"
    return None if own[1:] else "no session is named"


def _pip(arguments: list[str]) -> str | None:
    if arguments[:1] != ["install"]:
        return None
    extras = project()["optional-dependencies"]
    for argument in arguments[1:]:
        match = re.fullmatch(r"(?:aiki-trio|\.)(?:\[(?P<extras>[^\]]*)\])?(?:[=<>~!].*)?", argument)
        if match and match["extras"]:
            unknown = [name for name in match["extras"].split(",") if name.strip() not in extras]
            if unknown:
                return f"no extra {', '.join(unknown)}; there are {', '.join(sorted(extras))}"
    return None


def _pytest(arguments: list[str]) -> str | None:
    for argument in arguments:
        path = argument.partition("::")[0]
        if path.startswith("tests/") and not (ROOT / path).exists():
            return f"{path} does not exist"
    return None


def _bash(arguments: list[str]) -> str | None:
    return _missing_file(arguments[0]) if arguments else "no script is named"


def _aiki(arguments: list[str]) -> str | None:
    if "aiki" not in project().get("scripts", {}):
        return "pyproject.toml declares no command `aiki`"
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            build_parser().parse_args(arguments)
    except SystemExit as leaving:
        if leaving.code:
            return f"`aiki {' '.join(arguments)}`: {said.getvalue().strip().splitlines()[-1]}"
    return None


_CHECKS: dict[str, Callable[[list[str]], str | None]] = {
    "aiki": _aiki,
    "bash": _bash,
    "nox": _nox,
    "pip": _pip,
    "pytest": _pytest,
    "python": _python,
    "python3": _python,
}
