"""Where a setting comes from, and how mistakes in it are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiki_sdk import InvalidRequest
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
