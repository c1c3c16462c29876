"""What the documentation shows works: Python blocks run, commands name things that exist.

For writers of pages. All ```python blocks of a page run top to bottom in one namespace, in a fresh
process, in an empty temporary folder. There is no way to leave a Python block out; what is not
meant to run is ```text. A comment on the line above a block changes how it runs:

- `<!-- continues -->`: it is the rest of the block before it, compiled together with that one (so
  that it may stand indented inside an `async with` that was opened there);
- `<!-- raises: ErrorName -->`: it ends with this error, and fails if it does not;
- `<!-- file: orders.py -->`: it is saved under this name, and imported from there.

A page that reads `os.environ["DATABASE_URL"]` has a PostgreSQL database of its own there, and one
that reads `os.environ["REDIS_URL"]` a Redis.

A block may `await` at its top level: it then runs under Trio. Functions named `test_…` are run with
pytest after the page's last block. Warnings are errors.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.docs._commands import commands_of, complaint
from tests.docs._markdown import ROOT, Block, all_pages, blocks_of, name_of, pages
from tests.docs._page import COMPLETE, Unit
from tests.servers.postgres import shared_server
from tests.servers.redis import RedisServer, binaries

PAGE_TIMEOUT_S = 50  # Under pytest's faulthandler_timeout, so that the page's own output is shown.
RUNNER = Path(__file__).with_name("_page.py")

# A fence must name one of these: a block under another name would escape being checked.
LANGUAGES = frozenset(
    {"bash", "console", "css", "diff", "dockerfile", "html", "http", "ini", "javascript", "json"}
    | {"mermaid", "python", "sql", "text", "toml", "yaml"}
)
DIRECTIVES = frozenset({"continues", "file", "raises"})


def units_of(blocks: list[Block], page: str) -> list[Unit]:
    """Join the Python blocks of a page into what is compiled at once.

    Raises:
        ValueError: a directive stands where it means nothing.
    """
    units: list[Unit] = []
    for block in blocks:
        if block.language != "python":
            if block.directives.keys() & DIRECTIVES:
                message = f"{page}:{block.line}: only a python block takes a directive"
                raise ValueError(message)
            continue
        raises, file = block.directives.get("raises"), block.directives.get("file")
        if "continues" in block.directives:
            if not units or units[-1]["raises"] or file:
                message = f"{page}:{block.line}: there is no block that this one could continue"
                raise ValueError(message)
            before = units[-1]
            # Empty lines keep the line numbers of the page.
            gap = block.line - before["line"] - before["text"].count("\n")
            units[-1] = {**before, "text": before["text"] + "\n" * gap + block.text}
            units[-1]["raises"] = raises
        else:
            unit: Unit = {"text": block.text, "line": block.line, "raises": raises, "file": file}
            units.append(unit)
    return units


def ran(done: subprocess.CompletedProcess[str]) -> bool:
    """Tell whether a page ran to its end; an exit code of 0 alone may be a block's own."""
    return done.returncode == 0 and done.stdout.rstrip().endswith(COMPLETE)


def postgres_for(units: list[Unit]) -> dict[str, str]:
    """Give a page that asks for `DATABASE_URL` a PostgreSQL database of its own."""
    if not any('environ["DATABASE_URL"]' in unit["text"] for unit in units):
        return {}
    server = shared_server()
    return {"DATABASE_URL": server.url(server.create_database())}


def redis_for(units: list[Unit], folder: Path, stack: ExitStack) -> dict[str, str]:
    """Give a page that asks for `REDIS_URL` a Redis of its own, until the stack is left."""
    if not any('environ["REDIS_URL"]' in unit["text"] for unit in units):
        return {}
    server = stack.enter_context(RedisServer(folder, binaries()[0]))
    return {"REDIS_URL": server.url}


def run_page(page: str, units: list[Unit], folder: Path) -> subprocess.CompletedProcess[str]:
    """Execute a page in a process and a folder of its own."""
    wanted = postgres_for(units)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIKI_")}
    with ExitStack() as stack:
        wanted |= redis_for(units, folder, stack)
        return _run(page, units, folder, {**inherited, **wanted})


def _run(
    page: str, units: list[Unit], folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(RUNNER)],
        input=json.dumps({"page": page, "units": units}),
        cwd=folder,
        env={**environment, "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PAGE_TIMEOUT_S,
        check=False,
    )


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_python_blocks_run_top_to_bottom(page: Path, tmp_path: Path) -> None:
    units = units_of(blocks_of(page.read_text(encoding="utf-8")), name_of(page))
    if units:
        done = run_page(name_of(page), units, tmp_path)
        assert ran(done), f"{name_of(page)} does not run:\n{done.stdout}"


@pytest.mark.parametrize("page", all_pages(), ids=name_of)
def test_every_fence_names_a_language_that_is_checked(page: Path) -> None:
    offences = [
        f"{name_of(page)}:{block.line - 1}: {block.language or 'no language'!r}"
        for block in blocks_of(page.read_text(encoding="utf-8"))
        if block.language not in LANGUAGES
    ]
    assert not offences, f"Use one of {sorted(LANGUAGES)}:\n" + "\n".join(offences)


@pytest.mark.parametrize("page", all_pages(), ids=name_of)
def test_commands_name_what_exists(page: Path) -> None:
    offences = [
        f"{name_of(page)}:{line}: {problem}"
        for block in blocks_of(page.read_text(encoding="utf-8"))
        if block.language in {"bash", "console"}
        for line, command in commands_of(block)
        if (problem := complaint(command)) is not None
    ]
    assert not offences, "\n".join(offences)


def run_text(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Execute a page that is given as text."""
    return run_page("page.md", units_of(blocks_of(text), "page.md"), folder)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("```python\na = 1\n```\n```python\nassert a == 1\n```\n", id="one-namespace"),
        pytest.param("```python\nimport trio\nawait trio.sleep(0)\n```\n", id="top-level-await"),
        pytest.param(
            "```python\nimport trio\nasync with trio.open_nursery():\n    a = 1\n```\nand then\n\n"
            "<!-- continues -->\n```python\n    assert a == 1\n```\n",
            id="continues",
        ),
        pytest.param("<!-- raises: KeyError -->\n```python\n{}[1]\n```\n", id="raises"),
        pytest.param(
            "<!-- file: app/orders.py -->\n```python\nx = 1\n```\n"
            "```python\nfrom app.orders import x\n```\n",
            id="file",
        ),
        pytest.param("- item\n\n  ```python\n  a = 1\n  ```\n", id="indented-in-a-list"),
        pytest.param("```python\nasync def test_it():\n    pass\n```\n", id="test-functions"),
    ],
)
def test_a_page_that_is_right_passes(text: str, tmp_path: Path) -> None:
    done = run_text(text, tmp_path)
    assert ran(done), done.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("\n\n```python\na = 1\n1 / 0\n```\n", "line 5", id="error-at-its-line"),
        pytest.param("```python\na = \n```\n", "SyntaxError", id="syntax"),
        pytest.param("```python\nimport trio\nawait trio.nowhere()\n```\n", "line 3", id="await"),
        pytest.param("<!-- raises: KeyError -->\n```python\na = 1\n```\n", "nothing", id="calm"),
        pytest.param("<!-- raises: KeyError -->\n```python\n1 / 0\n```\n", "ZeroDiv", id="other"),
        pytest.param("```python\nimport trio\ntrio.sleep(0)\n```\n", "never awaited", id="warning"),
        pytest.param("```python\nraise SystemExit\n```\n", "", id="leaves-early"),
        pytest.param(
            "```python\nasync def test_it():\n    assert 1 == 2\n```\n", "1 failed", id="test"
        ),
    ],
)
def test_a_page_that_is_wrong_fails_and_says_where(text: str, said: str, tmp_path: Path) -> None:
    done = run_text(text, tmp_path)
    assert not ran(done)
    assert said in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        "python -m pip install nox && python -m nox -s tests",
        "python -m nox -s tests-3.12 -- tests/unit -k tidy",
        "nox -s lint types wheel",
        'pip install "aiki-trio[server,redis]"',
        "AIKI_PORT=1 python -m pytest tests/unit/test_tidy.py::test_the_packages_are_found",
        "bash .ci/run  # everything",
    ],
)
def test_commands_that_name_real_things_pass(command: str) -> None:
    block = Block(language="bash", text=f"{command}\n", line=1)
    assert [complaint(found) for _, found in commands_of(block) if complaint(found)] == []


@pytest.mark.parametrize(
    "command",
    [
        "python -m nox -s no-such-session",
        "python -m aiki_nowhere",
        "python examples/nowhere.py",
        'pip install "aiki-trio[nothing]"',
        "pytest tests/nowhere",
        "true && frobnicate",
        "./no-such-script",
    ],
)
def test_commands_that_name_nothing_fail(command: str) -> None:
    block = Block(language="bash", text=f"{command}\n", line=1)
    assert any(complaint(found) for _, found in commands_of(block))


def test_only_commands_are_read_from_a_console_block() -> None:
    block = Block(language="console", text="$ nox \\\n  -s tests\nall good\n", line=4)
    assert list(commands_of(block)) == [(4, ["nox", "-s", "tests"])]


def test_the_pages_are_found() -> None:
    """Guards the tests above: none of them passes because there was no page."""
    assert ROOT / "docs" / "index.md" in pages()
