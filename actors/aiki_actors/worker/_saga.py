"""Compensations: what undoes the steps of a run that did not come to its end.

They are kept in memory only: replay registers them again at the same points, and what they did is
recorded as any task call is, so that a crash in their midst loses and repeats nothing. They run
after the code has unwound, outside the scope that a cancellation closes, one at a time, the last
registered first. Of several that branches registered between two results the order is that of the
branches.

They run when the run ends cancelled, or failed for good: while the workflow's retry policy allows
another attempt nothing is undone, for the next attempt goes on with what is done already.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio
from attrs import define, field, frozen

from aiki_actors import engine as e
from aiki_sdk import AnyTask, JsonValue, Retry, current_workflow
from aiki_sdk._addresses import branch_from_text

from ._branches import Branch
from ._execution import Execution

Place = tuple[int, tuple[tuple[int, int], ...], int]


@frozen
class Undo:
    """One thing to do when the run does not come to its end.

    Attributes:
        place: where it was registered; places sort as the code came by them (see `_place`).
        only_cancelled: not when the run fails.

    """

    place: Place
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    only_cancelled: bool


@define(eq=False)
class Saga:
    """The compensations of one run's code.

    Attributes:
        main: the branch of the workflow function.
        undone: compensations have run, or were to: the run is not to be tried again.

    """

    execution: Execution
    main: Branch
    undone: bool = False
    _undos: list[Undo] = field(factory=lambda: list[Undo](), init=False)
    _number: int = field(default=0, init=False)

    def compensate(
        self, branch: Branch, task: AnyTask, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Register a task call; arguments that do not fit are refused here."""
        task.encode_input(args, kwargs)
        self._register(branch, task, args, kwargs, only_cancelled=False)

    def on_cancel(
        self,
        branch: Branch,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        """Register a task or a function of the workflow's own code, for a cancellation only."""
        self._register(branch, function, args, kwargs, only_cancelled=True)

    def _register(
        self,
        branch: Branch,
        function: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        only_cancelled: bool,
    ) -> None:
        self._number += 1
        self._undos.append(Undo(self._place(branch), function, args, kwargs, only_cancelled))

    def _place(self, branch: Branch) -> Place:
        """Return what replay gives again: results so far, then the branch, then the number.

        Between two results Trio may run branches in any order, so theirs is that of their paths;
        what a branch does comes after what the branches did that it had spawned before.
        """
        path = tuple((number, 1) for number in branch_from_text(branch.path))
        return self.execution.deliveries, (*path, (branch.spawned, 0)), self._number

    async def run(self, code: Callable[[], Awaitable[JsonValue]]) -> JsonValue:
        """Run the workflow's code, and its compensations if it does not come to its end.

        Raises:
            BaseException: what the code raised; together with what compensations raised, as a
                group, if any did.

        """
        execution = self.execution
        failure: BaseException | None = None
        value: JsonValue = None
        try:
            with execution.cancel_scope:
                value = await code()
        except BaseException as error:
            if execution.evicted or isinstance(error, trio.Cancelled | KeyboardInterrupt):
                raise
            failure = error
        self._late_cancel()
        cancelled = execution.cancelled_at is not None
        if cancelled or (failure is not None and self._final(failure)):
            errors = await self._unwind(cancelled=cancelled)
            failure = _together(execution.run_id, failure, errors)
        if failure is not None:
            raise failure
        return value

    def _late_cancel(self) -> None:
        """Deliver a cancellation that came before the code's end and met no call after it.

        Not one that came when the compensations of a failure were on their way: they go on so.
        """
        replica = self.execution.replica
        left = [record.resolved_at for record in replica.left_over() if record.resolution]
        self.execution.deliver_late_cancel(min(left, default=None))

    def _final(self, error: BaseException) -> bool:
        """Whether no attempt of the workflow follows this failure."""
        replica = self.execution.replica
        retry = retry_of(replica.created)
        if not isinstance(error, Exception) or not retry.retries(error):
            return True
        return retry.delay_after(replica.attempt, 0.0) is None

    async def _unwind(self, *, cancelled: bool) -> list[Exception]:
        """Run the compensations, the last registered first; one that fails stops none."""
        errors: list[Exception] = []
        self.undone = True
        token = current_workflow.set(self.main.child())
        try:
            while self._undos:
                undo = max(self._undos, key=lambda undo: undo.place)
                self._undos.remove(undo)
                if undo.only_cancelled and not cancelled:
                    continue
                try:
                    result = undo.function(*undo.args, **undo.kwargs)
                    if inspect.isawaitable(result):
                        await result
                except Exception as error:  # noqa: BLE001  (it is part of the run's outcome)
                    errors.append(error)
        finally:
            current_workflow.reset(token)
        return errors


def retry_of(spec: e.RunCreated | None) -> Retry:
    """Return the retry policy that a run was created with."""
    if spec is None or not isinstance(spec.retry, dict):
        return Retry.never()
    return Retry.from_json(spec.retry)


def _together(
    run_id: str, failure: BaseException | None, errors: list[Exception]
) -> BaseException | None:
    """Put what the code and what its compensations failed with into one error."""
    if not errors:
        return failure
    count = "a compensation" if len(errors) == 1 else f"{len(errors)} compensations"
    if failure is None:
        return ExceptionGroup(f"{count} of the cancelled run {run_id} failed", errors)
    message = f"run {run_id} failed, and so did {count} of it"
    return BaseExceptionGroup(message, [failure, *errors])
