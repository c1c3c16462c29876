"""The command line: `aiki dev`, `aiki start`, `aiki runs`, `aiki explain`, `aiki doctor`, and more.

`_arguments` says what commands there are, `_main` carries one out; each group of commands has its
module. `_connect` is the way to runs: the file for looking, the control socket for changing.
"""

from ._arguments import build_parser as build_parser
from ._exit import MEANINGS as MEANINGS, ExitCode as ExitCode
from ._main import main as main
from ._settings import CliSettings as CliSettings, variable_of as variable_of

__all__ = ["MEANINGS", "CliSettings", "ExitCode", "build_parser", "main", "variable_of"]
