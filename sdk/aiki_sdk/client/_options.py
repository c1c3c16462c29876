"""The options of a start, and how workflow, arguments and options become a `StartRequest`.

Every mistake is found here, at the call that makes it: unknown words, naive times, arguments that
do not fit the workflow, values that cannot travel. Where the workflow's code is at hand, its own
settings (retry, timeout, pool, priority) go with the request, so that a server that has not met
the workflow yet starts the run with them too.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Generic, Literal, TypeAlias, TypedDict, TypeVar, cast

from attrs import Factory, field, fields, frozen

from aiki_sdk._canonical import input_hash
from aiki_sdk._durations import Duration, optional_seconds
from aiki_sdk._error_info import type_name
from aiki_sdk._errors import InvalidRequest
from aiki_sdk._json import JsonValue, dumps
from aiki_sdk._registry import WorkflowRegistry
from aiki_sdk._retry import Retry
from aiki_sdk._workflow import AnyWorkflow, PriorityName, Workflow
from aiki_sdk.payload import CONVERTER, check_payload_size
from aiki_sdk.protocol import OnConflict, Priority, StartRequest
from aiki_sdk.protocol._requests import check_labels, check_time, check_word

R_co = TypeVar("R_co", covariant=True)

OnConflictName: TypeAlias = Literal["error", "return_existing", "restart_if_ended"]


class StartKwargs(TypedDict, total=False):
    """The keyword arguments that `Client.start` and `Client.options` take; see `StartOptions`."""

    reference_id: str | None
    on_conflict: OnConflict | OnConflictName
    delay: Duration | None
    at: datetime | None
    priority: Priority | PriorityName | None
    pool: str | None
    retry: Retry | None
    timeout: Duration | None
    labels: Mapping[str, str]
    version: str | None


@frozen(kw_only=True)
class StartOptions:
    """How to start a run, apart from what to start.

    Attributes:
        reference_id: your own name for the run, unique per workflow: the same name and input again
            lead to the same run, so that a start can be repeated safely.
        on_conflict: what to do if the reference id names a run with another input or an ended one.
        delay: seconds or a timedelta until the run starts.
        at: when the run starts, an aware datetime; instead of `delay`.
        priority: which ready runs go first. None: the workflow's own, and so for the next three.
        pool: the workers that execute it.
        retry: when a failed attempt of the whole run is followed by another.
        timeout: seconds or a timedelta that the whole run may take.
        labels: names and short texts that the run can be found by.
        version: the workflow's version, where it is started by name. None: the newest.
    """

    reference_id: str | None = None
    on_conflict: OnConflict | OnConflictName = OnConflict.ERROR
    delay: Duration | None = None
    at: datetime | None = None
    priority: Priority | PriorityName | None = None
    pool: str | None = None
    retry: Retry | None = None
    timeout: Duration | None = None
    labels: Mapping[str, str] = field(factory=lambda: dict[str, str]())
    version: str | None = None


OPTION_NAMES: Final = tuple(attribute.name for attribute in fields(StartOptions))


@frozen
class StartSpec(Generic[R_co]):
    """One item of `Client.start_many`: what to start, with what, and how.

    Make it with ``client.options(...).spec(workflow, *args)``, so that the arguments are checked.
    """

    workflow: Workflow[..., R_co] | str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = Factory(lambda: dict[str, Any]())
    options: StartOptions = Factory(StartOptions)


def split_options(
    workflow: object, kwargs: Mapping[str, Any]
) -> tuple[StartOptions, dict[str, Any]]:
    """Tell the options of a start from the arguments of the workflow.

    Raises:
        InvalidRequest: if the workflow has a parameter with the name of an option that is given.
    """
    given = {name: kwargs[name] for name in OPTION_NAMES if name in kwargs}
    if not given:
        return StartOptions(), dict(kwargs)
    if isinstance(workflow, Workflow):
        known = cast("AnyWorkflow", workflow)
        for name in given:
            if name in known.signature.parameters:
                message = (
                    f"{name}= is an option of start() and a parameter of workflow {known.name!r}; "
                    "pass options with `client.options(...)` and arguments to its `start(...)`"
                )
                raise InvalidRequest(message)
    arguments = {name: value for name, value in kwargs.items() if name not in given}
    return StartOptions(**given), arguments


def build_request(
    spec: StartSpec[Any], known: WorkflowRegistry
) -> tuple[StartRequest, AnyWorkflow | None]:
    """Make the request, and say which workflow it is for if its code is at hand.

    Raises:
        InvalidRequest: naming the option and its value, or what is wrong with the workflow.
        TypeError: if the arguments do not fit the workflow's signature.
        PayloadError: naming the parameter and the place in it that cannot be converted.
        PayloadTooLarge: if the input is larger than 2 MiB.
    """
    options = spec.options
    workflow = _resolve(spec.workflow, options.version, known)
    if isinstance(workflow, str):
        name, version, code = workflow, options.version, None
        body, digest = _input_by_name(name, spec.args, spec.kwargs)
    else:
        name, version, code = workflow.name, workflow.version, workflow
        args, kwargs = spec.args, spec.kwargs
        if isinstance(spec.workflow, str) and (not args or _whole_input(args, kwargs)):
            # Through the code and back: defaults are applied and the hash is the typed start's.
            args, kwargs = workflow.decode_input(_named_input(args, kwargs))
        body, digest = workflow.encode_input(args, kwargs)
    request = StartRequest(
        workflow=name,
        version=version,
        input=body,
        input_hash=digest,
        reference_id=options.reference_id,
        on_conflict=check_word("on_conflict", options.on_conflict, OnConflict),
        delay_s=optional_seconds("delay", options.delay),
        at=None if options.at is None else check_time("at", options.at),
        priority=_priority(options, code),
        pool=options.pool if options.pool is not None or code is None else code.settings.pool,
        retry=_retry(options, code),
        timeout_s=_timeout_s(options, code),
        labels=check_labels("labels", options.labels),
    )
    return request, code


def _resolve(workflow: object, version: str | None, known: WorkflowRegistry) -> AnyWorkflow | str:
    if isinstance(workflow, Workflow):
        code = cast("AnyWorkflow", workflow)
        if version is not None and version != code.version:
            message = (
                f"version={version!r} is not valid: workflow {code.name!r} was given, which is "
                f"version {code.version!r}; start another version by name"
            )
            raise InvalidRequest(message)
        return code
    if isinstance(workflow, str):
        for item in known:
            if item.name == workflow and version in (None, item.version):
                return known.resolve(workflow, version)
        return workflow
    message = (
        f"workflow={workflow!r} is not valid: pass a @workflow function or the name of one, "
        f"not {type_name(type(workflow))}"
    )
    raise InvalidRequest(message)


def _whole_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    return len(args) == 1 and isinstance(args[0], dict) and not kwargs


def _named_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> JsonValue:
    if args:
        return _json_of(args[0], "input")
    return {name: _json_of(value, name) for name, value in kwargs.items()}


def _input_by_name(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[JsonValue, str]:
    """Without the code nobody knows what the positions mean, so every argument needs its name."""
    if args and not _whole_input(args, kwargs):
        message = (
            f"workflow {name!r} is started by name, so its parameters must be named too: pass "
            "them as keywords or as one dict, or pass the @workflow function instead of its name"
        )
        raise InvalidRequest(message)
    body = _named_input(args, kwargs)
    check_payload_size(len(dumps(body)), what=f"the input of workflow {name!r}")
    return body, input_hash(body)


def _json_of(value: object, path: str) -> JsonValue:
    return CONVERTER.to_json(value, path=path)


def _priority(options: StartOptions, code: AnyWorkflow | None) -> Priority | None:
    if options.priority is not None:
        return check_word("priority", options.priority, Priority)
    return None if code is None else Priority(code.settings.priority)


def _retry(options: StartOptions, code: AnyWorkflow | None) -> JsonValue:
    given = cast("object", options.retry)
    if given is None:
        return None if code is None else code.settings.retry.to_json()
    if not isinstance(given, Retry):
        message = f"retry={given!r} is not valid: pass Retry.fixed(...) or another policy"
        raise InvalidRequest(message)
    return given.to_json()


def _timeout_s(options: StartOptions, code: AnyWorkflow | None) -> float | None:
    if options.timeout is None:
        return None if code is None else code.settings.timeout_s
    return optional_seconds("timeout", options.timeout, zero=False)
