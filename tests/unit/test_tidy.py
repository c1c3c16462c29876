"""The house rules that no linter knows, each one a test that names the file and line it objects to.

The rules are in CONTRIBUTING.md. A rule with exceptions names them in a constant here, with the
reason beside each, so that a new exception is a reviewed change and not an oversight.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("aiki_trio", "actors/aiki_actors", "gateway/aiki_gateway", "sdk/aiki_sdk")

MODULE_LINES_SOFT = 400
MODULE_LINES_HARD = 600
FUNCTION_LINES_MAX = 70

# A module is named for its responsibility; these names say only that nobody thought of one.
BANNED_MODULE_NAMES = frozenset({"base", "common", "helpers", "manager", "misc", "utils"})

# Where real time, chance and ids enter; everything else is handed them (clock, rng, ids).
ADAPTERS_OF_CHANCE = frozenset({"aiki_trio/_ports.py", "sdk/aiki_sdk/_ports.py"})
BANNED_CALLS = frozenset(
    {
        "datetime.date.today",
        "datetime.datetime.now",
        "datetime.datetime.today",
        "datetime.datetime.utcnow",
        "os.urandom",
        "time.monotonic",
        "time.monotonic_ns",
        "time.time",
        "time.time_ns",
        "uuid.uuid1",
        "uuid.uuid4",
    }
)
# All of `random` but the class that is seeded, and all of `secrets`.
BANNED_CALL_MODULES = frozenset({"random", "secrets"})
ALLOWED_CALLS = frozenset({"random.Random"})

# Running text as code, and unpickling, which is the same: nowhere, adapters included.
BANNED_BUILTINS = frozenset({"__import__", "eval", "exec"})
BANNED_IMPORTS = frozenset({"cloudpickle", "dill", "marshal", "pickle", "shelve"})

# A foreign library is known to one package, so that it can be replaced or left out there.
DRIVER_PACKAGES = {
    "asyncpg": "actors/aiki_actors/storage",
    "hypercorn": "gateway/aiki_gateway",
    "quart": "gateway/aiki_gateway",
    "quart_trio": "gateway/aiki_gateway",
    "redis": "actors/aiki_actors/queue",
    "sqlite3": "actors/aiki_actors/storage",
}

type_ignore_without_rule = re.compile(r"#\s*(type|pyright):\s*ignore(?!\[)")
unfinished = re.compile(r"\b(TODO|FIXME|XXX)\b")
no_cover = re.compile(r"pragma:\s*no\s*cover")


def in_packages() -> list[Path]:
    """List the modules that are shipped."""
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def everywhere() -> list[Path]:
    """List every module of the repository: shipped, tests, examples and tools."""
    rest = (path for folder in ("tests", "examples") for path in (ROOT / folder).rglob("*.py"))
    return [*in_packages(), *sorted(rest), ROOT / "noxfile.py"]


def name_of(path: Path) -> str:
    """Name a file as the messages and the lists of exceptions do: from the root, with slashes."""
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    """Parse a module, once."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=name_of(path))


def comments_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each comment of a module with its line."""
    source = io.StringIO(path.read_text(encoding="utf-8"))
    for token in tokenize.generate_tokens(source.readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def imports_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the full name of each thing that a module imports, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, f"{node.module or ''}.{alias.name}"


def names_in(tree: ast.Module) -> dict[str, str]:
    """Map each imported name to what it stands for: `dt` to `datetime` after `import … as dt`."""
    meanings: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                meanings[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                meanings[alias.asname or alias.name] = f"{node.module or ''}.{alias.name}"
    return meanings


def dotted(node: ast.expr, meanings: dict[str, str]) -> str | None:
    """Resolve `a.b.c` to the full name of what it refers to; None if it is not such a name."""
    if isinstance(node, ast.Name):
        return meanings.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        value = dotted(node.value, meanings)
        return None if value is None else f"{value}.{node.attr}"
    return None


def references(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield each dotted name that is used, called or not: a default is as bad as a call."""
    meanings = names_in(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            name = dotted(node, meanings)
            if name is not None:
                yield node.lineno, name


def is_chance(name: str) -> bool:
    """Tell whether a name stands for real time, an unseeded random choice or a fresh id."""
    if name in ALLOWED_CALLS:
        return False
    module, _, member = name.partition(".")
    return name in BANNED_CALLS or (module in BANNED_CALL_MODULES and bool(member))


def chance_in(path: Path, tree: ast.Module) -> list[str]:
    """List the places of a module where time, chance or ids come from nowhere."""
    imported = {name.split(".")[0] for _, name in imports_of(tree)}
    return sorted(
        {
            f"{name_of(path)}:{line}: {name}"
            for line, name in references(tree)
            # A local variable that happens to be called `random` or `time` is not the module.
            if is_chance(name) and name.split(".")[0] in imported
        }
    )


def functions_in(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function and method of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def report(offences: list[str], remedy: str) -> None:
    """Fail with one line per offence, and what to do about them."""
    assert not offences, "\n".join([remedy, *offences])


def test_the_packages_are_found() -> None:
    """Guards the rules below: none of them passes because nothing was looked at."""
    for package in PACKAGES:
        assert (ROOT / package / "__init__.py").is_file(), f"{package} is missing"


def test_every_module_opens_with_a_docstring() -> None:
    report(
        [f"{name_of(path)}:1" for path in everywhere() if not ast.get_docstring(tree_of(path))],
        "Say what the module is for, and what holds in it, in a docstring at its top:",
    )


def test_no_module_is_longer_than_the_hard_limit() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in everywhere()}
    report(
        [
            f"{name_of(path)}:{MODULE_LINES_HARD + 1}: {length} lines"
            for path, length in lengths.items()
            if length > MODULE_LINES_HARD
        ],
        f"Split what is longer than {MODULE_LINES_HARD} lines by responsibility:",
    )


def test_a_long_module_gives_its_reason() -> None:
    """Past the soft limit the docstring has a line `Length: <why>`."""
    offences: list[str] = []
    for path in in_packages():
        length = len(path.read_text(encoding="utf-8").splitlines())
        reason = re.search(r"Length:\s*\S", ast.get_docstring(tree_of(path)) or "")
        if length > MODULE_LINES_SOFT and reason is None:
            offences.append(f"{name_of(path)}:{MODULE_LINES_SOFT + 1}: {length} lines")
    report(
        offences,
        f"Split what is longer than {MODULE_LINES_SOFT} lines, or say why not in a line "
        "`Length: …` of its docstring:",
    )


def test_no_function_is_longer_than_the_limit() -> None:
    offences: list[str] = []
    for path in everywhere():
        for function in functions_in(tree_of(path)):
            assert function.end_lineno is not None
            length = function.end_lineno - function.lineno + 1
            if length > FUNCTION_LINES_MAX:
                offences.append(
                    f"{name_of(path)}:{function.lineno}: {function.name}, {length} lines"
                )
    report(offences, f"Split what is longer than {FUNCTION_LINES_MAX} lines:")


def test_modules_are_named_for_what_they_own() -> None:
    report(
        [
            f"{name_of(path)}:1"
            for path in in_packages()
            if {part.removesuffix(".py").strip("_") for part in path.relative_to(ROOT).parts}
            & BANNED_MODULE_NAMES
        ],
        "Name the responsibility, not the kind of file:",
    )


def test_time_chance_and_ids_come_from_ports() -> None:
    """Only so can the simulator own them, and a seed repeat a failure."""
    offences = [
        offence
        for path in in_packages()
        if name_of(path) not in ADAPTERS_OF_CHANCE
        for offence in chance_in(path, tree_of(path))
    ]
    report(offences, "Take the clock, the ids or the rng as an argument:")


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.time()",
        "import time as t\nx = t.monotonic",
        "from time import time\ntime()",
        "from time import monotonic as clock\ndef f(now=clock): ...",
        "import datetime as dt\ndt.datetime.now(dt.UTC)",
        "from datetime import datetime\ndatetime.utcnow()",
        "import uuid\nuuid.uuid4()",
        "from uuid import uuid4\nattrs.field(factory=uuid4)",
        "import random\nrandom.choice([1])",
        "from random import randint\nrandint(1, 2)",
        "import os\nos.urandom(8)",
        "import secrets\nsecrets.token_hex()",
    ],
)
def test_the_rule_on_chance_sees_through_imports(source: str) -> None:
    assert chance_in(ROOT / "sample.py", ast.parse(source))


@pytest.mark.parametrize(
    "source",
    [
        "import random\nrng = random.Random(7)\nrng.choice([1])",
        "from datetime import datetime\ndatetime.fromtimestamp(0)",
        "def f(random, time):\n    return random.choice([time.time()])",
        "import time\ntime.sleep(1)",
    ],
)
def test_the_rule_on_chance_lets_seeded_and_injected_sources_pass(source: str) -> None:
    assert not chance_in(ROOT / "sample.py", ast.parse(source))


def test_no_text_is_run_as_code() -> None:
    """Neither `eval` and `exec`, nor pickle and its like, adapters and tests' data included."""
    offences: list[str] = []
    for path in in_packages():
        tree = tree_of(path)
        offences += [
            f"{name_of(path)}:{line}: {name}"
            for line, name in references(tree)
            if name in BANNED_BUILTINS
        ]
        offences += [
            f"{name_of(path)}:{line}: {name}"
            for line, name in imports_of(tree)
            if name.split(".")[0] in BANNED_IMPORTS
        ]
    report(offences, "Data is JSON, structured by its type; it is never executed:")


@pytest.mark.parametrize("driver", sorted(DRIVER_PACKAGES))
def test_a_driver_is_known_to_one_package(driver: str) -> None:
    home = f"{DRIVER_PACKAGES[driver]}/"
    offences = [
        f"{name_of(path)}:{line}: {name}"
        for path in in_packages()
        if not name_of(path).startswith(home)
        for line, name in imports_of(tree_of(path))
        if name.split(".")[0] == driver
    ]
    report(offences, f"Only {home} may import {driver}; talk to the port that it implements:")


@pytest.mark.parametrize(
    ("pattern", "remedy"),
    [
        pytest.param(unfinished, "Do it, or open an issue; do not leave a note:", id="unfinished"),
        pytest.param(no_cover, "Test it, or remove it; do not hide it:", id="no-cover"),
        pytest.param(
            type_ignore_without_rule,
            "Name the rule: `type: ignore[rule]`, with the reason beside it:",
            id="bare-type-ignore",
        ),
    ],
)
def test_no_comment_excuses_the_code(pattern: re.Pattern[str], remedy: str) -> None:
    report(
        [
            f"{name_of(path)}:{line}: {comment}"
            for path in everywhere()
            for line, comment in comments_of(path)
            if pattern.search(comment)
        ],
        remedy,
    )


def test_no_function_is_a_stub() -> None:
    """`raise NotImplementedError` is a promise; an abstract method or a Protocol says it better."""
    report(
        [
            f"{name_of(path)}:{line}"
            for path in in_packages()
            for line, name in references(tree_of(path))
            if name == "NotImplementedError"
        ],
        "Implement it, or make it abstract:",
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file(), f"{package}/py.typed is missing"
