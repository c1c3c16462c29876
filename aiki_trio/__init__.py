"""What you run and embed: the runtime, its settings, and the SDK's names."""

from aiki_sdk import *  # noqa: F403
from aiki_sdk import __all__ as _sdk_names

from ._runtime import Runtime as Runtime, open_runtime as open_runtime
from ._settings import RuntimeSettings as RuntimeSettings

__all__ = ["Runtime", "RuntimeSettings", "open_runtime"]
__all__ += _sdk_names
