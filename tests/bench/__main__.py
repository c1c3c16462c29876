"""Lets `python -m tests.bench` run the benchmark."""

import sys

from tests.bench._runner import main

sys.exit(main(sys.argv[1:]))
