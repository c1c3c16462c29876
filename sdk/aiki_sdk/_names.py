"""The one rule for names and the one rule for versions.

Names of workflows, tasks, events, sleeps, pools and values travel in URLs, stream keys and
addresses, so they are short, ASCII, and free of the separators that those use (`:`, `@`, `?`, `#`,
blanks).
"""

import re
from typing import Final

from aiki_sdk._errors import InvalidRequest

NAME_LENGTH_MAX: Final = 128
VERSION_LENGTH_MAX: Final = 64

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*", re.ASCII)
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*", re.ASCII)


def check_name(kind: str, name: object) -> str:
    """Return `name` if it is a valid name.

    Args:
        kind: what it names, for the message: "task", "event", "pool".
        name: the candidate.

    Raises:
        InvalidRequest: naming the kind, the value and the rule.
    """
    if isinstance(name, str) and len(name) <= NAME_LENGTH_MAX and _NAME.fullmatch(name):
        return name
    message = (
        f"{kind} name {_shown(name)} is not valid: use 1 to {NAME_LENGTH_MAX} of the characters "
        "A-Z a-z 0-9 . _ / - and start with a letter or digit"
    )
    raise InvalidRequest(message)


def check_version(version: object) -> str:
    """Return `version` if it is a valid workflow version.

    Raises:
        InvalidRequest: naming the value and the rule.
    """
    if (
        isinstance(version, str)
        and len(version) <= VERSION_LENGTH_MAX
        and _VERSION.fullmatch(version)
    ):
        return version
    message = (
        f"workflow version {_shown(version)} is not valid: use 1 to {VERSION_LENGTH_MAX} of the "
        "characters A-Z a-z 0-9 . _ + - and start with a letter or digit, such as '1.0.0'"
    )
    raise InvalidRequest(message)


def name_of_function(function_name: str) -> str:
    """Return the default name of a task or workflow: the function's name with dashes."""
    return function_name.strip("_").replace("_", "-")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= NAME_LENGTH_MAX else f"{text[:NAME_LENGTH_MAX]}…"
