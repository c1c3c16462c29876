"""Where a setting comes from, and how mistakes in it are named."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from aiki_actors.server import KeeperSettings
from aiki_actors.session import SessionLimits
from aiki_sdk import InvalidRequest
from aiki_trio.cli import build_parser
from aiki_trio.cli._dev_child import runtime_settings as dev_settings
from aiki_trio.cli._serve import server_settings
from aiki_trio.cli._settings import CliSettings, read_settings


def test_a_flag_wins_over_the_variable_and_that_over_the_file_and_that_over_the_default(
    tmp_path: Path,
) -> None:
    (tmp_path / "aiki.toml").write_text('namespace = "file"\nruns_max = 7\ncolor = "never"\n')
    environment = {"AIKI_NAMESPACE": "variable", "AIKI_RUNS_MAX": "8"}
    settings = read_settings({"namespace": "flag"}, environment, tmp_path)
    assert settings.namespace == "flag"
    assert settings.runs_max == 8
    assert settings.color == "never"
    assert settings.synchronous == "full"


def test_without_anything_the_defaults_hold(tmp_path: Path) -> None:
    assert read_settings({}, {"AIKI_OTHER": "x"}, tmp_path) == CliSettings()


def test_the_file_can_be_named_by_flag_or_variable(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('namespace = "a"\n')
    (tmp_path / "b.toml").write_text('namespace = "b"\n')
    environment = {"AIKI_CONFIG": "a.toml"}
    assert read_settings({}, environment, tmp_path).namespace == "a"
    assert read_settings({"config": "b.toml"}, environment, tmp_path).namespace == "b"
    with pytest.raises(InvalidRequest, match=r"c\.toml' does not exist"):
        read_settings({"config": "c.toml"}, {}, tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name_space = "x"', "'name_space' that is no setting"),
        ("runs_max = 0", "runs_max=0 is not valid: pass a positive number"),
        ('runs_max = "7"', "a value of type int"),
        ("runs_max = true", "a value of type int"),
        ("heartbeat_s = 0", "heartbeat_s=0.0 is not valid: pass a positive number"),
        ("session_grace_s = 0", "session_grace_s=0.0 is not valid: pass a positive number"),
        ("claim_lease_s = nan", "claim_lease_s=nan is not valid: pass a positive number"),
        ("session_grace_s = 90000", "session_grace_s=90000.0 is not valid: pass at most 86400"),
        ("retention_days = -1", "retention_days=-1.0 is not valid: pass a positive number"),
        ('retention_days = "30"', "a value of type float"),
        ("json = 1", "true or false"),
        ('color = "red"', "one of auto, always, never"),
        ("color =", "cannot be read"),
    ],
)
def test_a_mistake_in_the_file_is_named(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "aiki.toml").write_text(text)
    with pytest.raises(InvalidRequest, match=words):
        read_settings({}, {}, tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("AIKI_RUNS_MAX", "many"), ("AIKI_JSON", "perhaps"), ("AIKI_SHUTDOWN_GRACE_S", "-1")],
)
def test_a_mistake_in_a_variable_is_named(name: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=name):
        read_settings({}, {name: value}, tmp_path)


@pytest.mark.parametrize(("text", "value"), [("1", True), ("no", False), ("TRUE", True)])
def test_a_truth_value_has_the_usual_words(text: str, value: bool, tmp_path: Path) -> None:
    assert read_settings({}, {"AIKI_JSON": text}, tmp_path).json is value


@pytest.mark.parametrize("url", ["sqlite://", "memory://", "postgresql://x/y", "sqlite:///"])
def test_a_database_that_no_other_process_can_see_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="use sqlite:///file"):
        _ = CliSettings(database_url=url).database_path


def test_settings_survive_the_way_to_another_process() -> None:
    settings = CliSettings(module="app", runs_max=3)
    assert CliSettings(**settings.to_json()) == settings


def test_the_servers_settings_reach_its_runtime_from_flag_variable_and_file(tmp_path: Path) -> None:
    (tmp_path / "aiki.toml").write_text("heartbeat_s = 2\nretention_days = 0.5\n")
    environment = {"AIKI_SESSION_GRACE_S": "4", "AIKI_CLAIM_LEASE_S": "60"}
    settings = read_settings({"claim_lease_s": 9.0}, environment, tmp_path)
    runtime = server_settings(settings)
    sessions = runtime.sessions
    assert (sessions.beat_s, sessions.grace_s, sessions.lease_s) == (2.0, 4.0, 9.0)
    assert runtime.keeper.retention == timedelta(hours=12)
    assert dev_settings(settings).keeper.retention == timedelta(hours=12)


def test_without_settings_a_server_keeps_the_defaults_of_the_library(tmp_path: Path) -> None:
    runtime = server_settings(read_settings({}, {}, tmp_path))
    assert runtime.sessions == SessionLimits()
    assert runtime.keeper == KeeperSettings()


def test_a_retention_of_zero_keeps_runs_for_ever(tmp_path: Path) -> None:
    settings = read_settings({"retention_days": 0.0}, {}, tmp_path)
    assert server_settings(settings).keeper.retention is None


def test_a_lease_too_short_for_the_heartbeats_is_refused(tmp_path: Path) -> None:
    settings = read_settings({"claim_lease_s": 29.0}, {}, tmp_path)
    with pytest.raises(InvalidRequest, match="claim_lease_s=29 is not valid with heartbeat_s=10"):
        server_settings(settings)


def test_the_servers_flags_are_read_as_numbers() -> None:
    words = ["server", "--session-grace-s", "1.5", "--retention-days", "7"]
    given = build_parser().parse_args(words)
    assert (given.session_grace_s, given.retention_days) == (1.5, 7.0)
