"""Finding the workflows that a module defines, and the folder that its source is in.

A module is named as Python names it (`my_app.workflows`) or by its file (`my_app/workflows.py`); a
file inside a package is imported as part of that package, so that both lead to the same module.

Invariant: importing runs the module's code, so only commands that need the code import it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import cast

from attrs import frozen

from aiki_sdk import AnyWorkflow, InvalidRequest, Workflow, WorkflowRegistry


@frozen
class Module:
    """A module by its dotted name, and the folder that it is imported from.

    Attributes:
        name: what to import.
        folder: stands first in `sys.path`.
    """

    name: str
    folder: Path

    @property
    def source_root(self) -> Path:
        """Where its source files are: its top package, or the folder of a lone module."""
        package = self.folder / self.name.partition(".")[0]
        return package if package.is_dir() else self.folder


def find_module(text: str, folder: Path) -> Module:
    """Say what a module's name or path stands for; nothing is imported.

    Args:
        text: a dotted name, or the path of a .py file.
        folder: the current folder.

    Raises:
        InvalidRequest: the file does not exist, or it is no name.
    """
    if text.endswith(".py") or "/" in text:
        path = (folder / text).resolve()
        if not path.is_file():
            message = f"module {text!r} is not valid: there is no file {path}"
            raise InvalidRequest(message)
        names = [path.stem]
        root = path.parent
        while (root / "__init__.py").is_file():
            names.insert(0, root.name)
            root = root.parent
        return Module(".".join(names), root)
    if not all(part.isidentifier() for part in text.split(".")):
        message = f"module {text!r} is not valid: pass a dotted name, or the path of a .py file"
        raise InvalidRequest(message)
    return Module(text, _folder_of(text.partition(".")[0], folder))


def _folder_of(top: str, folder: Path) -> Path:
    """Find where a top-level package is imported from, the current folder first."""
    if (folder / top).is_dir() or (folder / f"{top}.py").is_file():
        return folder
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        return folder
    found = Path(spec.origin).parent
    return found.parent if spec.submodule_search_locations else found


def load_workflows(text: str, folder: Path) -> tuple[AnyWorkflow, ...]:
    """Import a module and return the workflows that it has at its top level.

    Raises:
        InvalidRequest: it cannot be imported (with the traceback), or has no workflow.
        DuplicateName: two of its workflows have one name and version.
    """
    module = find_module(text, folder)
    if str(module.folder) not in sys.path:
        sys.path.insert(0, str(module.folder))
    try:
        loaded = importlib.import_module(module.name)
    except (Exception, SystemExit) as error:  # whatever its code raises
        shown = "".join(traceback.format_exception(error)).rstrip()
        message = f"module {text!r} cannot be imported: {type(error).__name__}: {error}\n{shown}"
        raise InvalidRequest(message) from error
    values: dict[str, object] = vars(loaded)
    registry = WorkflowRegistry()
    for value in values.values():
        if isinstance(value, Workflow):
            registry.add(cast("AnyWorkflow", value))
    if not len(registry):
        message = f"module {text!r} has no workflow: define one with @workflow, or import it there"
        raise InvalidRequest(message)
    return tuple(registry)
