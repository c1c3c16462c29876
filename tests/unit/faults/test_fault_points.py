"""Fault points: registered, in the code and on their page; deadly when asked for, else free."""

from __future__ import annotations

import ast
import os
import runpy
import signal
import subprocess
import sys
import timeit
from pathlib import Path

import pytest

from aiki_actors.faults import (
    FAULT_POINTS,
    VARIABLE,
    FaultPlanError,
    PlannedFault,
    arm_faults,
    fault_point,
    parse_faults,
)

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("aiki_trio", "actors/aiki_actors", "gateway/aiki_gateway", "sdk/aiki_sdk")

CALL_MAX_NS = 300
"""An empty call takes 15 to 50 ns; so much is left for a busy machine."""


def passings() -> set[str]:
    """Return the names of all points that the code passes."""
    found: set[str] = set()
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "fault_point(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "fault_point":
                (argument,) = node.args
                assert isinstance(argument, ast.Constant), f"{path}:{node.lineno}: no plain string"
                found.add(str(argument.value))
    return found


def in_process(code: str, plan: str | None) -> subprocess.CompletedProcess[str]:
    """Run code in a new process, with a plan of faults (None: without the variable)."""
    env = {name: value for name, value in os.environ.items() if name != VARIABLE}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    if plan is not None:
        env[VARIABLE] = plan
    imports = "from aiki_actors.faults import arm_faults, fault_passings, fault_point"
    command = [sys.executable, "-c", f"{imports}\n{code}"]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=env, timeout=30)


def test_every_registered_point_is_in_the_code_and_the_other_way_round() -> None:
    assert sorted(passings()) == sorted(point.name for point in FAULT_POINTS)


def test_every_point_has_its_own_name_a_code_and_a_meaning() -> None:
    assert len({point.name for point in FAULT_POINTS}) == len(FAULT_POINTS)
    for point in FAULT_POINTS:
        part, _, moment = point.name.partition(".")
        assert part.isidentifier(), point
        assert moment.isidentifier(), point
        assert point.codes, point
        assert point.meaning, point


def test_the_page_of_the_points_is_up_to_date() -> None:
    """It is written anew by `python docs/_generate_fault_points.py`."""
    generator = runpy.run_path(str(ROOT / "docs" / "_generate_fault_points.py"))
    page = ROOT / "docs" / "reference" / "fault-points.md"
    assert page.read_text(encoding="utf-8") == generator["page"]()


def test_a_plan_is_read_as_it_is_written() -> None:
    plan = "task.done:3, commit.done:1:stop,run.ended"
    assert parse_faults(plan) == (
        PlannedFault("task.done", 3),
        PlannedFault("commit.done", 1, "stop"),
        PlannedFault("run.ended"),
    )
    assert parse_faults(",".join(map(str, parse_faults(plan)))) == parse_faults(plan)
    assert parse_faults("") == ()


@pytest.mark.parametrize(
    ("plan", "what"),
    [
        ("task.dine:1", "names no fault point"),
        ("task.done:0", "must be 1, 2, 3"),
        ("task.done:-1", "must be 1, 2, 3"),
        ("task.done:x", "must be 1, 2, 3"),
        ("task.done:1:explode", "must be one of kill, stop, term, exit"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_with_the_reason(plan: str, what: str) -> None:
    with pytest.raises(FaultPlanError, match=what):
        parse_faults(plan)


def test_a_process_with_a_wrong_plan_does_not_start() -> None:
    """A kill test whose fault never strikes would prove nothing."""
    ended = in_process("", "task.dine:1")
    assert ended.returncode == 1
    assert "'task.dine:1' names no fault point" in ended.stderr


PASSING = """
for number in range(1, 6):
    print(number, flush=True)
    fault_point("task.done")
"""


@pytest.mark.parametrize(
    ("action", "code"), [("", -signal.SIGKILL), (":exit", 70), (":term", -signal.SIGTERM)]
)
def test_a_planned_fault_strikes_at_its_passing(action: str, code: int) -> None:
    ended = in_process(PASSING, f"task.done:3{action}")
    assert ended.returncode == code
    assert ended.stdout.split() == ["1", "2", "3"]


def test_other_points_do_not_count() -> None:
    ended = in_process(PASSING, "task.begun:1,commit.done:3")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["1", "2", "3", "4", "5"]


def test_a_process_that_was_started_for_it_can_be_armed_later() -> None:
    ended = in_process(f"{PASSING}arm_faults('task.done:2')\n{PASSING}", "")
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout.split() == ["1", "2", "3", "4", "5", "1", "2"]


def test_passings_are_counted_from_the_arming() -> None:
    count = "print(fault_passings()['task.done'], fault_passings()['task.begun'])"
    ended = in_process(f"{PASSING}{count}\narm_faults('')\n{count}", "")
    assert ended.stdout.split()[5:] == ["5", "0", "0", "0"]


def test_without_the_variable_a_point_is_an_empty_function_that_nothing_arms() -> None:
    ended = in_process("fault_point('task.done')\narm_faults('task.done:1')", None)
    assert ended.returncode == 1
    assert "was started without AIKI_FAULT" in ended.stderr


@pytest.mark.skipif(VARIABLE in os.environ, reason="the faults of this very process are armed")
def test_a_point_costs_next_to_nothing() -> None:
    """The best of several measurements, so that a busy machine does not count."""
    calls = 20_000
    seconds = timeit.repeat(lambda: fault_point("task.done"), number=calls, repeat=9)
    assert min(seconds) / calls * 1e9 < CALL_MAX_NS
    with pytest.raises(FaultPlanError):
        arm_faults("")
