"""Every example runs as its reader runs it, and prints what it is expected to print.

The expected output of `examples/<name>.py` is `expected/<name>.txt`; an example without one fails.
`examples/orders` prints what it measured; `tests/integration/test_demo.py` runs it.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
EXPECTED = Path(__file__).with_name("expected")
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "__init__")
LOGGING = {"kernel_alone"}  # a supervisor logs the failure that the example is about
# Importing trio-asyncio raises this one from Python 3.12 on; the later filter counts.
WARNINGS = ("-Werror", "-Wignore:'AbstractChildWatcher' is deprecated:DeprecationWarning")
TIMEOUT_S = 50  # under pytest's faulthandler_timeout, so that the example's own output is shown


@pytest.mark.parametrize("name", NAMES)
def test_an_example_prints_what_is_expected(name: str) -> None:
    """Warnings are errors, and nothing is printed to standard error."""
    ended = subprocess.run(
        [sys.executable, *WARNINGS, "-m", f"examples.{name}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert name in LOGGING or not ended.stderr
    assert ended.stdout == (EXPECTED / f"{name}.txt").read_text()


def test_every_expected_output_is_one_of_an_example() -> None:
    assert sorted(path.stem for path in EXPECTED.iterdir()) == NAMES


def test_the_first_example_is_short() -> None:
    """Under 15 lines of code, which is what its blank lines and docstring are not."""
    source = (EXAMPLES / "hello.py").read_text()
    docstring = ast.parse(source).body[0]
    assert isinstance(docstring, ast.Expr)
    after = source.splitlines()[docstring.end_lineno :]
    assert sum(bool(line.strip()) for line in after) < 15


def test_the_list_of_examples_is_complete() -> None:
    """Each example, and nothing else, has a line in `examples/README.md` that links to it."""
    listed = re.findall(r"^\| \[`(\w+)`\]\(\1(?:\.py|/)\) ", _readme(), re.MULTILINE)
    assert sorted(listed) == sorted([*NAMES, "orders"])


@pytest.mark.parametrize("name", NAMES)
def test_an_example_says_how_to_run_it(name: str) -> None:
    assert f"python -m examples.{name}`" in (EXAMPLES / f"{name}.py").read_text()


def _readme() -> str:
    return (EXAMPLES / "README.md").read_text()
