"""A function's parameters and result as they travel: bound, converted, hashed.

Shared by tasks and workflows. Everything that can be found out once is found out once: the
signature when the function is decorated, the types when it is first called (so that annotations may
name what is defined further down), and the codec of each parameter with them.

The input of a call is one JSON object: every parameter by name, defaults applied. `*args` is a list
and `**kwargs` an object under their own names.
"""

import inspect
import typing
from collections.abc import Callable, Mapping
from types import GenericAlias, SimpleNamespace
from typing import Any, Final, cast

from aiki_sdk._canonical import hash_and_size
from aiki_sdk._errors import PayloadError, RecordedTypeMismatch
from aiki_sdk._json import JsonValue, check_json
from aiki_sdk.payload import (
    CONVERTER,
    PAYLOAD_BYTES_WARN,
    Codec,
    Misfit,
    check_payload_size,
    encode_payload,
)
from aiki_sdk.payload._converter import refusal

_EMPTY: Final[Mapping[str, Any]] = {}
_MISSING: Final = inspect.Parameter.empty
_VAR_POSITIONAL: Final = inspect.Parameter.VAR_POSITIONAL
_VAR_KEYWORD: Final = inspect.Parameter.VAR_KEYWORD
_POSITIONAL_ONLY: Final = inspect.Parameter.POSITIONAL_ONLY
_KEYWORD_ONLY: Final = inspect.Parameter.KEYWORD_ONLY


class CallSignature:
    """How the calls of one function travel.

    Args:
        function: the function.
        what: what to call it in errors: `task 'charge-card'`.
        skip: how many leading parameters do not travel: 1 for a workflow's `Run`.
    """

    def __init__(self, function: Callable[..., Any], what: str, *, skip: int = 0) -> None:
        """Read the signature; types wait until the first call."""
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())[skip:]
        self._function = function
        self._what = what
        self._signature = signature.replace(
            parameters=parameters, return_annotation=inspect.Signature.empty
        )
        self._parameters = {parameter.name: parameter for parameter in parameters}
        kinds = {parameter.kind for parameter in parameters}
        self._variadic = _VAR_POSITIONAL in kinds or _VAR_KEYWORD in kinds
        self._positional = tuple(
            parameter.name
            for parameter in parameters
            if parameter.kind not in (_KEYWORD_ONLY, _VAR_POSITIONAL, _VAR_KEYWORD)
        )
        # A call with exactly this many positional arguments and no others needs no binding.
        self._exact = len(self._positional) if len(self._positional) == len(parameters) else -1
        self._codecs: dict[str, Codec] | None = None
        self._encoders: tuple[tuple[str, Callable[[Any], JsonValue]], ...] = ()
        self._decoders: tuple[tuple[str, Callable[..., Any]], ...] = ()
        self._types: dict[str, Any] = {}
        self._output_type: Any = Any

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The parameters that travel, in order."""
        return self._parameters

    def input_types(self) -> dict[str, Any]:
        """Return the declared type of each parameter, Any where there is none.

        Raises:
            PayloadError: if an annotation cannot be resolved or cannot travel.
        """
        self._compiled()
        return {name: self._types.get(name, Any) for name in self._parameters}

    def output_type(self) -> Any:
        """Return the declared type of the result, Any where there is none.

        Raises:
            PayloadError: as `input_types`.
        """
        self._compiled()
        return self._output_type

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any] = _EMPTY) -> dict[str, Any]:
        """Return every parameter's value by name, defaults applied.

        Raises:
            TypeError: if the arguments do not fit the signature.
        """
        if not kwargs and len(args) == self._exact:
            return dict(zip(self._positional, args, strict=True))
        if not self._variadic and len(args) <= len(self._positional):
            bound = dict(zip(self._positional, args, strict=False))
            if self._bind_rest(bound, kwargs):
                return bound
        try:
            arguments = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            message = f"{self._what}: {error}"
            raise TypeError(message) from None
        arguments.apply_defaults()
        # Python 3.13.0 takes a positional-only parameter's name for one of **kwargs and misses it.
        for name, parameter in self._parameters.items():
            if parameter.kind is _POSITIONAL_ONLY and name not in arguments.arguments:
                message = f"{self._what}: missing a required argument: {name!r}"
                raise TypeError(message)
        return arguments.arguments

    def _bind_rest(self, bound: dict[str, Any], kwargs: Mapping[str, Any]) -> bool:
        """Add keyword arguments and defaults; False if anything is unusual."""
        for name in kwargs:
            parameter = self._parameters.get(name)
            if parameter is None or name in bound or parameter.kind is _POSITIONAL_ONLY:
                return False
        bound.update(kwargs)
        if len(bound) < len(self._parameters):
            for name, parameter in self._parameters.items():
                if name not in bound:
                    if parameter.default is _MISSING:
                        return False
                    bound[name] = parameter.default
        return True

    def encode_input(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any] = _EMPTY
    ) -> tuple[dict[str, JsonValue], str]:
        """Convert the arguments of a call.

        Returns:
            The input as a JSON object, and the hash of its canonical form.

        Raises:
            TypeError: if the arguments do not fit the signature.
            PayloadError: naming the parameter and the place in it that cannot be converted.
            PayloadTooLarge: if the input is larger than 2 MiB.
        """
        codecs = self._codecs or self._compiled()
        try:
            if not kwargs and len(args) == self._exact:
                json = {
                    name: encode(value)
                    for (name, encode), value in zip(self._encoders, args, strict=True)
                }
            else:
                bound = self.bind(args, kwargs)
                json = {name: codecs[name].encode(value) for name, value in bound.items()}
            digest, size_bytes = hash_and_size(json)
        except (Misfit, PayloadError, RecursionError) as error:
            raise self._explain_input(self.bind(args, kwargs)) from error
        if size_bytes >= PAYLOAD_BYTES_WARN:
            check_payload_size(size_bytes, what=f"the input of {self._what}")
        return json, digest

    def decode_input(self, json: JsonValue) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Convert an input back to the arguments of a call.

        A parameter that the input does not have takes its default: it was added since.

        Raises:
            PayloadError: naming the parameter that is missing, unknown or does not fit.
        """
        codecs = self._codecs or self._compiled()
        if isinstance(json, dict) and len(json) == self._exact:
            try:
                return tuple([decode(json[name]) for name, decode in self._decoders]), {}
            except (KeyError, Misfit):
                pass  # below it is found out, and said, which one it is
        if not isinstance(json, dict):
            raise PayloadError.at(
                f"the input of {self._what}", json, "expected an object, one key per parameter"
            )
        unknown = sorted(json.keys() - codecs.keys())
        if unknown:
            declared = ", ".join(codecs) or "none"
            message = f"{self._what} has no parameter {unknown[0]!r} (parameters: {declared})"
            raise PayloadError(message, details={"path": unknown[0]})
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for name, parameter in self._parameters.items():
            if name in json:
                value = self._decode_parameter(name, codecs[name], json[name])
            elif parameter.default is not _MISSING:
                value = parameter.default
            elif parameter.kind in (_VAR_POSITIONAL, _VAR_KEYWORD):
                continue
            else:
                message = f"{self._what}: the input has no {name!r}; it is required"
                raise PayloadError(message, details={"path": name})
            if parameter.kind is _VAR_POSITIONAL:
                args.extend(value)
            elif parameter.kind is _VAR_KEYWORD:
                kwargs.update(value)
            elif parameter.kind is _KEYWORD_ONLY:
                kwargs[name] = value
            else:
                args.append(value)
        return tuple(args), kwargs

    def encode_output(self, value: object) -> JsonValue:
        """Convert a result by the declared return type.

        Raises:
            PayloadError: naming the place in the result that cannot be converted.
            PayloadTooLarge: if it is larger than 2 MiB.
        """
        if self._codecs is None:
            self._compiled()
        return encode_payload(value, self._output_type, what=f"the result of {self._what}")

    def decode_output(
        self, json: JsonValue, upcast: Callable[[JsonValue], JsonValue] | None = None
    ) -> Any:
        """Convert a recorded result back.

        Args:
            json: what was recorded.
            upcast: makes the form of today of an older one; asked only if `json` does not fit.

        Raises:
            RecordedTypeMismatch: naming the place that no longer fits.
        """
        if self._codecs is None:
            self._compiled()
        codec = CONVERTER.codec(self._output_type)
        try:
            return codec.decode(json)
        except Misfit as misfit:
            if upcast is None:
                raise self._mismatch(misfit) from misfit
        try:
            return codec.decode(upcast(json))
        except Misfit as misfit:
            raise self._mismatch(misfit) from misfit

    def _mismatch(self, misfit: Misfit) -> RecordedTypeMismatch:
        what = f"result of {self._what}"
        return RecordedTypeMismatch(what, f"result{misfit.path}", misfit.reason)

    def _decode_parameter(self, name: str, codec: Codec, json: JsonValue) -> Any:
        try:
            return codec.decode(json)
        except Misfit as misfit:
            raise refusal(misfit, name) from misfit

    def _explain_input(self, bound: dict[str, Any]) -> PayloadError:
        """Convert again, one parameter at a time, to find the one that is wrong."""
        for name, value in bound.items():
            try:
                check_json(CONVERTER.to_json(value, self._travel_type(name), path=name), name)
            except PayloadError as error:
                message = f"{self._what}: {error.message}"
                return PayloadError(message, details=error.details)
        message = f"{self._what}: the arguments cannot be converted"
        return PayloadError(message)

    # --- Types ------------------------------------------------------------------------------------

    def _compiled(self) -> dict[str, Codec]:
        if self._codecs is None:
            self._types = self._resolve()
            codecs = {
                name: self._codec_of(name, self._travel_type(name)) for name in self._parameters
            }
            self._output_type = self._types.get("return", Any)
            self._codec_of("return", self._output_type)
            self._encoders = tuple((name, codec.encode) for name, codec in codecs.items())
            self._decoders = tuple((name, codec.decode) for name, codec in codecs.items())
            self._codecs = codecs  # last, for other threads look at it first
        return self._codecs

    def _travel_type(self, name: str) -> Any:
        declared = self._types.get(name, Any)
        kind = self._parameters[name].kind
        if kind is _VAR_POSITIONAL:
            return GenericAlias(tuple, (declared, ...))
        if kind is _VAR_KEYWORD:
            return GenericAlias(dict, (str, declared))
        return declared

    def _codec_of(self, name: str, type_: Any) -> Codec:
        try:
            return CONVERTER.codec(type_)
        except Misfit as misfit:
            place = "the result" if name == "return" else f"parameter {name!r}"
            inside = f"{misfit.path}: " if misfit.path else ""
            message = f"{self._what}: {place}: {inside}{misfit.reason}"
            raise PayloadError(message, details={"path": name}) from misfit

    def _resolve(self) -> dict[str, Any]:
        annotations: dict[str, Any] = getattr(inspect.unwrap(self._function), "__annotations__", {})
        wanted = [*self._parameters, "return"]
        return {
            name: self._resolve_one(name, annotations[name])
            for name in wanted
            if name in annotations
        }

    def _resolve_one(self, name: str, annotation: Any) -> Any:
        names = cast("dict[str, Any]", getattr(inspect.unwrap(self._function), "__globals__", {}))
        # One at a time, because a workflow's Run is often imported for type checkers only.
        holder = SimpleNamespace(__annotations__={name: annotation})
        # JsonValue contains itself by name, which no module but its own could resolve.
        aliases = {"JsonValue": object}
        try:
            return typing.get_type_hints(holder, globalns=names, localns=aliases)[name]
        except (NameError, AttributeError, TypeError, SyntaxError) as error:
            place = "the result" if name == "return" else f"parameter {name!r}"
            message = (
                f"{self._what}: the type of {place} cannot be resolved: {error}; "
                "import it at run time, not only under TYPE_CHECKING"
            )
            raise PayloadError(message, details={"path": name}) from error
