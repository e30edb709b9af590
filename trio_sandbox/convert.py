"""The one cattrs converter: strict about types, about missing keys and about extra ones.

cattrs by default turns "5" into 5 and 1.9 into 1. Nothing that arrives from outside may be bent like that, so every
primitive has a hook that only accepts itself. The hooks must be registered before anything is structured.
"""

from __future__ import annotations

from typing import Any, TypeVar

import cattrs
import msgpack

T = TypeVar("T")


def _strict(expected: type[T]) -> Any:
    def structure(value: object, _: type[T]) -> T:
        if type(value) is not expected:
            raise TypeError(f"expected {expected.__name__}, got {type(value).__name__}")
        return value

    return structure


def make_converter(*, forbid_extra_keys: bool) -> cattrs.Converter:
    """A converter for plain data (numbers, strings, bytes, lists, maps) to attrs classes and back."""
    converter = cattrs.Converter(forbid_extra_keys=forbid_extra_keys, detailed_validation=False)
    for primitive in (int, str, bytes, bool, float):
        converter.register_structure_hook(primitive, _strict(primitive))
    return converter


_wire = make_converter(forbid_extra_keys=True)


def pack(message: object) -> bytes:
    """A msgpack map of an attrs instance."""
    packed: bytes = msgpack.packb(_wire.unstructure(message), use_bin_type=True)
    return packed


def unpack_untrusted(body: bytes, kind: type[T]) -> T:
    """The attrs instance that `body` holds. Raises ValueError, and nothing else, for bytes that are not exactly one."""
    try:
        return _wire.structure(msgpack.unpackb(body, raw=False, strict_map_key=True, use_list=True), kind)
    except Exception as error:  # hostile bytes can fail in any layer below: one answer for all of them
        raise ValueError(f"{type(error).__name__}: {error}") from error
