"""Pydantic models and msgspec structs, if those libraries are there.

Neither is imported here: a value or annotation can only be one of theirs if the application has
imported the library, so it is looked up among the loaded modules. Both convert by their own rules;
what is added is one order for sets, for the input hash must not depend on the hash seed.
"""

import sys
from typing import TYPE_CHECKING, Any, Final, cast

from aiki_sdk._canonical import canonical_json
from aiki_sdk._errors import PayloadError
from aiki_sdk._json import JsonValue, check_json, dumps
from aiki_sdk.payload._codec import Codec, Kind, Misfit, is_a, wrong_class

if TYPE_CHECKING:
    import msgspec
    import pydantic

_OBJECT: Final = frozenset[Kind](("object",))
_ARRAY: Final = frozenset[Kind](("array",))


def foreign_codec(cls: type) -> Codec | None:
    """Return the codec of a pydantic model or a msgspec struct, or None for any other class."""
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and issubclass(cls, pydantic.BaseModel):
        return _pydantic_codec(cls)
    msgspec = sys.modules.get("msgspec")
    if msgspec is not None and issubclass(cls, msgspec.Struct):
        return _msgspec_codec(cls)
    return None


def _pydantic_codec(cls: "type[pydantic.BaseModel]") -> Codec:
    import pydantic

    def encode(value: object) -> JsonValue:
        if not isinstance(value, cls) or value.__class__ is not cls:
            raise wrong_class(cls, value)
        try:
            json = value.model_dump(mode="json", by_alias=True, round_trip=True)
        except (TypeError, ValueError) as error:
            raise Misfit(str(error), value) from error
        return _checked(_sort_sets(json, value.model_dump(by_alias=True, round_trip=True)))

    def decode(json: object, _type: object = None) -> object:
        try:
            # From text, because that is the mode in which pydantic reads what it wrote as JSON.
            return cls.model_validate_json(dumps(cast("JsonValue", json)))
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            path = "".join(
                f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"]
            )
            raise Misfit(first["msg"], json).at(path) from error

    return Codec(encode, decode, _OBJECT, (cls,), cls.__name__)


def _msgspec_codec(cls: "type[msgspec.Struct]") -> Codec:
    import msgspec

    config = cls.__struct_config__
    kinds = _ARRAY if config.array_like else _OBJECT

    def encode(value: object) -> JsonValue:
        if value.__class__ is not cls:
            raise wrong_class(cls, value)
        try:
            json = msgspec.to_builtins(value, str_keys=True, order="deterministic")
        except (msgspec.MsgspecError, TypeError) as error:
            raise Misfit(str(error), value) from error
        return _checked(json)

    def decode(json: object, _type: object = None) -> object:
        try:
            return msgspec.convert(json, cls, str_keys=True)
        except msgspec.ValidationError as error:
            reason, _, place = str(error).partition(" - at `$")
            raise Misfit(reason, json).at(place.rstrip("`")) from error

    return Codec(encode, decode, kinds, (cls,), cls.__name__)


def _checked(json: Any) -> JsonValue:
    """Refuse what these libraries let pass: NaN above all."""
    try:
        check_json(json, "")
    except PayloadError as error:
        _, _, reason = error.message.partition("): ")
        raise Misfit(reason, json).at(error.path) from error
    return cast("JsonValue", json)


def _sort_sets(json: Any, python: Any) -> Any:
    """Sort the lists of `json` that are sets in `python`, which is the same value before JSON."""
    if json.__class__ is list:
        if is_a(python, (set, frozenset)):
            return sorted(json, key=canonical_json)
        if is_a(python, (list, tuple)) and len(python) == len(json):
            return [_sort_sets(*pair) for pair in zip(json, python, strict=True)]
    elif json.__class__ is dict and is_a(python, dict) and len(python) == len(json):
        # Both are dumps of one value, so their members come in one order.
        pairs = zip(json.items(), python.values(), strict=True)
        return {key: _sort_sets(member, original) for (key, member), original in pairs}
    return json
