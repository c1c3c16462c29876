"""The parser, the scripts made of it, and the exit codes."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from aiki_sdk import (
    AikiError,
    IllegalTransition,
    InvalidRequest,
    NotFound,
    ResultTimeout,
    StorageLocked,
    Unavailable,
    UnknownWorkflow,
)
from aiki_trio.cli import MEANINGS, ExitCode, build_parser, main
from aiki_trio.cli._completion import completion_script, flags, levels, subcommands
from aiki_trio.cli._exit import exit_code_of, only_error


def test_every_command_and_flag_says_what_it_is() -> None:
    def check(path: str) -> None:
        parser = build_parser()
        for word in path.split():
            parser = subcommands(parser)[word][0]
        assert all(action.help for action in flags(parser)), path
        for name, (_, meaning) in subcommands(parser).items():
            assert meaning, f"{path} {name}"
            check(f"{path} {name}".strip())

    check("")


def test_no_command_but_completion_is_without_json() -> None:
    with_flags = {level.path: level.flags for level in levels(build_parser()) if not level.commands}
    assert {path for path, found in with_flags.items() if "--json" not in found} == {"completion"}


def test_every_exit_code_has_its_meaning() -> None:
    assert set(MEANINGS) == set(ExitCode)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("x"), ExitCode.USAGE),
        (UnknownWorkflow("a", None, []), ExitCode.NOT_FOUND),
        (NotFound("x"), ExitCode.NOT_FOUND),
        (IllegalTransition.from_wire("x"), ExitCode.REFUSED),
        (StorageLocked("x"), ExitCode.UNAVAILABLE),
        (Unavailable("x"), ExitCode.UNAVAILABLE),
        (ResultTimeout.from_wire("x"), ExitCode.TIMED_OUT),
        (AikiError("x"), ExitCode.REFUSED),
    ],
)
def test_errors_lead_to_stable_codes(error: AikiError, code: ExitCode) -> None:
    assert exit_code_of(error) is code


def test_a_group_of_one_error_is_that_error() -> None:
    inner = NotFound("x")
    assert only_error(ExceptionGroup("a", [ExceptionGroup("b", [inner])])) is inner
    both = ExceptionGroup("a", [inner, NotFound("y")])
    assert only_error(both) is both


@pytest.mark.parametrize(
    "words", [[], ["runs"], ["nonsense"], ["runs", "list", "--sta", "failed"], ["start"]]
)
def test_what_is_no_command_is_a_usage_error(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == ExitCode.USAGE
    assert "usage: aiki" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_knows_every_command_and_is_understood_by_its_shell(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == ExitCode.OK
    script = capsys.readouterr().out
    for level in levels(build_parser()):
        assert all(name in script for name in level.commands)
    if shutil.which(shell):
        checked = subprocess.run(
            [shell, "-n"], input=script, text=True, capture_output=True, check=False
        )
        assert checked.returncode == 0, checked.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "offered"),
    [("aiki ru", "runs"), ("aiki runs ca", "cancel"), ("aiki runs list --coun", "--count")],
)
def test_bash_completes_a_word(words: str, offered: str) -> None:
    script = completion_script(build_parser(), "bash")
    typed = words.split()
    program = (
        f"{script}\nCOMP_WORDS=({words}); COMP_CWORD={len(typed) - 1}; _aiki; "
        'echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", program], text=True, capture_output=True, check=True, timeout=20
    )
    assert offered in done.stdout.split()


@pytest.mark.parametrize("words", [["schedules", "list"], ["keys", "create"], ["keys"]])
def test_a_command_that_this_version_lacks_is_named(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == ExitCode.USAGE
    assert f"this version has no `aiki {words[0]}`; " in capsys.readouterr().err
