"""One repetition of one workload, in a process of its own: prints its figures as one JSON object.

Called by the runner as `python -m tests.bench._child NAME PARAMETERS FOLDER TOPOLOGY`.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import cast

from tests.bench._measuring import WrongResult
from tests.bench._places import Place, Topology, Workload
from tests.bench.w1_sequential import WORKLOAD as W1
from tests.bench.w2_one_task import WORKLOAD as W2
from tests.bench.w3_event import WORKLOAD as W3
from tests.bench.w4_parked import WORKLOAD as W4
from tests.bench.w5_parallel import WORKLOAD as W5
from tests.bench.w6_crash import WORKLOAD as W6
from tests.bench.w7_replay import WORKLOAD as W7
from tests.bench.w8_live import WORKLOAD as W8

WORKLOADS: dict[str, Workload] = {one.name: one for one in (W1, W2, W3, W4, W5, W6, W7, W8)}


def main(name: str, params: str, folder: str, topology: str) -> int:
    """Measure once; 1 if a result was wrong."""
    logging.basicConfig(level=logging.ERROR)
    try:
        place = Place(Path(folder), cast("Topology", topology))
        figures = WORKLOADS[name].measure(json.loads(params), place)
    except* WrongResult as group:
        print(f"{name}: wrong result: {group.exceptions}", file=sys.stderr)
        return_code = 1
    else:
        print(json.dumps(figures))
        return_code = 0
    return return_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
