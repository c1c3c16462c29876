"""Classes with fields: attrs, dataclasses, TypedDict, named tuples, and generics of them.

cattrs writes the converters of attrs classes and dataclasses (one compiled function per class and
direction); this module tells it how each field travels and explains its failures. The object that
is written has one key per field. When it is read, unknown keys are ignored (a newer sender may know
more), a missing field without a default is an error, and whatever the class's own validators refuse
is an error that names the class.

A value must be of exactly the declared class: converting a subclass through its parent would drop
what the subclass adds.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Any, Final, TypeAlias, TypeVar, cast

import attrs
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
from typing_extensions import is_typeddict

from aiki_sdk._error_info import type_name
from aiki_sdk._json import JsonValue
from aiki_sdk.payload._codec import (
    Codec,
    Decode,
    Encode,
    Kind,
    Misfit,
    is_a,
    wrong_class,
    wrong_json,
)

CodecOf: TypeAlias = Callable[[Any], Codec]

_OBJECT: Final = frozenset[Kind](("object",))

# Only its code generation is used; every field's hooks are passed in.
_cattrs: Final = Converter(detailed_validation=False)
_make_write: Final = cast("Callable[..., Encode]", make_dict_unstructure_fn)
_make_read: Final = cast("Callable[..., Decode]", make_dict_structure_fn)

# Fields' hooks are keyword arguments beside cattrs' own, so fields of these names are in the way.
_RESERVED: Final = frozenset(("cl", "converter"))


def has_fields(cls: object) -> bool:
    """Tell whether a class, or the origin of a generic alias, has fields that this module reads."""
    origin: Any = typing.get_origin(cls) or cls
    return inspect.isclass(origin) and _has_fields(origin)


def _has_fields(cls: Any) -> bool:
    return attrs.has(cls) or dataclasses.is_dataclass(cls) or is_typeddict(cls)


def is_named_tuple(cls: object) -> bool:
    """Tell whether a class is a named tuple."""
    return hasattr(cls, "_fields") and isinstance(cls, type) and issubclass(cls, tuple)


def class_codec(type_: Any, codec_of: CodecOf) -> Codec:
    """Return the codec of an attrs class, a dataclass or a TypedDict, generic or not.

    Raises:
        Misfit: if a field's type cannot travel; its path names the field.
    """
    cls: type = typing.get_origin(type_) or type_
    types = field_types(type_)
    codecs: dict[str, Codec] = {}
    for name in _init_fields(cls, types):
        try:
            codecs[name] = codec_of(types.get(name, Any))
        except Misfit as misfit:
            misfit.path = f"{cls.__name__}.{name}{misfit.path}"
            raise
    if is_typeddict(cls):
        return _typed_dict_codec(cls, codecs)
    return _fields_codec(cls, codecs)


def _init_fields(cls: type, types: dict[str, Any]) -> list[str]:
    if attrs.has(cls):
        return [field.name for field in attrs.fields(cls) if field.init]
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls) if field.init]
    return list(types)


def _required(cls: type) -> tuple[str, ...]:
    """Return the names of the fields that must be there, in order of declaration."""
    if attrs.has(cls):
        return tuple(
            field.name
            for field in attrs.fields(cls)
            if field.init and field.default is attrs.NOTHING
        )
    if dataclasses.is_dataclass(cls):
        missing = dataclasses.MISSING
        return tuple(
            field.name
            for field in dataclasses.fields(cls)
            if field.init and field.default is missing and field.default_factory is missing
        )
    typed_dict = cast("Any", cls)
    keys: frozenset[str] = typed_dict.__required_keys__
    return tuple(name for name in typing.get_type_hints(typed_dict) if name in keys)


def _fields_codec(cls: type, codecs: dict[str, Codec]) -> Codec:
    write, read = _write_and_read(cls, codecs)
    required = _required(cls)

    def encode(value: Any) -> Any:
        if value.__class__ is not cls:
            raise _not_this_class(cls, value)
        try:
            return write(value)
        except Misfit:
            for name, codec in codecs.items():
                try:
                    codec.encode(getattr(value, name))
                except Misfit as misfit:
                    raise misfit.at(f".{name}") from misfit.__cause__
            raise

    def decode(json: Any, _type: object = None) -> Any:
        if json.__class__ is not dict:
            raise wrong_json(f"an object ({type_name(cls)})", json)
        try:
            return read(json, cls)
        except Exception as error:
            _explain(json, codecs, required)
            # Every field is right by itself, so the class refused them together.
            reason = f"{type_name(cls)} refused it: {type_name(type(error))}: {error}"
            raise Misfit(reason, json) from error

    return Codec(encode, decode, _OBJECT, (cls,), cls.__name__)


def _write_and_read(cls: type, codecs: dict[str, Codec]) -> tuple[Encode, Decode]:
    if not _RESERVED.isdisjoint(codecs):
        return _plain_write_and_read(cls, codecs)
    hooks = {
        name: override(unstruct_hook=codec.encode, struct_hook=codec.decode)
        for name, codec in codecs.items()
    }
    # Parameters are in the hooks already, but cattrs insists on something for each of them.
    parameters: tuple[Any, ...] = getattr(cls, "__parameters__", ())
    filled: Any = cast("Any", cls)[(Any,) * len(parameters)] if parameters else cls
    return _make_write(filled, _cattrs, **hooks), _make_read(filled, _cattrs, **hooks)


def _plain_write_and_read(cls: Any, codecs: dict[str, Codec]) -> tuple[Encode, Decode]:
    aliases = {field.name: field.alias for field in attrs.fields(cls)} if attrs.has(cls) else {}

    def write(value: Any) -> JsonValue:
        return {name: codec.encode(getattr(value, name)) for name, codec in codecs.items()}

    def read(json: dict[str, Any], _type: object = None) -> Any:
        return cls(
            **{
                aliases.get(name, name): codec.decode(json[name])
                for name, codec in codecs.items()
                if name in json
            }
        )

    return write, read


def _typed_dict_codec(cls: type, codecs: dict[str, Codec]) -> Codec:
    required = _required(cls)

    def encode(value: Any) -> Any:
        if not is_a(value, dict):
            raise wrong_class(cls, value)
        members: dict[str, Any] = value
        if not members.keys() <= codecs.keys():
            extra = sorted(map(repr, members.keys() - codecs.keys()))
            reason = f"{type_name(cls)} declares no {', '.join(extra)}"
            raise Misfit(reason, members)
        _explain_missing(members, required)
        return _each(members, "encode")

    def decode(json: Any, _type: object = None) -> Any:
        if json.__class__ is not dict:
            raise wrong_json(f"an object ({type_name(cls)})", json)
        _explain_missing(json, required)
        return _each(json, "decode")

    def _each(members: dict[str, Any], direction: str) -> dict[str, Any]:
        done: dict[str, Any] = {}
        for name, codec in codecs.items():
            if name in members:
                try:
                    done[name] = getattr(codec, direction)(members[name])
                except Misfit as misfit:
                    raise misfit.at(f".{name}") from misfit.__cause__
        return done

    return Codec(encode, decode, _OBJECT, (dict,), cls.__name__)


def _not_this_class(cls: type, value: object) -> Misfit:
    if isinstance(value, cls):
        kind = type_name(type(value))
        reason = f"{kind} would lose its own fields as a {type_name(cls)}; declare it, or a union"
        return Misfit(reason, value)
    return wrong_class(cls, value)


def _explain(json: dict[str, Any], codecs: dict[str, Codec], required: tuple[str, ...]) -> None:
    """Raise the misfit of the first field that does not fit, if there is one."""
    _explain_missing(json, required)
    for name, codec in codecs.items():
        if name in json:
            try:
                codec.decode(json[name])
            except Misfit as misfit:
                raise misfit.at(f".{name}") from misfit.__cause__


def _explain_missing(members: dict[str, Any], required: tuple[str, ...]) -> None:
    for name in required:
        if name not in members:
            reason = "missing"
            raise Misfit(reason).at(f".{name}")


# --- Field types ----------------------------------------------------------------------------------


def field_types(type_: Any) -> dict[str, Any]:
    """Return the type of every annotated field, forward references resolved, generics filled in.

    Each class of the hierarchy is read with its own type variables, for a parent's `T` is another
    than its child's.

    Raises:
        Misfit: if an annotation names something that cannot be found.
    """
    cls: type = typing.get_origin(type_) or type_
    found: dict[str, Any] = {}
    _collect(cls, typing.get_args(type_), found)
    return found


def _collect(cls: type, arguments: tuple[Any, ...], found: dict[str, Any]) -> None:
    parameters: tuple[Any, ...] = getattr(cls, "__parameters__", ())
    given = dict(zip(parameters, arguments, strict=False))
    bases: tuple[Any, ...] = getattr(cls, "__orig_bases__", cls.__bases__)
    for base in reversed(bases):
        origin = typing.get_origin(base) or base
        if isinstance(origin, type) and origin not in (object, dict, typing.Generic):
            filled = tuple(fill(argument, given) for argument in typing.get_args(base))
            _collect(origin, filled, found)
    own = inspect.get_annotations(cls)
    if own:
        try:
            hints = typing.get_type_hints(cls)
        except (NameError, AttributeError, TypeError) as error:
            reason = f"an annotation of {type_name(cls)} cannot be resolved: {error}"
            raise Misfit(reason) from error
        found.update({name: fill(hints[name], given) for name in own})


def fill(type_: Any, given: dict[Any, Any]) -> Any:
    """Replace type variables by what was given for them, else by their bound, else by Any."""
    if isinstance(type_, TypeVar):
        return given.get(type_, type_.__bound__ or Any)
    parameters: tuple[Any, ...] = getattr(type_, "__parameters__", ())
    if not parameters or isinstance(type_, type):
        return type_
    return type_[tuple(fill(parameter, given) for parameter in parameters)]
