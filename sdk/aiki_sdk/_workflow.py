"""`@workflow`: an ordinary `async def` that survives crashes."""

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    Generic,
    Literal,
    NoReturn,
    ParamSpec,
    TypeAlias,
    TypeVar,
    cast,
    get_args,
)

from attrs import frozen

from aiki_sdk._durations import Duration, optional_seconds, seconds
from aiki_sdk._errors import DuplicateName, InvalidRequest, UnknownEvent, UnknownQuestion
from aiki_sdk._event import Event
from aiki_sdk._json import JsonValue
from aiki_sdk._names import check_name, check_version
from aiki_sdk._question import Question
from aiki_sdk._retry import Retry
from aiki_sdk._signature import CallSignature

if TYPE_CHECKING:
    from aiki_sdk._run import Run

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

PriorityName: TypeAlias = Literal["high", "normal", "low"]
OnDivergence: TypeAlias = Literal["fail", "stall"]

CANCEL_GRACE_S: Final = 60.0
"""Seconds that a cancelled run has for its compensations, unless its workflow says otherwise."""

_EMPTY: Final[Mapping[str, Any]] = {}
_PRIORITIES: Final[tuple[str, ...]] = get_args(PriorityName)
_DIVERGENCES: Final[tuple[str, ...]] = get_args(OnDivergence)


@frozen
class WorkflowSettings:
    """The options of a workflow; a run copies them when it starts.

    Attributes:
        retry: when a failed attempt of the whole run is followed by another.
        timeout_s: seconds that the whole run may take; None: any time.
        pool: the workers that execute it.
        priority: which ready runs go first.
        cancel_grace_s: seconds that a cancelled run has for its compensations.
        on_divergence: what to do if the code no longer makes the recorded calls; None: as the
            server's settings say.
        retention_s: seconds that ended runs are kept; None: as the server's settings say.
    """

    retry: Retry
    timeout_s: float | None
    pool: str
    priority: PriorityName
    cancel_grace_s: float
    on_divergence: OnDivergence | None
    retention_s: float | None


class Workflow(Generic[P, R_co]):
    """A durable function. Start it with a client, or call it from another workflow's run.

    Attributes:
        name: the workflow's name.
        version: runs stay on the version that they were started with.
        settings: its options.
        events: the events that may be sent to its runs, by name.
        questions: the questions that its runs may be asked, by name.
        signature: binds and converts arguments and results.
    """

    name: str
    version: str
    settings: WorkflowSettings
    events: Mapping[str, Event[Any]]
    questions: Mapping[str, Question[Any, Any]]
    signature: CallSignature
    __name__: str
    __qualname__: str
    _function: Callable[..., Any]

    def __init__(
        self,
        function: "Callable[Concatenate[Run, P], Coroutine[Any, Any, R_co]]",
        name: str,
        version: str,
        settings: WorkflowSettings,
        events: Mapping[str, Event[Any]],
        questions: Mapping[str, Question[Any, Any]] = _EMPTY,
    ) -> None:
        """Use `@workflow`."""
        functools.update_wrapper(cast("Callable[..., Any]", self), function)
        self._function = function
        self.name = name
        self.version = version
        self.settings = settings
        self.events = events
        self.questions = questions
        self.signature = CallSignature(function, f"workflow {name!r}", skip=1)

    @property
    def function(self) -> "Callable[Concatenate[Run, P], Coroutine[Any, Any, R_co]]":
        """The function itself; the executor calls it."""
        return self._function

    @property
    def key(self) -> str:
        """Name and version in one text: `order-processing@1.0.0`."""
        return f"{self.name}@{self.version}"

    @property
    def location(self) -> str:
        """Where it is defined: `my_app.workflows:42`."""
        code = inspect.unwrap(self._function).__code__
        return f"{self._function.__module__}:{code.co_firstlineno}"

    def __call__(self, *_args: P.args, **_kwargs: P.kwargs) -> NoReturn:
        """Refuse: a workflow needs a run around it."""
        own_name = self._function.__name__
        message = (
            f"workflow {self.name!r} cannot be called as a function; start it with "
            f"`await client.start({own_name}, ...)`, or inside another workflow with "
            f"`await run.call({own_name}, ...)`"
        )
        raise TypeError(message)

    def event(self, name: str) -> Event[Any]:
        """Return the declared event of this name.

        Raises:
            UnknownEvent: listing the declared names.
        """
        event = self.events.get(name)
        if event is None:
            raise UnknownEvent(name, self.name, list(self.events))
        return event

    @property
    def mailboxes(self) -> tuple[str, ...]:
        """The names of what its runs accept: events, and questions with their mark."""
        return (*self.events, *(question.mailbox for question in self.questions.values()))

    def question(self, name: str) -> Question[Any, Any]:
        """Return the declared question of this name.

        Raises:
            UnknownQuestion: listing the declared names.
        """
        question = self.questions.get(name)
        if question is None:
            raise UnknownQuestion(name, self.name, list(self.questions))
        return question

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any] = _EMPTY) -> dict[str, Any]:
        """Return every parameter's value by name without the Run, defaults applied.

        Raises:
            TypeError: if the arguments do not fit the signature.
        """
        return self.signature.bind(args, kwargs)

    def encode_input(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any] = _EMPTY
    ) -> tuple[dict[str, JsonValue], str]:
        """Return the arguments as a JSON object, and the hash of its canonical form.

        Raises:
            TypeError: if the arguments do not fit the signature.
            PayloadError: naming the parameter and the place in it that cannot be converted.
            PayloadTooLarge: if the input is larger than 2 MiB.
        """
        return self.signature.encode_input(args, kwargs)

    def decode_input(self, json: JsonValue) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments that an input stands for, without the Run.

        Raises:
            PayloadError: naming the parameter that is missing, unknown or does not fit.
        """
        return self.signature.decode_input(json)

    def encode_output(self, value: object) -> JsonValue:
        """Return a result as JSON, by the declared return type.

        Raises:
            PayloadError: naming the place in the result that cannot be converted.
            PayloadTooLarge: if it is larger than 2 MiB.
        """
        return self.signature.encode_output(value)

    def decode_output(self, json: JsonValue) -> R_co:
        """Return a recorded result, by the declared return type.

        Raises:
            RecordedTypeMismatch: naming the place that no longer fits.
        """
        return cast("R_co", self.signature.decode_output(json))

    def __repr__(self) -> str:
        return f"<workflow {self.key} of {self.location}>"


AnyWorkflow: TypeAlias = Workflow[..., Any]


def workflow(
    name: str,
    version: str,
    *,
    retry: Retry | None = None,
    timeout: Duration | None = None,
    pool: str = "default",
    priority: PriorityName = "normal",
    events: Sequence[Event[Any]] = (),
    questions: Sequence[Question[Any, Any]] = (),
    cancel_grace: Duration = CANCEL_GRACE_S,
    on_divergence: OnDivergence | None = None,
    retention: Duration | None = None,
) -> "Callable[[Callable[Concatenate[Run, P], Coroutine[Any, Any, R]]], Workflow[P, R]]":
    """Make a workflow of an `async def` whose first parameter is the `Run`.

    Args:
        name: the workflow's name.
        version: runs stay on the version that they were started with.
        retry: when a failed attempt of the whole run is followed by another. Default: never.
        timeout: seconds or a timedelta that the whole run may take. Default: any time.
        pool: the workers that execute it.
        priority: `high`, `normal` or `low`.
        events: the events that may be sent to its runs.
        questions: the questions that its runs may be asked.
        cancel_grace: seconds or a timedelta that a cancelled run has for its compensations.
        on_divergence: `fail` or `stall`. Default: as the server's settings say.
        retention: seconds or a timedelta that ended runs are kept; of several versions that say so,
            the longest counts. Default: as the server's settings say.

    Raises:
        InvalidRequest: naming the option and its value, or what is wrong with the function.
        DuplicateName: if two events, or two questions, have one name.
    """
    settings = WorkflowSettings(
        retry=_check_retry(retry),
        timeout_s=optional_seconds("timeout", timeout, zero=False),
        pool=check_name("pool", pool),
        priority=cast("PriorityName", _check_word("priority", priority, _PRIORITIES)),
        cancel_grace_s=seconds("cancel_grace", cancel_grace),
        on_divergence=None
        if on_divergence is None
        else cast("OnDivergence", _check_word("on_divergence", on_divergence, _DIVERGENCES)),
        retention_s=optional_seconds("retention", retention),
    )
    check_name("workflow", name)
    check_version(version)
    by_name = _events_by_name(name, events)
    asked = _questions_by_name(name, questions)

    def make(
        function: "Callable[Concatenate[Run, P], Coroutine[Any, Any, R]]",
    ) -> Workflow[P, R]:
        _check_function(name, function)
        return Workflow(function, name, version, settings, by_name, asked)

    return make


# --- Checks ---------------------------------------------------------------------------------------


def _check_retry(retry: object) -> Retry:
    if retry is None:
        return Retry.never()
    if isinstance(retry, Retry):
        return retry
    message = f"retry={retry!r} is not valid: pass Retry.fixed(...) or another policy"
    raise InvalidRequest(message)


def _check_word(option: str, value: str, allowed: tuple[str, ...]) -> str:
    if value in allowed:
        return value
    message = f"{option}={value!r} is not valid: use {' or '.join(map(repr, allowed))}"
    raise InvalidRequest(message)


def _events_by_name(workflow: str, events: Sequence[Event[Any]]) -> dict[str, Event[Any]]:
    by_name: dict[str, Event[Any]] = {}
    for event in cast("Sequence[Any]", events):
        given: object = event
        if not isinstance(given, Event):
            message = (
                f"events={events!r} is not valid: pass Event objects, such as [Event('paid', str)]"
            )
            raise InvalidRequest(message)
        known: Event[Any] = event
        if known.name in by_name:
            place = f"the events of workflow {workflow!r}"
            raise DuplicateName("event", known.name, place, place)
        by_name[known.name] = known
    return by_name


def _questions_by_name(
    workflow: str, questions: Sequence[Question[Any, Any]]
) -> dict[str, Question[Any, Any]]:
    by_name: dict[str, Question[Any, Any]] = {}
    for question in cast("Sequence[Any]", questions):
        given: object = question
        if not isinstance(given, Question):
            message = (
                f"questions={questions!r} is not valid: pass Question objects, such as "
                "[Question('approve', int, bool)]"
            )
            raise InvalidRequest(message)
        known: Question[Any, Any] = question
        if known.name in by_name:
            place = f"the questions of workflow {workflow!r}"
            raise DuplicateName("question", known.name, place, place)
        by_name[known.name] = known
    return by_name


def _check_function(name: str, function: object) -> None:
    if not inspect.iscoroutinefunction(function):
        message = f"workflow {name!r} must be an `async def` function, not {function!r}"
        raise InvalidRequest(message)
    parameters = list(inspect.signature(function).parameters.values())
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if parameters and parameters[0].kind in plain and _is_run(function, parameters[0]):
        return
    message = (
        f"the first parameter of workflow {name!r} must be the run: "
        f"`async def {function.__name__}(run: Run, ...)`"
    )
    raise InvalidRequest(message)


def _is_run(function: Callable[..., Any], parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    if annotation is inspect.Parameter.empty:
        return parameter.name == "run"
    if isinstance(annotation, str):
        # Often imported for type checkers only, so that its name is all there is; else an alias.
        last = annotation.strip("\"' ").rsplit(".", 1)[-1]
        if last == "Run":
            return True
        annotation = inspect.unwrap(function).__globals__.get(last)
    # By name: the class itself lives in a module that imports this one.
    return isinstance(annotation, type) and any(cls.__name__ == "Run" for cls in annotation.__mro__)
