"""`aiki migrate`: bring the database's schema up to date, or tell whether it is."""

from __future__ import annotations

from aiki_trio._storage_url import SchemaVersion, migrate

from ._command import Command
from ._exit import ExitCode


async def migrate_database(command: Command) -> ExitCode:
    """Apply what is missing of the schema; with `--check` only tell, by the exit code too."""
    check: bool = command.arguments.check
    found = await migrate(command.settings.database_url, check=check)
    output = command.output
    if output.json:
        output.document({"before": found.before, "now": found.now, "newest": found.newest})
    else:
        output.line(_told(found))
    return ExitCode.OK if found.now == found.newest else ExitCode.REFUSED


def _told(found: SchemaVersion) -> str:
    if found.now != found.newest:
        was = f"version {found.now}" if found.now else "no schema yet"
        return f"{was}; this release needs {found.newest}: run `aiki migrate`"
    if found.before == found.now:
        return f"version {found.now}: up to date"
    return f"version {found.before} brought to {found.now}"
