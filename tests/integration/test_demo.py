"""The demo of the orders: it proves what it claims, and its proofs can fail.

The demo's processes run on the machine's own clock, for what they show is a real crash.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from attrs import evolve

from aiki_sdk import JournalEntry
from examples.orders.__main__ import Demo
from examples.orders.effects import Phase
from examples.orders.evidence import Evidence, History
from examples.orders.service import Service
from examples.orders.verify import verify

ROOT = Path(__file__).resolve().parents[2]
ORDERS = 20

pytestmark = pytest.mark.slow  # two processes, one after the other, serve orders for seconds


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the demo as a user does."""
    command = [sys.executable, "-m", "examples.orders", "--orders", str(ORDERS), *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Give the evidence of one run with a kill."""
    folder = tmp_path_factory.mktemp("orders")
    service = Service(folder / "orders.db", folder / "effects.jsonl", ORDERS, seed=2, quiet=True)
    return Demo(service, 0.5, folder).run()


def test_every_claim_is_proven_although_the_process_kills_itself() -> None:
    """Exit code 0, every claim proven, and the summary tells what the kill cost."""
    ended = demo("--quiet")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "all claims proven" in ended.stdout
    assert "every kill was a SIGKILL in the middle" in ended.stdout
    assert f"{ORDERS} orders planned" in ended.stdout
    assert "unfinished attempts that were repeated" in ended.stdout
    assert "next journal entry" in ended.stdout
    assert "FAILED" not in ended.stdout


def test_without_a_kill_nothing_is_claimed_of_one(tmp_path: Path) -> None:
    """The progress is printed line by line where there is no terminal."""
    ended = demo("--no-kill", "--database", str(tmp_path / "kept.db"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "all claims proven" in ended.stdout
    assert "SIGKILL" not in ended.stdout
    assert "recovery" not in ended.stdout
    assert re.search(r"^ +[0-9.]+ s +\d+ executions ", ended.stdout, re.MULTILINE)
    assert (tmp_path / "kept.db").exists()


def test_a_database_that_exists_is_left_alone(tmp_path: Path) -> None:
    """Orders of an earlier run would spoil the proofs."""
    database = tmp_path / "mine.db"
    database.write_text("precious")
    ended = demo("--quiet", "--database", str(database))
    assert ended.returncode == 2
    assert "name a new file" in ended.stderr
    assert database.read_text() == "precious"


# --- Proofs that fail when they should ------------------------------------------------------------


def failed_claims(evidence: Evidence) -> set[str]:
    """Return the claims that are not proven."""
    return {proof.claim for proof in verify(evidence).proofs if not proof.holds}


def test_the_evidence_of_a_good_run_proves_everything(evidence: Evidence) -> None:
    """What the other tests here spoil is whole to begin with."""
    assert failed_claims(evidence) == set()


def test_a_finished_task_that_runs_again_is_noticed(evidence: Evidence) -> None:
    """The first task of all is run once more by the second process, after everything else."""
    last = evidence.lines[-1]
    again = [
        evolve(evidence.lines[0], phase=phase, pid=last.pid, at=last.at + 1)
        for phase in (Phase.BEGIN, Phase.OK)
    ]
    spoiled = evolve(evidence, lines=(*evidence.lines, *again))
    assert failed_claims(spoiled) == {
        "nothing finished ran twice",
        "what was finished at a kill was left alone",
    }


def test_an_attempt_that_runs_twice_in_one_process_is_noticed(evidence: Evidence) -> None:
    """Whatever the times say."""
    first = evidence.lines[0]
    spoiled = evolve(evidence, lines=(first, evolve(first, phase=Phase.OK), *evidence.lines))
    assert failed_claims(spoiled) == {"no attempt ran twice but for a kill"}


def test_an_outcome_of_what_never_ran_is_noticed(evidence: Evidence) -> None:
    """The log forgets one call."""
    key = evidence.lines[0].key
    lines = tuple(line for line in evidence.lines if line.key != key)
    assert failed_claims(evolve(evidence, lines=lines)) == {
        "every recorded outcome really happened"
    }


Doctor = Callable[[list[JournalEntry], int], list[JournalEntry]]


def without(entries: list[JournalEntry], place: int) -> list[JournalEntry]:
    """Take an entry out, and close the gap."""
    rest = entries[:place] + entries[place + 1 :]
    return [evolve(entry, seq=seq) for seq, entry in enumerate(rest, start=1)]


def doubled(entries: list[JournalEntry], place: int) -> list[JournalEntry]:
    """Write an entry twice, with seqs that hide it."""
    twice = entries[: place + 1] + entries[place:]
    return [evolve(entry, seq=seq) for seq, entry in enumerate(twice, start=1)]


def with_gap(entries: list[JournalEntry], place: int) -> list[JournalEntry]:
    """Count on from an entry as if one were missing before it."""
    return entries[:place] + [evolve(entry, seq=entry.seq + 1) for entry in entries[place:]]


@pytest.mark.parametrize(
    ("doctor", "claim"),
    [
        (without, "every task call has exactly one outcome"),
        (doubled, "every task call has exactly one outcome"),
        (with_gap, "every journal is without gap and ends once"),
    ],
)
def test_a_doctored_journal_is_noticed(evidence: Evidence, doctor: Doctor, claim: str) -> None:
    """The last task outcome of a shipment is removed, doubled or moved."""
    run_id, history = delivered_shipment(evidence)
    entries = list(history.entries)
    place = max(n for n, entry in enumerate(entries) if entry.kind == "task-succeeded")
    doctored = evolve(history, entries=tuple(doctor(entries, place)))
    spoiled = evolve(evidence, journals={**evidence.journals, run_id: doctored})
    assert failed_claims(spoiled) == {claim}


def test_an_entry_that_the_crash_took_is_noticed(evidence: Evidence) -> None:
    """At the kill a journal held an entry that is not there any more."""
    (kill,) = evidence.kills
    run_id, history = next(iter(kill.journals.items()))
    lost = evolve(history.entries[-1], seq=history.entries[-1].seq + 10_000)
    before = {**kill.journals, run_id: evolve(history, entries=(*history.entries, lost))}
    spoiled = evolve(evidence, kills=(evolve(kill, journals=before),))
    assert "no entry that was durable at a kill was lost" in failed_claims(spoiled)


def test_a_wrong_receipt_and_a_lost_order_are_noticed(evidence: Evidence) -> None:
    """One order has no run, another one a run that returned something else."""
    runs = [(i, h) for i, h in evidence.journals.items() if h.info.workflow == "order"]
    completed = [(i, h) for i, h in runs if h.info.status == "completed"]
    (lost_id, _), (wrong_id, wrong), *_ = completed
    assert isinstance(wrong.info.output, dict)
    output = {**wrong.info.output, "total_cents": -1}
    journals = {
        **evidence.journals,
        wrong_id: evolve(wrong, info=evolve(wrong.info, output=output)),
    }
    del journals[lost_id]
    proof = verify(evolve(evidence, journals=journals)).proofs[0]
    assert sum("was lost" in violation for violation in proof.violations) == 1
    assert sum("total_cents=-1" in violation for violation in proof.violations) == 1


def test_a_process_that_was_not_killed_is_noticed(evidence: Evidence) -> None:
    """A demo of a crash without a crash proves nothing."""
    (kill,) = evidence.kills
    spoiled = evolve(evidence, kills=(evolve(kill, signal=0),))
    assert failed_claims(spoiled) == {"every kill was a SIGKILL in the middle"}


def test_a_process_that_breaks_down_in_the_end_is_noticed(evidence: Evidence) -> None:
    """Orders may all be done and the runtime still not stop as it should."""
    assert failed_claims(evolve(evidence, exit_codes={"worker": 1})) == {
        "what was stopped in good order stopped cleanly"
    }


def test_the_recovery_is_measured_from_the_restart(evidence: Evidence) -> None:
    """A restart that was a second earlier took a second longer to recover."""
    (kill,) = evidence.kills
    earlier = evolve(kill, restarted_at=kill.restarted_at - timedelta(seconds=1))
    (measured,) = verify(evidence).recoveries
    (longer,) = verify(evolve(evidence, kills=(earlier,))).recoveries
    assert 0 < measured.first_entry_s <= measured.all_going_s
    assert longer.all_going_s == pytest.approx(measured.all_going_s + 1)


def delivered_shipment(evidence: Evidence) -> tuple[str, History]:
    """Return a shipment of which nothing was in the journal yet when the process was killed."""
    (kill,) = evidence.kills
    return next(
        (run_id, history)
        for run_id, history in evidence.journals.items()
        if run_id not in kill.journals
        and history.info.workflow == "shipment"
        and history.info.status == "completed"
    )
