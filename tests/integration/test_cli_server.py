"""`aiki server` and `aiki worker` as processes, and the other commands asking them by URL.

The processes run on the machine's own clock; what is waited for is what they say or record.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiki_trio.cli import main
from aiki_trio.testing.cluster import LocalCluster

pytestmark = pytest.mark.slow  # it starts processes

SHOP = '''
"""Workflows for the commands of this test."""

from aiki_sdk import Event, Run, task, workflow

paid = Event("paid", int)


@task
async def reserve(item: str) -> str:
    return f"reserved {item}"


@workflow(name="order", version="1.0.0", events=[paid])
async def order(run: Run, item: str) -> str:
    reserved = await reserve(item)
    return f"{reserved} for {await run.wait(paid)}"
'''


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Run a server and a worker."""
    shop = tmp_path_factory.mktemp("shop") / "shop.py"
    shop.write_text(SHOP)
    with LocalCluster(str(shop), count=1) as running:
        yield running


class Aiki:
    """Gives commands to the cluster's server."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Ask this server."""
        self.url = url
        self.capsys = capsys

    def __call__(self, *words: str) -> str:
        """Carry a command out and return what it printed; it must succeed."""
        code = main([*words, "--url", self.url])
        printed = self.capsys.readouterr()
        assert code == 0, printed.err
        return printed.out


@pytest.fixture
def aiki(cluster: LocalCluster, capsys: pytest.CaptureFixture[str]) -> Aiki:
    """Return what gives commands."""
    return Aiki(cluster.url, capsys)


def start(aiki: Aiki, reference_id: str) -> str:
    """Start an order and return its run."""
    words = ("start", "order", "--input", '{"item": "book"}', "--reference-id", reference_id)
    return str(json.loads(aiki(*words, "--json"))["run_id"])


def test_a_run_is_started_steered_and_watched_by_url(aiki: Aiki) -> None:
    run_id = start(aiki, "o-1")
    aiki("runs", "send", "order:o-1", "paid", "--data", "1250")
    watched = aiki("runs", "watch", run_id, "--all")
    assert "run-completed" in watched
    shown = json.loads(aiki("runs", "show", run_id, "--json"))
    assert shown["output"] == "reserved book for 1250"
    assert "event-accepted" in aiki("runs", "history", run_id)
    assert run_id in aiki("runs", "list", "--workflow", "order")


def test_a_run_is_cancelled_and_explained_by_url(aiki: Aiki) -> None:
    run_id = start(aiki, "o-2")
    aiki("runs", "cancel", run_id, "--reason", "changed my mind")
    aiki("runs", "watch", run_id)
    assert "changed my mind" in aiki("explain", run_id)


def test_a_run_that_no_worker_serves_is_listed_by_url_with_what_it_lacks(aiki: Aiki) -> None:
    served = start(aiki, "o-3")
    words = ("start", "order", "--input", '{"item": "book"}', "--pool", "gpu", "--json")
    lacking = json.loads(aiki(*words))["run_id"]
    listed = aiki("runs", "list", "--undeliverable")
    assert "order@1.0.0 in pool gpu" in listed
    assert lacking in listed
    assert served not in listed
    aiki("runs", "cancel", lacking)
    assert json.loads(aiki("runs", "list", "--undeliverable", "--json"))["runs"] == []


def test_the_tree_shows_the_worker_under_the_server(aiki: Aiki) -> None:
    tree = aiki("tree")
    assert "gateway" in tree
    assert "wrk_" in tree
    root = json.loads(aiki("tree", "--json"))
    assert root["name"] == "runtime"


def test_a_server_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tree", "--url", "http://127.0.0.1:9"]) == 4
    assert "127.0.0.1:9" in capsys.readouterr().err


def test_without_a_url_the_tree_needs_a_runtime_that_takes_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tree", "--database-url", f"sqlite:///{tmp_path / 'none.db'}"]) == 4
    assert "name a server with --url" in capsys.readouterr().err


def test_a_killed_worker_and_a_killed_server_cost_no_run(cluster: LocalCluster, aiki: Aiki) -> None:
    run_id = start(aiki, "o-3")
    cluster.workers[0].kill()
    cluster.server.kill()
    cluster.server.start()
    cluster.server.wait_ready()
    cluster.workers[0].start()
    cluster.workers[0].wait_ready()
    aiki("runs", "send", run_id, "paid", "--data", "7")
    aiki("runs", "watch", run_id)
    shown = json.loads(aiki("runs", "show", run_id, "--json"))
    assert shown["output"] == "reserved book for 7"


def test_a_stopped_worker_and_server_leave_in_good_order(tmp_path: Path) -> None:
    shop = tmp_path / "shop.py"
    shop.write_text(SHOP)
    with LocalCluster(str(shop), count=2) as running:
        assert running.workers[0].stop() == 0
        assert running.server.stop() == 0, "while the other worker is connected"
        parts = running.parts
    assert [part.exit_code for part in parts] == [0, 0, 0]
    said = [line for part in parts for line in part.lines]
    assert not [line for line in said if "Traceback" in line or "ERROR" in line], said


def test_a_server_refuses_to_be_open_to_others_without_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = f"sqlite:///{tmp_path / 'open.db'}"
    assert main(["server", "--host", "0.0.0.0", "--port", "0", "--database-url", database]) == 2
    assert "key" in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(
    cluster: LocalCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = cluster.url.rpartition(":")[2]
    database = f"sqlite:///{tmp_path / 'second.db'}"
    assert main(["server", "--port", port, "--database-url", database]) == 2
    assert f"port={port}" in capsys.readouterr().err
