"""What is known of a workflow where its code is not: its name, version, options and parameters.

Workers announce the definitions of what they serve, so that a server without any code can accept
starts, events and questions, fill in defaults, and say what is wrong with an input.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Final, cast

from attrs import frozen

from aiki_sdk._error import AikiError
from aiki_sdk._errors import PayloadError
from aiki_sdk._json import JsonValue
from aiki_sdk._names import check_name, check_version
from aiki_sdk._workflow import CANCEL_GRACE_S, AnyWorkflow, OnDivergence, PriorityName
from aiki_sdk.payload import CONVERTER

PARAMETERS_MAX: Final = 1_000
_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@frozen(kw_only=True)
class ParameterInfo:
    """One parameter of a workflow.

    Attributes:
        required: whether an input without it is refused.
        default: what it is if the input does not have it, as JSON; None also if it has none, or
            one that only the code can make.
        fills: whether `default` is to be filled in.
        type: how its type is written in the code, for people.
    """

    name: str
    required: bool = True
    default: JsonValue = None
    fills: bool = False
    type: str = ""


@frozen(kw_only=True)
class WorkflowDefinition:
    """A workflow without its code.

    Attributes:
        retry: when a failed attempt of a run is followed by another, as JSON; None: never.
        timeout_s: seconds that a whole run may take; None: any time.
        pool: the workers that execute it.
        priority: which ready runs go first.
        cancel_grace_s: seconds that a cancelled run has for its compensations.
        on_divergence: what to do if the code no longer makes the recorded calls; None: as the
            server's settings say.
        retention_s: seconds that ended runs are kept; None: as the server's settings say.
        events: the events that its runs accept, by name.
        questions: the questions that its runs answer, by name.
        parameters: of its function, in order; None: not known.
    """

    name: str
    version: str
    retry: JsonValue = None
    timeout_s: float | None = None
    pool: str = "default"
    priority: PriorityName = "normal"
    cancel_grace_s: float = CANCEL_GRACE_S
    on_divergence: OnDivergence | None = None
    retention_s: float | None = None
    events: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    parameters: tuple[ParameterInfo, ...] | None = None

    def __attrs_post_init__(self) -> None:
        check_name("workflow", self.name)
        check_version(self.version)
        check_name("pool", self.pool)
        for event in self.events:
            check_name("event", event)
        for question in self.questions:
            check_name("question", question)

    @property
    def key(self) -> str:
        """Name and version in one text: `order-processing@1.0.0`."""
        return f"{self.name}@{self.version}"

    def fill_in(self, data: JsonValue) -> tuple[JsonValue, bool]:
        """Return an input with the defaults of missing parameters, and whether there were any.

        Raises:
            PayloadError: naming the parameter that is missing or unknown.
        """
        if self.parameters is None:
            return data, False
        if not isinstance(data, dict):
            raise PayloadError.at(
                f"the input of workflow {self.name!r}",
                data,
                "expected an object, one key per parameter",
            )
        filled: dict[str, JsonValue] = dict(data)
        _refuse_unknown(self.name, data, [one.name for one in self.parameters])
        for parameter in self.parameters:
            if parameter.name in data:
                continue
            if parameter.required:
                message = (
                    f"workflow {self.name!r}: the input has no {parameter.name!r}; it is required"
                )
                raise PayloadError(message, details={"path": parameter.name})
            if parameter.fills:
                filled[parameter.name] = parameter.default
        return filled, len(filled) > len(data)


def _refuse_unknown(name: str, data: Mapping[str, JsonValue], known: Sequence[str]) -> None:
    unknown = sorted(data.keys() - set(known))
    if unknown:
        declared = ", ".join(known) or "none"
        message = f"workflow {name!r} has no parameter {unknown[0]!r} (parameters: {declared})"
        raise PayloadError(message, details={"path": unknown[0]})


def definition_of(workflow: AnyWorkflow, *, defaults: bool = True) -> WorkflowDefinition:
    """Return what is to be known of a workflow where its code is not.

    Args:
        workflow: the workflow.
        defaults: whether to tell its parameters' defaults; not where payloads are sealed.
    """
    settings = workflow.settings
    return WorkflowDefinition(
        name=workflow.name,
        version=workflow.version,
        retry=settings.retry.to_json(),
        timeout_s=settings.timeout_s,
        pool=settings.pool,
        priority=settings.priority,
        cancel_grace_s=settings.cancel_grace_s,
        on_divergence=settings.on_divergence,
        retention_s=settings.retention_s,
        events=tuple(workflow.events),
        questions=tuple(workflow.questions),
        parameters=_parameters(workflow, defaults),
    )


def _parameters(workflow: AnyWorkflow, defaults: bool) -> tuple[ParameterInfo, ...] | None:
    parameters = workflow.signature.parameters
    if len(parameters) > PARAMETERS_MAX:
        return None
    return tuple(_parameter(parameter, defaults) for parameter in parameters.values())


def _parameter(parameter: inspect.Parameter, defaults: bool) -> ParameterInfo:
    annotation: object = parameter.annotation
    written = ""
    if annotation is not inspect.Parameter.empty:
        written = (
            annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        )
    variadic = parameter.kind in _VARIADIC
    default = cast("object", parameter.default)
    if variadic or default is inspect.Parameter.empty:
        return ParameterInfo(name=parameter.name, required=not variadic, type=written)
    if not defaults:
        return ParameterInfo(name=parameter.name, required=False, type=written)
    try:
        value = CONVERTER.to_json(default, path=parameter.name)
    except AikiError:
        # Only the code can make this default; the worker fills it in when it reads the input.
        return ParameterInfo(name=parameter.name, required=False, type=written)
    return ParameterInfo(
        name=parameter.name, required=False, default=value, fills=True, type=written
    )
