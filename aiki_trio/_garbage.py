"""How often Python looks for cyclic garbage while a runtime runs.

The runtime's own objects are freed by reference counting; measured, the collector finds next to
nothing and costs a fifth of the processor at Python's default of one look per 700 new objects. So a
runtime raises that threshold, unless the program has chosen one of its own, and restores it.
"""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

PYTHON_DEFAULTS: Final = frozenset({(700, 10, 10), (2000, 10, 0), (2000, 10, 10)})
"""Thresholds that no program has chosen: CPython 3.11 and 3.12, 3.13 and its patch releases."""


@contextmanager
def collecting_after(objects: int | None) -> Generator[None]:
    """Collect after so many new objects while the body runs; None: leave Python's setting alone."""
    before = gc.get_threshold()
    if objects is None or before not in PYTHON_DEFAULTS:
        yield
        return
    gc.set_threshold(objects, before[1], before[2])
    try:
        yield
    finally:
        gc.set_threshold(*before)
