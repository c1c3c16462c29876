"""`python -m aiki_trio.cli`: the same as `aiki`."""

import sys

from ._main import main

sys.exit(main())
