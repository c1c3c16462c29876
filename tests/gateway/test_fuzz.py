"""schemathesis over the served OpenAPI document: requests of every kind that it can think of.

Each answer must have a status, a type and a form that the document declares, and be no 5xx; what
violates the document must be refused. The stateful phase follows the links: start, look, cancel.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from aiki_gateway import GatewaySettings
from tests.gateway.serving import openapi, served

CONFIG = Path(__file__).with_name("schemathesis.toml")
SECONDS = 20
LONGEST_POLL_S = 0.2
"""A long poll of a run that sleeps waits for all of its time; schemathesis gives up after ten."""
STREAMS = ("stream", "streamRun")
"""Operations whose answers do not end; `test_live` reads them."""


def _document(folder: Path) -> Path:
    """Write the document with workflows that there are, and with polls that are short."""
    document = copy.deepcopy(openapi())
    start = document["components"]["schemas"]["StartRequest"]["properties"]
    start["workflow"] = {"type": "string", "enum": ["wait", "sleep"]}
    start["version"] = {"type": "string", "enum": ["1.0.0"]}
    start["input"] = {"type": "object", "properties": {}, "additionalProperties": False}
    for parameter in document["paths"]["/v1/runs/{run_id}/result"]["get"]["parameters"]:
        if parameter["name"] == "wait":
            parameter["schema"]["maximum"] = LONGEST_POLL_S
    path = folder / "openapi.json"
    path.write_text(json.dumps(document))
    return path


@pytest.mark.slow
async def test_nothing_that_can_be_made_of_the_document_is_a_5xx(tmp_path: Path) -> None:
    """Bounded by time, with a fixed seed; the output of a failure has a line that repeats it."""
    unlimited = GatewaySettings(requests_per_s=100_000, requests_burst=100_000)
    async with served(unlimited) as server:
        command = [
            str(Path(sys.executable).with_name("schemathesis")),
            "--config-file",
            str(CONFIG),
            "run",
            str(_document(tmp_path)),
            f"--url={server.bound.url}",
            "--seed=1",
            f"--max-time={SECONDS}",
            "--no-color",
            "--warnings=off",
            "--suppress-health-check=all",
            *(f"--exclude-operation-id={name}" for name in STREAMS),
        ]
        with trio.fail_after(90):
            done = await trio.run_process(
                command, check=False, capture_stdout=True, stderr=subprocess.STDOUT, cwd=tmp_path
            )
        assert done.returncode == 0, done.stdout.decode()[-8_000:]
        metrics = (await server.http.get("/metrics")).text
        assert 'status="5' not in metrics
        assert 'operation="cancelRun",status="204"' in metrics
