"""Runs in one SQLite file: the embedded default."""

from ._settings import SqliteSettings as SqliteSettings
from ._storage import SqliteStorage as SqliteStorage, open_sqlite as open_sqlite
