"""What workflows the server knows: those whose code is here, and those that workers announced.

A server needs no code of a workflow to start its runs: the definition that a worker announced says
what a run is created with. Definitions are kept in the database, so that starts are accepted after
a restart before any worker is back.

Invariant: what the code here says of a workflow goes before what was announced of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Final

from attrs import define, field

from aiki_actors.storage import KnownWorkflow, Storage
from aiki_sdk import AikiError, AnyWorkflow, LimitExceeded, UnknownWorkflow, WorkflowRegistry
from aiki_sdk._registry import latest_version
from aiki_sdk.protocol import WorkflowDefinition, definition_of, from_wire, to_wire

LOGGER: Final = logging.getLogger("aiki.server")

KNOWN_MAX: Final = 10_000
"""Workflow versions that are known by announcement; a worker that announces more is refused."""


@define(eq=False)
class WorkflowCatalogue:
    """The workflows of all namespaces.

    Attributes:
        registry: those whose code is in this process; they are known in every namespace.
        storage: where announced ones are kept.

    """

    registry: WorkflowRegistry
    storage: Storage
    _known: dict[tuple[str, str], dict[str, WorkflowDefinition]] = field(
        factory=lambda: dict[tuple[str, str], dict[str, WorkflowDefinition]](), init=False
    )
    _of_code: dict[AnyWorkflow, WorkflowDefinition] = field(
        factory=lambda: dict[AnyWorkflow, WorkflowDefinition](), init=False
    )
    _count: int = field(default=0, init=False)
    _unsaved: dict[tuple[str, str, str], KnownWorkflow] = field(
        factory=lambda: dict[tuple[str, str, str], KnownWorkflow](), init=False
    )

    async def load(self) -> None:
        """Take in what was announced to earlier processes.

        Raises:
            StorageError: the database failed.

        """
        for row in await self.storage.workflows():
            try:
                definition = from_wire(row.definition, WorkflowDefinition, "definition")
            except AikiError as error:
                LOGGER.warning("workflow %s@%s is not known: %s", row.name, row.version, error)
                continue
            versions = self._known.setdefault((row.namespace, row.name), {})
            if versions.setdefault(row.version, definition) is definition:
                self._count += 1

    async def announce(self, namespace: str, definitions: Sequence[WorkflowDefinition]) -> None:
        """Take in what a worker serves, or a start brought along; the last word counts.

        Raises:
            LimitExceeded: more workflows are known than there may be.
            StorageError: it could not be kept; it is known all the same, and kept with the next.

        """
        for definition in definitions:
            versions = self._known.setdefault((namespace, definition.name), {})
            if versions.get(definition.version) == definition:
                continue
            if definition.version not in versions:
                if self._count >= KNOWN_MAX:
                    fix = "delete what is not used any more from the table workflows"
                    raise LimitExceeded("known workflows", KNOWN_MAX, self._count + 1, fix)
                self._count += 1
            versions[definition.version] = definition
            json = to_wire(definition)
            key = (namespace, definition.name, definition.version)
            self._unsaved[key] = KnownWorkflow(*key, json)
        if self._unsaved:
            unsaved = dict(self._unsaved)
            await self.storage.put_workflows(list(unsaved.values()))
            for key, saved in unsaved.items():
                if self._unsaved.get(key) is saved:
                    del self._unsaved[key]

    def code(self, name: str, version: str) -> AnyWorkflow | None:
        """Return the workflow's code, if it is in this process."""
        return self.registry.get(name, version)

    def get(self, namespace: str, name: str, version: str) -> WorkflowDefinition | None:
        """Return what is known of a workflow, or None."""
        code = self.registry.get(name, version)
        if code is not None:
            return self._defined(code)
        return self._known.get((namespace, name), {}).get(version)

    def _defined(self, code: AnyWorkflow) -> WorkflowDefinition:
        known = self._of_code.get(code)
        if known is None:
            known = self._of_code[code] = definition_of(code)
        return known

    def resolve(self, namespace: str, name: str, version: str | None) -> WorkflowDefinition:
        """Return what is known of a workflow; without a version: of the newest one.

        Raises:
            UnknownWorkflow: listing what is known.

        """
        if version is None:
            version = self._latest(namespace, name)
        found = None if version is None else self.get(namespace, name, version)
        if found is None:
            raise UnknownWorkflow(name, version, [one.key for one in self.all_of(namespace)])
        return found

    def _latest(self, namespace: str, name: str) -> str | None:
        versions = [*self._known.get((namespace, name), {})]
        versions += [code.version for code in self.registry if code.name == name]
        return latest_version(versions) if versions else None

    def all_of(self, namespace: str) -> list[WorkflowDefinition]:
        """List what is known in a namespace, by name, then version."""
        found = {(code.name, code.version): self._defined(code) for code in self.registry}
        for (owner, name), versions in self._known.items():
            if owner == namespace:
                for version, definition in versions.items():
                    found.setdefault((name, version), definition)
        return [found[key] for key in sorted(found)]

    def __iter__(self) -> Iterator[WorkflowDefinition]:
        """Iterate over everything known, of all namespaces."""
        for code in self.registry:
            yield self._defined(code)
        for versions in self._known.values():
            yield from versions.values()

    def retentions_s(self) -> dict[str, float]:
        """Return how long workflows that say so keep their ended runs; of versions, the longest."""
        kept: dict[str, float] = {}
        for definition in self:
            if definition.retention_s is not None:
                name = definition.name
                kept[name] = max(definition.retention_s, kept.get(name, 0.0))
        return kept
