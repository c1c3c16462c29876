"""Finding a module's workflows, and noticing that files changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from aiki_sdk import DuplicateName, InvalidRequest
from aiki_trio.cli import _watch_files
from aiki_trio.cli._modules import find_module, load_workflows
from aiki_trio.cli._watch_files import changed_between, scan, wait_changed

WORKFLOW = """
from aiki_sdk import Run, workflow

@workflow(name="{name}", version="1.0.0")
async def {name}(run: Run) -> None: ...
"""


def test_a_file_in_a_package_is_the_same_module_as_its_dotted_name(tmp_path: Path) -> None:
    package = tmp_path / "cli_shop" / "flows"
    package.mkdir(parents=True)
    (tmp_path / "cli_shop" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "orders.py").write_text("")
    by_path = find_module("cli_shop/flows/orders.py", tmp_path)
    assert by_path == find_module("cli_shop.flows.orders", tmp_path)
    assert by_path.name == "cli_shop.flows.orders"
    assert by_path.source_root == tmp_path / "cli_shop"


def test_a_lone_file_is_watched_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "cli_lone.py").touch()
    assert find_module("cli_lone.py", tmp_path).source_root == tmp_path


@pytest.mark.parametrize("text", ["none.py", "a-b", "a..b", ""])
def test_what_is_no_module_is_named(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="module"):
        find_module(text, tmp_path)


def test_workflows_are_found_once_however_often_they_are_named(tmp_path: Path) -> None:
    text = WORKFLOW.format(name="first") + WORKFLOW.format(name="second") + "again = first\n"
    (tmp_path / "cli_two.py").write_text(text)
    assert [one.name for one in load_workflows("cli_two.py", tmp_path)] == ["first", "second"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("cli_broken", "1 / 0", "ZeroDivisionError: division by zero\nTraceback"),
        ("cli_syntax", "def", "SyntaxError"),
        ("cli_exits", "raise SystemExit(3)", "SystemExit"),
        ("cli_empty", "x = 1", "has no workflow"),
    ],
)
def test_code_that_cannot_be_used_is_named_with_its_reason(
    name: str, text: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(InvalidRequest, match=words):
        load_workflows(f"{name}.py", tmp_path)


def test_two_workflows_of_one_name_are_refused(tmp_path: Path) -> None:
    again = WORKFLOW.format(name="same").replace("def same", "def other")
    (tmp_path / "cli_same.py").write_text(WORKFLOW.format(name="same") + again)
    with pytest.raises(DuplicateName):
        load_workflows("cli_same.py", tmp_path)


def test_a_scan_sees_sources_and_skips_the_rest(tmp_path: Path) -> None:
    for name in ("a.py", "pkg/b.py", "c.txt", ".hidden/d.py", "venv/e.py", "__pycache__/f.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    before = scan(tmp_path)
    assert {Path(path).name for path in before} == {"a.py", "b.py"}
    (tmp_path / "pkg" / "b.py").write_text("x")
    (tmp_path / "a.py").unlink()
    (tmp_path / "g.py").touch()
    changed = changed_between(before, scan(tmp_path))
    assert [Path(path).name for path in changed] == ["a.py", "g.py", "b.py"]


def test_a_scan_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        (tmp_path / f"m{number}.py").touch()
    monkeypatch.setattr(_watch_files, "FILES_MAX", 5)
    assert len(scan(tmp_path)) == 5
    monkeypatch.setattr(_watch_files, "ENTRIES_MAX", 3)
    assert len(scan(tmp_path)) == 3


async def test_a_change_counts_once_it_has_come_to_rest(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files saved one after the other lead to one reload."""

    async def scan_here(root: Path) -> _watch_files.Snapshot:
        # A thread takes real time, which a clock that skips does not wait for.
        await trio.lowlevel.checkpoint()
        return scan(root)

    monkeypatch.setattr(_watch_files, "scan_in_thread", scan_here)
    path = tmp_path / "a.py"
    path.write_text("1")
    before = scan(tmp_path)
    async with trio.open_nursery() as nursery:
        found: list[_watch_files.Snapshot] = []

        async def watch() -> None:
            found.append(await wait_changed(tmp_path, before))

        nursery.start_soon(watch)
        await trio.sleep(0.6)
        path.write_text("22")
        os.utime(path, ns=(1, 1))
        await trio.sleep(0.5)
        (tmp_path / "b.py").write_text("3")
    assert {Path(name).name for name in found[0]} == {"a.py", "b.py"}
