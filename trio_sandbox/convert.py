"""The one cattrs converter: strict about types, about missing keys and about extra ones.

cattrs by default turns "5" into 5 and 1.9 into 1. Nothing that arrives from outside may be bent like that, so every
primitive has a hook that only accepts itself. The hooks must be registered before anything is structured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

import attrs
import cattrs
import msgpack

T = TypeVar("T")
SHORTENED_SIZE = 16_384


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


def shortened(text: str) -> str:
    """The end of a text that the guest can make long, such as its console's: a message must fit into one frame."""
    return text.encode(errors="replace")[-SHORTENED_SIZE:].decode(errors="ignore")


def pack(message: object) -> bytes:
    """A msgpack map of an attrs instance."""
    packed: bytes = msgpack.packb(_wire.unstructure(message), use_bin_type=True)
    return packed


def unpack_untrusted(body: bytes, kind: type[T], *, whole: bool = False) -> T:
    """The attrs instance that `body` holds. Raises ValueError, and nothing else, for bytes that are not exactly one.

    whole: keys that have a default must be there too.
    """
    try:
        values = msgpack.unpackb(body, raw=False, strict_map_key=True, use_list=True)
        made = _wire.structure(values, kind)
        if whole and len(values) != len(attrs.fields(cast(Any, kind))):
            raise ValueError(f"{len(values)} keys")
        return made
    except Exception as error:  # hostile bytes can fail in any layer below: one answer for all of them
        raise ValueError(f"{type(error).__name__}: {error}") from error


class MapStream:
    """msgpack maps from bytes that are cut anywhere, and raw bytes between them where their reader knows how many.

    Small and flat maps only: 32 keys, values of at most 4 KiB, no arrays. What is fed is taken before more is fed.
    """

    MAX_VALUE = 4096
    MAX_MAP = 1 << 16

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(
            raw=False,
            strict_map_key=True,
            max_bin_len=self.MAX_VALUE,
            max_str_len=self.MAX_VALUE,
            max_map_len=32,
            max_array_len=0,
            max_ext_len=0,
        )
        self._fed = self._settled = 0  # the unpacker takes a part of a map at once, so what it holds says nothing

    def feed(self, data: bytes) -> None:
        """Take bytes."""
        self._fed += len(data)
        self._unpacker.feed(data)

    def next_untrusted(self) -> dict[str, object] | None:
        """The next map, or None when it has not arrived whole. Raises ValueError for anything else."""
        try:
            found = self._unpacker.unpack()
        except msgpack.OutOfData:
            if self.waiting > self.MAX_MAP:
                raise ValueError(f"a map of more than {self.MAX_MAP} bytes") from None
            return None
        except Exception as error:  # as in unpack_untrusted
            raise ValueError(f"{type(error).__name__}: {error}") from error
        if not isinstance(found, dict):
            raise ValueError(f"a map was expected, not {type(found).__name__}")
        self._settled = self._unpacker.tell()
        return found

    def take(self, size: int) -> bytes:
        """Up to `size` raw bytes of those that wait. Only between two maps."""
        taken: bytes = self._unpacker.read_bytes(size)
        self._settled += len(taken)
        return taken

    @property
    def waiting(self) -> int:
        """Bytes that were fed and belong to nothing whole yet."""
        return self._fed - self._settled


def pack_map(values: Mapping[str, object]) -> bytes:
    """A msgpack map of plain values."""
    packed: bytes = msgpack.packb(values, use_bin_type=True)
    return packed
