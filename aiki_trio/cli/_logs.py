"""What commands that serve log: lines on standard error, of this project from the wished level on.

Other libraries are heard from warnings on, whatever is wished: they say a lot at lower levels.
"""

from __future__ import annotations

import logging
from typing import Final

FORMAT: Final = "%(levelname)s %(name)s %(message)s"


def log_to_stderr(level: str) -> None:
    """Log from now on; `level`: debug, info, warning or error."""
    wished = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=max(wished, logging.WARNING), format=FORMAT)
    logging.getLogger("aiki").setLevel(wished)
