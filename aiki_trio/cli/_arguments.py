"""The parser: every command, its arguments and flags. It says what there is and does nothing.

Each command names the coroutine that carries it out; `main` calls it. Flags of settings come from
the table in `_settings`, so that a setting is described once.
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeAlias

from attrs import fields

from aiki_sdk import OnConflict, Priority, RunStatus

from . import _completion, _dev, _doctor, _explain, _migrate, _runs, _serve, _tree, _work
from ._command import Command
from ._completion import SHELLS
from ._exit import ExitCode
from ._settings import KINDS, CliSettings, variable_of

Carry = Callable[[Command], Awaitable[ExitCode]]

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # argparse has no public name for it

BUILT_IN_SCRUB: Final = "default"
"""What `--scrub` without a function stands for."""

RUN_HELP: Final = "the run: its id, or WORKFLOW:REFERENCE_ID"
TIME_HELP: Final = "seconds, or 90s, 5m, 2h, 3d"

_REASONED: Final = {
    "cancel": "ask runs to unwind: tasks are cancelled, compensations run, then they end",
    "terminate": "end runs at once, without running any of their code",
    "pause": "let nothing of runs be executed; waits go on elapsing, events arriving",
}
_PLAIN: Final = {
    "resume": "lift a pause",
    "wake": "end a sleep now",
    "requeue": "let stalled runs try again",
    "retry": "send failed runs round again; they keep what they have completed",
}


async def _record(command: Command) -> ExitCode:
    """Load the test kit, which takes a while, only for the command that needs it."""
    from ._record import record

    return await record(command)


async def _replay(command: Command) -> ExitCode:
    """The same for `aiki replay`."""
    from ._replay import replay_runs

    return await replay_runs(command)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `aiki`."""
    parser = argparse.ArgumentParser(
        prog="aiki",
        description="Durable workflows on Trio: run, look, steer, check.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and leave")
    commands = parser.add_subparsers(dest="group", metavar="COMMAND")
    _add_dev(commands)
    _add_server(commands)
    _add_worker(commands)
    _add_start(commands)
    _add_runs(commands)
    _add_explain(commands)
    _command(commands, "tree", "the live actors, and who supervises whom", _tree.show_tree)
    _add_doctor(commands)
    _add_migrate(commands)
    _add_record(commands)
    _add_replay(commands)
    _add_completion(commands)
    return parser


def _command(
    commands: Commands, name: str, meaning: str, carry: Carry, *kinds: str
) -> argparse.ArgumentParser:
    """Add a command with the flags of its settings: those of all, and of these kinds."""
    parser = commands.add_parser(
        name, help=meaning, description=f"{meaning[0].upper()}{meaning[1:]}.", allow_abbrev=False
    )
    parser.set_defaults(carry=carry)
    _add_settings(parser, ("all", *kinds))
    return parser


def _add_settings(parser: argparse.ArgumentParser, kinds: Iterable[str]) -> None:
    group = parser.add_argument_group("settings")
    group.add_argument(
        "--config", metavar="FILE", help="the settings file (AIKI_CONFIG; aiki.toml)"
    )
    group.add_argument(
        "--profile", metavar="NAME", help="the profile in the settings file (AIKI_PROFILE)"
    )
    wanted = frozenset(kinds)
    for attribute in fields(CliSettings):
        if attribute.metadata["secret"] or not attribute.metadata["of"] & wanted:
            continue
        flag = f"--{attribute.name.replace('_', '-')}"
        meaning = f"{attribute.metadata['meaning']} ({variable_of(attribute.name)})"
        if isinstance(attribute.default, bool):
            group.add_argument(flag, action="store_true", default=None, help=meaning)
        elif attribute.metadata["choices"]:
            group.add_argument(flag, choices=attribute.metadata["choices"], help=meaning)
        else:
            kind = KINDS.get(attribute.name, str)
            group.add_argument(flag, type=kind, metavar=attribute.name.upper(), help=meaning)


def _add_dev(commands: Commands) -> None:
    parser = _command(
        commands, "dev", "run a module's workflows, reloading on change", _dev.dev, "dev"
    )
    parser.add_argument("module", metavar="MODULE", nargs="?", help="a dotted name or a .py file")
    parser.add_argument("--no-reload", action="store_true", help="do not watch the code")


def _add_server(commands: Commands) -> None:
    meaning = "serve workers and clients; execute nothing"
    parser = _command(commands, "server", meaning, _serve.serve, "server")
    parser.add_argument(
        "--migrate", action="store_true", help="bring the database's schema up to date first"
    )


def _add_worker(commands: Commands) -> None:
    parser = _command(
        commands, "worker", "execute a module's workflows for a server", _work.work, "worker"
    )
    parser.add_argument("module", metavar="MODULE", nargs="?", help="a dotted name or a .py file")
    parser.add_argument("--reload", action="store_true", help="start anew when the code changes")


def _add_start(commands: Commands) -> None:
    parser = _command(commands, "start", "start a run", _runs.start_run, "module")
    add = parser.add_argument
    add("workflow", metavar="WORKFLOW", help="its name, or NAME@VERSION")
    add("--input", default="{}", metavar="JSON", help="the parameters by name; @FILE; - for stdin")
    add("--reference-id", metavar="ID", help="your own name for the run, unique per workflow")
    add(
        "--on-conflict",
        choices=[word.value for word in OnConflict],
        default=OnConflict.ERROR.value,
        help="what to do if the reference id names another run",
    )
    add("--delay", metavar="TIME", help=f"how long until it starts: {TIME_HELP}")
    add("--timeout", metavar="TIME", help="how long the whole run may take")
    add("--priority", choices=[word.value for word in Priority], help="which runs go first")
    add("--pool", metavar="NAME", help="the workers that execute it")
    add("--label", action="append", metavar="NAME=VALUE", help="to find it by; repeatable")
    add("--wait", action="store_true", help="wait for its end and print what it returned")
    add("--wait-timeout", metavar="TIME", help="how long to wait; exit code 6 if that is over")


def _add_runs(commands: Commands) -> None:
    parser = commands.add_parser("runs", help="look at runs and steer them", allow_abbrev=False)
    runs = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_list(runs)
    show = _command(runs, "show", "all that is known of a run", _runs.show_run)
    show.add_argument("run", metavar="RUN", help=RUN_HELP)
    history = _command(runs, "history", "the journal of a run", _runs.show_history)
    history.add_argument("run", metavar="RUN", help=RUN_HELP)
    history.add_argument("--after", type=int, default=0, metavar="SEQ", help="entries after this")
    history.add_argument("--bodies", action="store_true", help="with all facts, payloads included")
    watch = _command(runs, "watch", "what happens to a run, until it ends", _runs.watch_run)
    watch.add_argument("run", metavar="RUN", help=RUN_HELP)
    watch.add_argument("--all", action="store_true", help="from its first entry")
    for word, meaning in {**_REASONED, **_PLAIN}.items():
        control = _command(runs, word, meaning, _runs.control_runs, "module")
        control.add_argument("runs", metavar="RUN", nargs="+", help=RUN_HELP)
        if word in _REASONED:
            control.add_argument("--reason", metavar="TEXT", help="why; it is kept in the journal")
        if word == "wake":
            control.add_argument("--sleep", metavar="NAME", help="which one; else the first to end")
    send = _command(runs, "send", "send an event to a run", _runs.send_event, "module")
    send.add_argument("run", metavar="RUN", help=RUN_HELP)
    send.add_argument("event", metavar="EVENT", help="the event's name")
    send.add_argument("--data", metavar="JSON", help="what it carries; @FILE; - for stdin")
    send.add_argument("--reference-id", metavar="ID", help="sent again under it, it counts once")
    fork = _command(runs, "fork", "make a new run of a run's past", _runs.fork_run, "module")
    fork.add_argument("run", metavar="RUN", help=RUN_HELP)
    fork.add_argument("--at", type=int, required=True, metavar="SEQ", help="the last entry to keep")
    fork.add_argument("--input", metavar="JSON", help="other parameters, by name")
    fork.add_argument("--to-version", metavar="VERSION", help="another version of the workflow")


def _add_list(runs: Commands) -> None:
    parser = _command(runs, "list", "runs, the newest first", _runs.list_runs)
    add = parser.add_argument
    add("--status", action="append", choices=[s.value for s in RunStatus], help="repeatable")
    add("--workflow", metavar="NAME", help="runs of this workflow")
    add("--version", metavar="VERSION", help="of this version")
    add("--reference-id", metavar="ID", help="with this reference id")
    add("--parent-id", metavar="RUN", help="children of this run")
    add("--label", action="append", metavar="NAME=VALUE", help="with this label; repeatable")
    add("--query", metavar="WORDS", help="with each word in its id, workflow or reference id")
    add("--undeliverable", action="store_true", help="queued, and no connected worker serves them")
    add("--since", metavar="TIME", help=f"created since then: ISO 8601, or {TIME_HELP} ago")
    add("--limit", type=int, default=50, metavar="N", help="runs on the page, at most 500")
    add("--cursor", metavar="CURSOR", help="where the page before ended")
    add("--count", action="store_true", help="print only how many there are")


def _add_explain(commands: Commands) -> None:
    parser = _command(
        commands, "explain", "where a run is, and what would move it", _explain.explain_run
    )
    parser.add_argument("run", metavar="RUN", help=RUN_HELP)


def _add_doctor(commands: Commands) -> None:
    parser = _command(
        commands, "doctor", "check Python, the database and its runs", _doctor.doctor, "module"
    )
    parser.add_argument("--thorough", action="store_true", help="read through files of any size")


def _add_migrate(commands: Commands) -> None:
    meaning = "bring the database's schema up to date"
    parser = _command(commands, "migrate", meaning, _migrate.migrate_database)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit code 1 if it is not up to date"
    )


def _add_record(commands: Commands) -> None:
    parser = _command(commands, "record", "write journals of runs to files", _record)
    add = parser.add_argument
    add("--out", required=True, metavar="DIR", help="where to; made if there is none")
    add("--sample", type=int, default=100, metavar="N", help="so many, of every kind in turn")
    add("--workflow", metavar="NAME", help="only of this workflow")
    add("--status", action="append", choices=[s.value for s in RunStatus], help="repeatable")
    add("--run", action="append", metavar="RUN", help="this run, instead of a sample; repeatable")
    add(
        "--scrub",
        nargs="?",
        const=BUILT_IN_SCRUB,
        metavar="MODULE:FUNCTION",
        help="replace payloads: texts and numbers, or as this function says",
    )


def _add_replay(commands: Commands) -> None:
    parser = _command(commands, "replay", "tell which recorded runs this code would break", _replay)
    add = parser.add_argument
    add("module", metavar="MODULE", nargs="?", help="the code: a dotted name or a .py file")
    add("--file", action="append", metavar="F", help="a journal; repeatable")
    add("--folder", action="append", metavar="DIR", help="every journal in it; repeatable")
    add("--run", action="append", metavar="RUN", help=f"{RUN_HELP}; repeatable")


def _add_completion(commands: Commands) -> None:
    meaning = "print the script that completes commands in a shell"
    parser = commands.add_parser(
        "completion", help=meaning, description=f"{meaning}.", allow_abbrev=False
    )
    parser.set_defaults(carry=_completion.complete)
    parser.add_argument("shell", choices=SHELLS, help="which shell")
