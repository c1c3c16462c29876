"""An order service that is killed half-way and goes on; start reading in `workflows.py`."""
