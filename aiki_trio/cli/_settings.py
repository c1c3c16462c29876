"""Settings of the command line: flags, then `AIKI_*` variables, then `aiki.toml`, then defaults.

A setting has one name everywhere: `database_url` in the file, `AIKI_DATABASE_URL` in the
environment, `--database-url` as a flag. The file is `aiki.toml` in the current folder, or the one
that `--config` or `AIKI_CONFIG` names.

Invariant: a key that the file has and this table lacks is refused, for it is a mistake in writing.
Variables that are not in the table are left alone: the environment belongs to others too.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, cast

from attrs import asdict, field, fields, frozen

from aiki_sdk import InvalidRequest

CONFIG_FILE: Final = "aiki.toml"
PREFIX: Final = "AIKI_"
SQLITE_FILE: Final = "sqlite:///"

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off", ""})


def _setting(
    default: object, meaning: str, *, of: str = "all", choices: tuple[str, ...] = ()
) -> Any:
    """Declare a setting; `of`: the command that takes its flag, or all."""
    return field(default=default, metadata={"meaning": meaning, "of": of, "choices": choices})


@frozen
class CliSettings:
    """What holds for one command."""

    database_url: str = _setting("sqlite:///aiki.db", "where runs are kept")
    namespace: str = _setting("default", "the namespace of the runs")
    module: str | None = _setting(
        None, "the workflows' code: a dotted name, or the path of a .py file", of="module"
    )
    json: bool = _setting(False, "print JSON: one document, or one line per item of a stream")
    color: Literal["auto", "always", "never"] = _setting(
        "auto", "colours; auto: on a terminal", choices=("auto", "always", "never")
    )
    synchronous: Literal["full", "normal"] = _setting(
        "full", "what survives a power cut", of="dev", choices=("full", "normal")
    )
    runs_max: int = _setting(100, "runs executed at the same time", of="dev")
    shutdown_grace_s: float = _setting(
        5.0, "seconds that running tasks have to end at a stop or reload", of="dev"
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "warning",
        "what the runtime logs",
        of="dev",
        choices=("debug", "info", "warning", "error"),
    )

    @property
    def database_path(self) -> Path:
        """The database's file.

        Raises:
            InvalidRequest: the database is no file, so that no other process can see it.
        """
        path = self.database_url.removeprefix(SQLITE_FILE)
        if path in ("", self.database_url):
            message = (
                f"database_url={self.database_url!r} is not valid here: a command needs a file "
                "that it shares with the runtime; use sqlite:///file.db"
            )
            raise InvalidRequest(message)
        return Path(path)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain values, to be handed to another process."""
        return asdict(self)


SETTING_NAMES: Final = tuple(attribute.name for attribute in fields(CliSettings))
KINDS: Final[dict[str, type[bool | int | float]]] = {
    "json": bool,
    "runs_max": int,
    "shutdown_grace_s": float,
}
"""What a setting's value is, where it is no text."""


def variable_of(name: str) -> str:
    """Return the environment variable of a setting."""
    return f"{PREFIX}{name.upper()}"


def read_settings(
    flags: Mapping[str, object], environment: Mapping[str, str], folder: Path
) -> CliSettings:
    """Put the settings of one command together.

    Args:
        flags: what the command line gave, by name; None: not given. `config` names the file.
        environment: the environment's variables.
        folder: where `aiki.toml` is looked for.

    Raises:
        InvalidRequest: naming the setting, where it comes from, its value and what is expected.
    """
    given = flags.get("config") or environment.get(variable_of("config"))
    named = given if isinstance(given, str) and given else None
    values: dict[str, object] = {}
    for key, value in _read_file(folder / (named or CONFIG_FILE), must_exist=bool(named)).items():
        values[key] = _checked(key, value, f"{named or CONFIG_FILE}: {key}")
    for name in SETTING_NAMES:
        text = environment.get(variable_of(name))
        if text is not None:
            values[name] = _checked(name, _parsed(name, text), variable_of(name))
        flag = flags.get(name)
        if flag is not None:
            values[name] = _checked(name, flag, f"--{name.replace('_', '-')}")
    return CliSettings(**cast("dict[str, Any]", values))


def _read_file(path: Path, *, must_exist: bool) -> dict[str, object]:
    try:
        values: dict[str, object] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if not must_exist:
            return {}
        message = f"settings file {str(path)!r} does not exist; correct --config or AIKI_CONFIG"
        raise InvalidRequest(message) from error
    except (OSError, ValueError) as error:
        message = f"settings file {str(path)!r} cannot be read: {error}"
        raise InvalidRequest(message) from error
    unknown = sorted(values.keys() - set(SETTING_NAMES))
    if unknown:
        message = (
            f"settings file {str(path)!r} has a key {unknown[0]!r} that is no setting; "
            f"there are {', '.join(SETTING_NAMES)}"
        )
        raise InvalidRequest(message)
    return values


def _parsed(name: str, text: str) -> object:
    """Read a variable's text as the kind of value that its setting has."""
    kind = KINDS.get(name, str)
    if kind is bool:
        word = text.lower()
        return True if word in _TRUE else False if word in _FALSE else text
    try:
        return kind(text)
    except ValueError:
        return text


def _checked(name: str, value: object, where: str) -> object:
    attribute = next(one for one in fields(CliSettings) if one.name == name)
    choices: tuple[str, ...] = attribute.metadata["choices"]
    kind = KINDS.get(name, str)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    rule = ""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        rule = f"pass {'true or false' if kind is bool else f'a value of type {kind.__name__}'}"
    elif choices and value not in choices:
        rule = f"use one of {', '.join(choices)}"
    elif isinstance(value, int | float) and kind is not bool and value < (kind is int):
        rule = "pass a positive number"
    if rule:
        message = f"{where}={value!r} is not valid: {rule}"
        raise InvalidRequest(message)
    return value
