"""The workflows that a worker or client has at hand, by name and version."""

import re
from collections.abc import Iterable, Iterator
from typing import Final, cast

from aiki_sdk._errors import DuplicateName, InvalidRequest, UnknownWorkflow
from aiki_sdk._workflow import AnyWorkflow, Workflow

_SEMVER: Final = re.compile(
    r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:-([0-9A-Za-z.-]+))?(?:\+.*)?", re.ASCII
)


class WorkflowRegistry:
    """The workflows that a worker or client has at hand, by name and version."""

    def __init__(self, workflows: Iterable[AnyWorkflow] = ()) -> None:
        """Register `workflows`.

        Raises:
            DuplicateName: if two of them have one name and version.
        """
        self._workflows: dict[str, dict[str, AnyWorkflow]] = {}
        for item in workflows:
            self.add(item)

    def add(self, item: AnyWorkflow) -> None:
        """Register a workflow; registering the same object again changes nothing.

        Raises:
            DuplicateName: naming both places, if another has its name and version.
            InvalidRequest: if it is not a workflow.
        """
        given = cast("object", item)
        if not isinstance(given, Workflow):
            message = (
                f"{given!r} is not a workflow; decorate it with @workflow(name=..., version=...)"
            )
            raise InvalidRequest(message)
        versions = self._workflows.setdefault(item.name, {})
        known = versions.setdefault(item.version, item)
        if known is not item:
            raise DuplicateName("workflow", item.key, known.location, item.location)

    def resolve(self, name: str, version: str | None = None) -> AnyWorkflow:
        """Return the workflow of this name and version.

        Without a version: the highest by semantic versioning, or the one registered last if some
        version of that name is not a semantic one.

        Raises:
            UnknownWorkflow: listing what is registered.
        """
        versions = self._workflows.get(name, {})
        if version is None and versions:
            return versions[latest_version(list(versions))]
        found = versions.get(version) if version is not None else None
        if found is None:
            raise UnknownWorkflow(name, version, self.keys())
        return found

    def get(self, name: str, version: str) -> AnyWorkflow | None:
        """Return the workflow of this name and version, or None."""
        return self._workflows.get(name, {}).get(version)

    def keys(self) -> list[str]:
        """Return `name@version` of all, in order of registration by name."""
        return [item.key for item in self]

    def __iter__(self) -> Iterator[AnyWorkflow]:
        for versions in self._workflows.values():
            yield from versions.values()

    def __len__(self) -> int:
        return sum(map(len, self._workflows.values()))

    def __contains__(self, item: object) -> bool:
        return isinstance(item, Workflow) and self.get(item.name, item.version) is item


def latest_version(versions: list[str]) -> str:
    """Return the highest version by semantic versioning; if one is not semantic, the last."""
    matches = [_SEMVER.fullmatch(version) for version in versions]
    if not all(matches):
        return versions[-1]
    return max(versions, key=_precedence)


def _precedence(version: str) -> tuple[tuple[int, ...], bool, tuple[tuple[bool, int, str], ...]]:
    match = _SEMVER.fullmatch(version)
    assert match is not None, version
    numbers = tuple(int(part or 0) for part in match.groups()[:3])
    prerelease = match.group(4)
    # A release comes after its prereleases; among those, numbers come before words.
    parts = tuple(
        (not part.isdecimal(), int(part) if part.isdecimal() else 0, part)
        for part in (prerelease or "").split(".")
    )
    return numbers, prerelease is None, parts
