"""Settings that hold for every test: how hard Hypothesis tries, and a seed that is always shown.

Invariant: a failing run can be repeated. The header names the seed that every property test draws
from; `pytest --hypothesis-seed=SEED` runs the same examples again.
"""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import settings

# Wall time says nothing about a property on a busy machine, so there is no deadline per example.
settings.register_profile("dev", max_examples=50, deadline=None, print_blob=True)
settings.register_profile("quick", max_examples=15, deadline=None, print_blob=True)
settings.register_profile("ci", max_examples=60, deadline=None, print_blob=True)

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Load the profile and, if no seed was given, draw one that can be shown and given again."""
    if not config.getoption("hypothesis_profile", None):
        settings.load_profile(PROFILE)
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = str(random.SystemRandom().randrange(2**32))


def pytest_report_header(config: pytest.Config) -> str:
    """Name the profile and the seed, and thereby the command that repeats this run."""
    profile = settings.get_current_profile_name()
    return f"hypothesis: profile {profile}, --hypothesis-seed={config.option.hypothesis_seed}"
