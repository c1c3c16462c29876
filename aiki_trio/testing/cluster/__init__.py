"""A cluster of real processes on this machine, for tests, demos and trying things out."""

from ._backing import free_port as free_port
from ._cluster import LocalCluster as LocalCluster
from ._process import Managed as Managed

__all__ = ["LocalCluster", "Managed", "free_port"]
