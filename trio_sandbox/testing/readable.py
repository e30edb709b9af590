"""Values that say what they are as briefly as a test's author would: they are read in the reports of failed tests."""

from __future__ import annotations

import enum
from typing import Any

import attrs


class Readable:
    """Base of attrs classes: a call that makes the value again, without what is as it would be anyway."""

    __slots__ = ()

    def __repr__(self) -> str:
        kind: Any = type(self)
        words = []
        for place, field in enumerate(attrs.fields(kind)):
            value = getattr(self, field.name)
            default = field.default
            if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
                default = default.factory()
            if field.init and field.repr and (default is attrs.NOTHING or value != default):
                words.append(_said(value) if place == 0 else f"{field.alias}={_said(value)}")
        return f"{kind.__name__}({', '.join(words)})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Hypothesis would write down every field."""
        printer.text(repr(self))


def _said(value: object) -> str:
    return f"{type(value).__name__}.{value.name}" if isinstance(value, enum.Enum) else repr(value)
