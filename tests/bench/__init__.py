"""Benchmarks of the whole system; `python -m tests.bench --help` says what there is.

The programs `*_micro.py` beside them measure single parts and are run by hand.
"""
