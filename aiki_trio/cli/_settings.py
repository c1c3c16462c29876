"""Settings of the command line: flags, then `AIKI_*` variables, then `aiki.toml`, then defaults.

A setting has one name everywhere: `database_url` in the file, `AIKI_DATABASE_URL` in the
environment, `--database-url` as a flag. The file is `aiki.toml` in the current folder, or the one
that `--config` or `AIKI_CONFIG` names. A table `[profiles.NAME]` in it holds what differs where the
profile NAME is chosen, by `--profile` or `AIKI_PROFILE`.

Invariant: a key that the file has and this table lacks is refused, for it is a mistake in writing.
Variables that are not in the table are left alone: the environment belongs to others too.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, cast

from attrs import asdict, field, fields, frozen

from aiki_sdk import InvalidRequest

CONFIG_FILE: Final = "aiki.toml"
PREFIX: Final = "AIKI_"
PROFILES: Final = "profiles"
SQLITE_FILE: Final = "sqlite:///"
RELOAD_GRACE_S: Final = 5.0
"""Somebody waits in front of a terminal."""
STOP_GRACE_S: Final = 30.0
DAY_S: Final = 86_400.0

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off", ""})


def _setting(
    default: object,
    meaning: str,
    *,
    of: str = "all",
    choices: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    """Declare a setting.

    Args:
        default: its value where nothing is set.
        meaning: what its help says.
        of: the kinds of commands that take its flag, in words; `all`: every one.
        choices: the values that there are; empty: any.
        secret: never shown, and never a flag: a command line can be read by every user.
    """
    metadata: dict[str, object] = {
        "meaning": meaning,
        "of": frozenset(of.split()),
        "choices": choices,
        "secret": secret,
    }
    return field(default=default, repr=not secret, metadata=metadata)


@frozen
class CliSettings:
    """What holds for one command."""

    url: str | None = _setting(None, "the server to ask; unset: the database file itself")
    api_key: str | None = _setting(None, "the key that the server asks for", secret=True)
    database_url: str = _setting("sqlite:///aiki.db", "where runs are kept")
    redis_url: str | None = _setting(
        None,
        "the Redis whose streams carry ready runs; unset: workers' sessions do",
        of="server worker dev",
    )
    host: str = _setting("127.0.0.1", "the address that the server listens on", of="server")
    port: int = _setting(9850, "the port that the server listens on", of="server")
    api_keys: str | None = _setting(
        None, "the keys that the server lets in, by commas; unset: anybody", secret=True
    )
    allow_open: bool = _setting(
        False, "let anybody in on other addresses than the loopback too", of="server"
    )
    allowed_origins: str = _setting(
        "", "web pages' origins that browsers may call from, by commas", of="server"
    )
    on_divergence: Literal["fail", "stall"] | None = _setting(
        None,
        "what becomes of a run that its code does not fit any more; unset: stall, for `dev` fail",
        of="server dev",
        choices=("fail", "stall"),
    )
    heartbeat_s: float = _setting(
        10.0, "seconds between two heartbeats of a worker's session", of="server"
    )
    session_grace_s: float = _setting(
        15.0,
        "seconds that a worker whose connection is lost has to come back with its runs",
        of="server",
    )
    claim_lease_s: float = _setting(
        30.0,
        "seconds without a word of a worker after which its runs go to others; at least three "
        "heartbeats",
        of="server",
    )
    retention_days: float = _setting(
        30.0, "days that ended runs are kept; 0: for ever", of="server dev"
    )
    namespace: str = _setting("default", "the namespace of the runs")
    module: str | None = _setting(
        None, "the workflows' code: a dotted name, or the path of a .py file", of="module"
    )
    json: bool = _setting(False, "print JSON: one document, or one line per item of a stream")
    color: Literal["auto", "always", "never"] = _setting(
        "auto", "colours; auto: on a terminal", choices=("auto", "always", "never")
    )
    synchronous: Literal["full", "normal"] = _setting(
        "full", "what survives a power cut", of="dev server", choices=("full", "normal")
    )
    runs_max: int = _setting(100, "runs executed at the same time", of="dev worker")
    pools: str = _setting("default", "the pools that a worker serves, by commas", of="dev worker")
    shutdown_grace_s: float | None = _setting(
        None,
        "seconds that running tasks have to end at a stop; 30, for `dev` and reloading 5",
        of="dev worker",
    )
    log_level: Literal["debug", "info", "warning", "error"] | None = _setting(
        None,
        "what is logged; unset: info, for `dev` warning",
        of="dev server worker",
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
                "that it shares with the runtime; use sqlite:///file.db, or ask a server by url"
            )
            raise InvalidRequest(message)
        return Path(path)

    @property
    def retention(self) -> timedelta | None:
        """How long ended runs are kept; None: for ever."""
        return timedelta(days=self.retention_days) if self.retention_days else None

    def grace_s(self, default: float) -> float:
        """Return the seconds that running tasks have, in a command that has this default."""
        return default if self.shutdown_grace_s is None else self.shutdown_grace_s

    @property
    def pool_names(self) -> tuple[str, ...]:
        """The pools, one by one."""
        return _by_commas(self.pools)

    @property
    def origins(self) -> tuple[str, ...]:
        """The allowed origins, one by one."""
        return _by_commas(self.allowed_origins)

    @property
    def api_key_hashes(self) -> tuple[str, ...]:
        """The SHA-256 of each key that is let in."""
        keys = _by_commas(self.api_keys or "")
        return tuple(hashlib.sha256(key.encode()).hexdigest() for key in keys)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain values, to be handed to another process; without secrets.

        What is secret goes there in the environment.
        """
        return asdict(self, filter=lambda attribute, _: not attribute.metadata["secret"])


def _by_commas(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


SETTING_NAMES: Final = tuple(attribute.name for attribute in fields(CliSettings))
KINDS: Final[dict[str, type[bool | int | float]]] = {
    "allow_open": bool,
    "claim_lease_s": float,
    "heartbeat_s": float,
    "json": bool,
    "port": int,
    "retention_days": float,
    "runs_max": int,
    "session_grace_s": float,
    "shutdown_grace_s": float,
}
"""What a setting's value is, where it is no text."""


ZERO_ALLOWED: Final = frozenset({"port", "retention_days", "shutdown_grace_s"})
"""Numbers that may be 0: the system chooses a port, runs are kept for ever, tasks have no time."""

MAXIMA: Final[Mapping[str, float]] = {
    "claim_lease_s": DAY_S,
    "heartbeat_s": DAY_S,
    "retention_days": 36_500.0,
    "session_grace_s": DAY_S,
}
"""The largest values of settings that have one."""


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
    named = _text_of("config", flags, environment)
    profile = _text_of("profile", flags, environment)
    file = named or CONFIG_FILE
    values: dict[str, object] = {}
    for key, value in _read_file(folder / file, profile, must_exist=named is not None).items():
        values[key] = _checked(key, value, f"{file}: {key}")
    for name in SETTING_NAMES:
        text = environment.get(variable_of(name))
        if text is not None:
            values[name] = _checked(name, _parsed(name, text), variable_of(name))
        flag = flags.get(name)
        if flag is not None:
            values[name] = _checked(name, flag, f"--{name.replace('_', '-')}")
    return CliSettings(**cast("dict[str, Any]", values))


def _text_of(name: str, flags: Mapping[str, object], environment: Mapping[str, str]) -> str | None:
    """Return what a flag or its variable says, if it says anything."""
    given = flags.get(name) or environment.get(variable_of(name))
    return given if isinstance(given, str) and given else None


def _read_file(path: Path, profile: str | None, *, must_exist: bool) -> dict[str, object]:
    """Return what the file sets, with what the profile sets otherwise."""
    try:
        values: dict[str, object] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if not must_exist and profile is None:
            return {}
        by = "--config or AIKI_CONFIG" if must_exist else "--profile or AIKI_PROFILE"
        message = f"settings file {str(path)!r} does not exist; correct {by}"
        raise InvalidRequest(message) from error
    except (OSError, ValueError) as error:
        message = f"settings file {str(path)!r} cannot be read: {error}"
        raise InvalidRequest(message) from error
    tables = _profiles(values.pop(PROFILES, {}), path)
    for table in (values, *tables.values()):
        _check_keys(table, path)
    if profile is not None:
        if profile not in tables:
            there = ", ".join(tables) or "none"
            message = f"settings file {str(path)!r} has no profile {profile!r}; there are: {there}"
            raise InvalidRequest(message)
        values |= tables[profile]
    return values


def _profiles(found: object, path: Path) -> dict[str, dict[str, object]]:
    tables: dict[str, object] = cast("dict[str, object]", found) if isinstance(found, dict) else {}
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in tables.values()):
        message = f"settings file {str(path)!r}: {PROFILES} is not valid: write [{PROFILES}.NAME]"
        raise InvalidRequest(message)
    return cast("dict[str, dict[str, object]]", tables)


def _check_keys(table: Mapping[str, object], path: Path) -> None:
    unknown = sorted(table.keys() - set(SETTING_NAMES))
    if unknown:
        message = (
            f"settings file {str(path)!r} has a key {unknown[0]!r} that is no setting; "
            f"there are {', '.join(SETTING_NAMES)}"
        )
        raise InvalidRequest(message)


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


def _number_rule(name: str, value: float) -> str:
    """Say what a number should be; nothing if it is that."""
    if not math.isfinite(value) or value < 0 or (value == 0 and name not in ZERO_ALLOWED):
        return "pass a positive number"
    most = MAXIMA.get(name)
    return "" if most is None or value <= most else f"pass at most {most:g}"


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
    elif isinstance(value, int | float) and kind is not bool:
        rule = _number_rule(name, value)
    if rule:
        shown = "…" if attribute.metadata["secret"] else repr(value)
        message = f"{where}={shown} is not valid: {rule}"
        raise InvalidRequest(message)
    return value
