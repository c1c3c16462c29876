"""What every command is given: what was typed, the settings, and where to print."""

from __future__ import annotations

from argparse import Namespace

from attrs import define

from ._output import Output
from ._settings import CliSettings


@define(eq=False)
class Command:
    """One command that is being carried out."""

    arguments: Namespace
    settings: CliSettings
    output: Output
