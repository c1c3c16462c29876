"""The steps of a schema: numbered SQL files in a package, read in order."""

from __future__ import annotations

from functools import cache
from importlib import resources

from attrs import frozen


@frozen
class Migration:
    """One step of the schema."""

    version: int
    name: str
    script: str


@cache
def migrations_in(package: str) -> tuple[Migration, ...]:
    """Return the steps in the folder `migrations` of a package: 0001_name.sql and so on."""
    found: list[Migration] = []
    for file in (resources.files(package) / "migrations").iterdir():
        stem, _, suffix = file.name.rpartition(".")
        if suffix == "sql":
            number, _, name = stem.partition("_")
            found.append(Migration(int(number), name, file.read_text(encoding="utf-8")))
    found.sort(key=lambda step: step.version)
    versions = [step.version for step in found]
    assert versions == list(range(1, len(found) + 1)), f"migrations have gaps: {versions}"
    return tuple(found)
