"""The payload converter: from declared types to JSON and back.

One codec is compiled per type and kept; a conversion is then a dict lookup and a call. Types
decide, not values: `Any`, `object` and missing annotations take JSON as it is and convert known
objects by their class, and what comes back is then plain JSON. What cannot be converted is a
`PayloadError` that names the place, the type found and the fix.

Where to read next: `_scalars`, `_containers`, `_classes`, `_unions`, `_foreign` hold the rules.
"""

import collections.abc
import math
import threading
import types
import typing
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, ForwardRef, Literal, TypeVar, Union, cast

from typing_extensions import TypeAliasType

from aiki_sdk._error_info import type_name
from aiki_sdk._errors import PayloadError
from aiki_sdk._json import DEPTH_MAX, JsonValue, check_json
from aiki_sdk.payload._classes import class_codec, field_types, fill, has_fields, is_named_tuple
from aiki_sdk.payload._codec import Codec, Kind, Misfit, is_a, type_shown
from aiki_sdk.payload._containers import dict_codec, list_codec, set_codec, tuple_codec
from aiki_sdk.payload._foreign import foreign_codec
from aiki_sdk.payload._scalars import SCALARS, enum_codec, literal_codec
from aiki_sdk.payload._unions import union_codec

_ALL_KINDS: Final = frozenset[Kind](("null", "bool", "int", "float", "str", "array", "object"))
_OBJECT: Final = frozenset[Kind](("object",))
_ARRAY: Final = frozenset[Kind](("array",))

_LISTS: Final = frozenset(
    (
        list,
        collections.abc.Sequence,
        collections.abc.MutableSequence,
        collections.abc.Collection,
        collections.abc.Iterable,
    )
)
_SETS: Final = frozenset((set, collections.abc.Set, collections.abc.MutableSet))
_DICTS: Final = frozenset((dict, collections.abc.Mapping, collections.abc.MutableMapping))
_QUALIFIERS: Final = (typing.Annotated, typing.Final, typing.Required, typing.NotRequired)
_NEVER: Final = (typing.NoReturn, typing.Never)


class PayloadConverter:
    """Converts values to JSON and back by declared type.

    Thread-safe. Programs share `CONVERTER`; another instance serves only to register other rules.
    """

    def __init__(self) -> None:
        """Start with the types of this package and nothing compiled."""
        self._untyped = Codec(self._encode_untyped, _decode_untyped, _ALL_KINDS, (object,))
        self._custom: dict[Any, Codec] = {}
        self._codecs: dict[Any, Codec] = {}
        self._compiling: dict[Any, _Later] = {}
        self._fresh: dict[Any, Codec] = {}  # compiled, but perhaps of parts that will not be
        self._lock = threading.RLock()

    def to_json(self, value: object, type_: Any = Any, *, path: str = "value") -> JsonValue:
        """Convert a value by its declared type.

        Args:
            value: what to convert.
            type_: its declared type; Any converts by what the value is.
            path: what to call it in an error: the parameter's name.

        Raises:
            PayloadError: naming the place, the value's type and the fix.
        """
        try:
            return self.codec(type_).encode(value)
        except Misfit as misfit:
            raise refusal(misfit, path) from misfit
        except RecursionError as error:
            raise PayloadError.at(path, value, _TOO_DEEP) from error

    def from_json(self, json: JsonValue, type_: Any = Any, *, path: str = "value") -> Any:
        """Convert JSON to a value of a declared type.

        Args:
            json: what was read.
            type_: the type to make of it; Any leaves it as it is.
            path: what to call it in an error.

        Raises:
            PayloadError: naming the place, what was found and what was expected.
        """
        try:
            return self.codec(type_).decode(json)
        except Misfit as misfit:
            raise refusal(misfit, path) from misfit
        except RecursionError as error:
            raise PayloadError.at(path, json, _TOO_DEEP) from error

    def register(
        self,
        cls: type,
        to_json: Callable[[Any], JsonValue],
        from_json: Callable[[JsonValue], Any],
        *,
        kinds: typing.Iterable[Kind] = ("object",),
    ) -> None:
        """Teach the converter a class that it does not know, or another form for one that it does.

        Register before the first conversion: what is recorded in the old form is not converted.

        Args:
            cls: the class.
            to_json: makes JSON of a value; a ValueError says that it cannot.
            from_json: makes a value of that JSON; a ValueError says that it cannot.
            kinds: the kinds of JSON that `to_json` returns; unions tell members apart by it.
        """

        def encode(value: object) -> JsonValue:
            try:
                json = to_json(value)
                check_json(json)
            except (ValueError, TypeError, PayloadError) as error:
                raise Misfit(str(error), value) from error
            return json

        def decode(json: JsonValue, _type: object = None) -> object:
            try:
                return from_json(json)
            except (ValueError, TypeError) as error:
                raise Misfit(str(error), json) from error

        with self._lock:
            self._custom[cls] = Codec(encode, decode, frozenset(kinds), (cls,), cls.__name__)
            self._codecs.clear()
            self._fresh.clear()

    def codec(self, type_: Any) -> Codec:
        """Return the compiled codec of a type.

        Raises:
            Misfit: if values of this type cannot travel.
        """
        try:
            found = self._codecs.get(type_)
        except TypeError:  # an annotation that cannot be hashed cannot be kept
            return self._compile(type_)
        return found if found is not None else self._compile_once(type_)

    def _compile_once(self, type_: Any) -> Codec:
        with self._lock:
            if (fresh := self._fresh.get(type_)) is not None:
                return fresh
            if (later := self._compiling.get(type_)) is not None:
                return later.codec()  # the type contains itself
            later = self._compiling[type_] = _Later(type_)
            try:
                codec = self._compile(type_)
            except BaseException:
                # Types that contain this one were compiled for a codec that there will not be.
                self._fresh.clear()
                raise
            finally:
                del self._compiling[type_]
            later.done = self._fresh[type_] = codec
            if not self._compiling:
                self._codecs.update(self._fresh)
                self._fresh.clear()
            return codec

    def _compile(self, type_: Any) -> Codec:
        origin = typing.get_origin(type_)
        arguments = typing.get_args(type_)
        if (custom := self._custom.get(type_ if origin is None else origin)) is not None:
            return custom
        if type_ is Any or type_ is object:
            return self._untyped
        if type_ in SCALARS:
            return SCALARS[type_]
        if isinstance(type_, str | ForwardRef):
            return self._compile_name(type_)
        if (meant := _meant_by(type_, origin, arguments)) is not None:
            return self.codec(meant)
        if origin is Literal:
            return literal_codec(arguments, self.codec)
        if origin in (Union, types.UnionType):
            return self._compile_union(arguments)
        return self._compile_class(type_, origin or type_, arguments)

    def _compile_name(self, name: str | ForwardRef) -> Codec:
        text = name if isinstance(name, str) else name.__forward_arg__
        if text == "JsonValue":  # which contains itself by name
            return self._untyped
        reason = f"the annotation {text!r} cannot be resolved"
        raise Misfit(reason)

    def _compile_union(self, arguments: tuple[Any, ...]) -> Codec:
        if Any in arguments or object in arguments:
            return self._untyped
        members = tuple(map(self.codec, arguments))
        return union_codec(members, " | ".join(map(type_shown, arguments)))

    def _compile_class(self, type_: Any, cls: Any, arguments: tuple[Any, ...]) -> Codec:
        if cls in _LISTS:
            return list_codec(self._argument(arguments, 0))
        if cls is deque:
            return list_codec(self._argument(arguments, 0), deque)
        if cls is tuple:
            return self._compile_tuple(arguments)
        if cls in _SETS:
            return set_codec(self._argument(arguments, 0), set)
        if cls is frozenset:
            return set_codec(self._argument(arguments, 0), frozenset)
        if cls in _DICTS:
            key_type = arguments[0] if arguments else str
            return dict_codec(self.codec(key_type), self._argument(arguments, 1), key_type)
        if not is_a(cls, type):
            raise _unsupported(type_)
        if issubclass(cls, Enum):
            return enum_codec(cls)
        if (foreign := foreign_codec(cls)) is not None:
            return foreign
        if is_named_tuple(cls):
            hints = field_types(cls)
            names = cast("tuple[str, ...]", getattr(cls, "_fields", ()))
            return tuple_codec(tuple(self.codec(hints.get(name, Any)) for name in names), cls)
        if has_fields(type_):
            return class_codec(type_, self.codec)
        raise _unsupported(type_)

    def _compile_tuple(self, arguments: tuple[Any, ...]) -> Codec:
        if not arguments:
            return list_codec(self._untyped, tuple)
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return list_codec(self.codec(arguments[0]), tuple)
        return tuple_codec(tuple(self.codec(argument) for argument in arguments if argument != ()))

    def _argument(self, arguments: tuple[Any, ...], index: int) -> Codec:
        return self.codec(arguments[index]) if arguments else self._untyped

    def _encode_untyped(self, value: Any) -> JsonValue:
        cls = value.__class__
        if cls is str or cls is int or cls is bool or value is None:
            return cast("JsonValue", value)
        if cls is float:
            if math.isfinite(value):
                return cast("float", value)
            reason = f"{value} is not a JSON number; send None or a string instead"
            raise Misfit(reason, value)
        if cls is list or cls is tuple:
            return self._encode_items(value)
        if is_a(value, dict):
            return self._encode_members(value)
        codec = self.codec(cls)
        if codec is self._untyped:
            raise _unsupported(cls)
        return codec.encode(value)

    def _encode_items(self, items: list[Any] | tuple[Any, ...]) -> JsonValue:
        encode = self._encode_untyped
        try:
            return [encode(item) for item in items]
        except Misfit:
            for index, item in enumerate(items):
                try:
                    encode(item)
                except Misfit as misfit:
                    raise misfit.at(f"[{index}]") from misfit.__cause__
            raise

    def _encode_members(self, members: dict[Any, Any]) -> JsonValue:
        encode = self._encode_untyped
        done: dict[str, JsonValue] = {}
        for key, member in members.items():
            if key.__class__ is not str:
                reason = (
                    f"the key {key!r} is not a str, so it would come back as another; "
                    "declare the dict's type, such as dict[int, str]"
                )
                raise Misfit(reason, key)
            try:
                done[key] = encode(member)
            except Misfit as misfit:
                raise misfit.at(f"[{key!r}]") from misfit.__cause__
        return done


class _Later:
    """Stands for a codec that is still being compiled, in types that contain themselves."""

    def __init__(self, type_: Any) -> None:
        self.type = type_
        self.done: Codec | None = None

    def codec(self) -> Codec:
        def encode(value: object) -> JsonValue:
            assert self.done is not None
            return self.done.encode(value)

        def decode(json: object, _type: object = None) -> object:
            assert self.done is not None
            return self.done.decode(json)

        cls = typing.get_origin(self.type) or self.type
        kinds = _ALL_KINDS
        if has_fields(self.type):
            kinds = _OBJECT
        elif is_named_tuple(cls):
            kinds = _ARRAY
        return Codec(encode, decode, kinds, (cls,), getattr(cls, "__name__", str(cls)))


_TOO_DEEP: Final = f"nested deeper than {DEPTH_MAX} levels, or contains itself"


def _meant_by(type_: Any, origin: Any, arguments: tuple[Any, ...]) -> Any:
    """Return the type that an alias, a NewType, a type variable or a qualifier stands for."""
    if isinstance(type_, TypeVar):
        return type_.__bound__ or Any
    if isinstance(type_, TypeAliasType):
        return type_.__value__
    if isinstance(origin, TypeAliasType):
        return fill(origin.__value__, dict(zip(origin.__type_params__, arguments, strict=False)))
    if origin in _QUALIFIERS:
        return arguments[0]
    if type_ in _NEVER:
        return type(None)
    return getattr(type_, "__supertype__", None)


def _decode_untyped(json: Any, _type: object = None) -> Any:
    return json


def _unsupported(type_: object) -> Misfit:
    reason = (
        f"{type_shown(type_)} cannot travel; use attrs classes, dataclasses, enums and the types "
        "of the standard library, or teach it with CONVERTER.register(...)"
    )
    return Misfit(reason)


def refusal(misfit: Misfit, path: str) -> PayloadError:
    """Make the error of a misfit, for the value that is called `path`."""
    where = path + misfit.path
    kind = type_name(type(misfit.value))
    return PayloadError(f"{where}: {misfit.reason}", details={"path": where, "type": kind})


CONVERTER: Final = PayloadConverter()
"""The converter that tasks, workflows and events use."""
