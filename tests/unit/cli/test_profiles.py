"""Profiles of the settings file, and settings that are secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiki_sdk import InvalidRequest
from aiki_trio.cli._settings import read_settings

FILE = """
url = "http://localhost:9850"
runs_max = 7

[profiles.production]
url = "https://aiki.example.org"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a settings file."""
    (tmp_path / "aiki.toml").write_text(FILE)
    return tmp_path


def test_a_profile_overrides_what_it_names_and_nothing_else(folder: Path) -> None:
    plain = read_settings({}, {}, folder)
    chosen = read_settings({"profile": "production"}, {}, folder)
    assert (plain.url, plain.runs_max) == ("http://localhost:9850", 7)
    assert (chosen.url, chosen.runs_max) == ("https://aiki.example.org", 7)


def test_a_profile_is_chosen_by_variable_and_loses_to_other_variables(folder: Path) -> None:
    environment = {"AIKI_PROFILE": "production", "AIKI_URL": "http://elsewhere"}
    assert read_settings({}, environment, folder).url == "http://elsewhere"
    del environment["AIKI_URL"]
    assert read_settings({}, environment, folder).url == "https://aiki.example.org"


def test_a_profile_that_is_not_there_is_refused_with_those_that_are(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"no profile 'staging'; there are: production"):
        read_settings({"profile": "staging"}, {}, folder)


def test_a_profile_needs_a_settings_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="correct --profile or AIKI_PROFILE"):
        read_settings({"profile": "staging"}, {}, tmp_path)


def test_a_key_in_a_profile_that_is_no_setting_is_refused(folder: Path) -> None:
    (folder / "aiki.toml").write_text("[profiles.one]\nurll = 'x'\n")
    with pytest.raises(InvalidRequest, match="has a key 'urll' that is no setting"):
        read_settings({}, {}, folder)


def test_profiles_that_are_no_tables_are_refused(folder: Path) -> None:
    (folder / "aiki.toml").write_text("profiles = 3\n")
    with pytest.raises(InvalidRequest, match=r"write \[profiles.NAME\]"):
        read_settings({}, {}, folder)


def test_a_secret_is_neither_shown_nor_handed_over_on_a_command_line(folder: Path) -> None:
    settings = read_settings({}, {"AIKI_API_KEY": "aiki_secret_42"}, folder)
    assert settings.api_key == "aiki_secret_42"
    assert "aiki_secret_42" not in repr(settings)
    assert "api_key" not in settings.to_json()
