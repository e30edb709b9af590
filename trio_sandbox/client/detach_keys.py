"""The keys that leave an attached session: what a text like "ctrl-p,ctrl-q" means, and finding it in what is typed.
No I/O.
"""

from __future__ import annotations

import attrs

DEFAULT_DETACH_KEYS = "ctrl-]"
_CTRL = "ctrl-"
_WITH_CTRL = "@abcdefghijklmnopqrstuvwxyz[\\]^_"
"""The characters that make a control byte, in the order of those bytes: ctrl-@ is 0, ctrl-_ is 31."""


def parse_detach_keys(text: str | None) -> bytes:
    """The bytes that the keys of `text` send. None is the default, "" is no keys at all: nothing detaches.

    The grammar: one or more elements with commas between them, each a single character or `ctrl-` and one of a–z, @, [,
    \\, ], ^, _. Raises TypeError, or ValueError that names the wrong element.
    """
    if text is None:
        text = DEFAULT_DETACH_KEYS
    if not isinstance(text, str):
        raise TypeError(f"detach_keys must be str, not {type(text).__name__}")
    return b"".join(_key(element, text) for element in text.split(",")) if text else b""


def _key(element: str, text: str) -> bytes:
    if len(element) == 1:
        try:
            return element.encode()
        except UnicodeEncodeError:
            raise ValueError(f"detach_keys {text!r}: {element!r} is not a character that can be typed") from None
    held = element[len(_CTRL) :].lower()
    if element[: len(_CTRL)].lower() == _CTRL and len(held) == 1 and held in _WITH_CTRL:
        return bytes([_WITH_CTRL.index(held)])
    raise ValueError(
        f"detach_keys {text!r}: {element!r} is neither a single character nor ctrl- and one of a-z, @, [, \\, ], ^, _"
    )


@attrs.define(eq=False)
class DetachMatcher:
    """Finds the keys in typed bytes, however these are cut.

    What may be the beginning of the keys is held back until the next bytes tell; when it was not, it is passed on.
    Invariant: what was passed on, then the first `held` bytes of the keys, is all that was typed.
    """

    keys: bytes
    held: int = attrs.field(default=0, init=False)
    _borders: tuple[int, ...] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._borders = _borders(self.keys)

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What of the typed bytes is to be passed on, and whether the keys have been typed; what follows them is
        dropped.
        """
        if not self.keys:
            return data, False
        passed = bytearray()
        for byte in data:
            while self.held and byte != self.keys[self.held]:
                shorter = self._borders[self.held]
                passed += self.keys[: self.held - shorter]
                self.held = shorter
            if byte == self.keys[self.held]:
                self.held += 1
            else:
                passed.append(byte)
            if self.held == len(self.keys):
                self.held = 0
                return bytes(passed), True
        return bytes(passed), False


def _borders(keys: bytes) -> tuple[int, ...]:
    """For each length, that of the longest shorter prefix of the keys with which the prefix of that length ends (the
    failure function of Knuth, Morris and Pratt).
    """
    borders = [0] * (len(keys) + 1)
    border = 0
    for position in range(1, len(keys)):
        while border and keys[position] != keys[border]:
            border = borders[border]
        border += keys[position] == keys[border]
        borders[position + 1] = border
    return tuple(borders)
