"""A terminal's line discipline, as far as programs and people notice: echo, lines, erase, end of file, Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Callable

import attrs

from trio_sandbox.testing.pipes import Pipe

EOF_CHARACTER, INTERRUPT, QUIT, ERASE = 0x04, 0x03, 0x1C, 0x7F
_SIGNALS = {INTERRUPT: signal.SIGINT, QUIT: signal.SIGQUIT}


@attrs.define(eq=False)
class Terminal:
    """Between what is typed and what a program reads. keyboard: where whole lines go. screen: what is printed.

    interrupt: called with the signal of a key like Ctrl-C.
    """

    keyboard: Pipe
    screen: Pipe
    interrupt: Callable[[int], None]
    rows: int = 24
    cols: int = 80
    raw: bool = False
    """No lines, no echo, no signals: bytes as they are, in both directions."""
    echo: bool = True
    ends: int = 0
    """Ends of file that were typed and not read yet."""
    _line: bytearray = attrs.Factory(bytearray)

    def type(self, data: bytes) -> None:
        """Keys are pressed. What finds no room is lost, as at any terminal."""
        if self.raw:
            self.keyboard.put(data)
            return
        for byte in data:
            self._key(byte)

    def type_end(self) -> None:
        """The end-of-file key is pressed; in raw mode there is none."""
        if not self.raw:
            self._key(EOF_CHARACTER)

    def _key(self, byte: int) -> None:
        if byte in _SIGNALS:
            self._show(b"^" + bytes([byte + 0x40]))
            self._line.clear()
            self.interrupt(_SIGNALS[byte])
        elif byte == EOF_CHARACTER:
            if self._line:
                self._enter()
            else:
                self.ends += 1
                self.keyboard.end()  # wakes the reader; `read` opens it again
        elif byte == ERASE:
            if self._line:
                self._line.pop()
                self._show(b"\b \b")
        elif byte in b"\r\n":
            self._line += b"\n"
            self._show(b"\r\n")
            self._enter()
        else:
            self._line.append(byte)
            self._show(bytes([byte]))

    def _enter(self) -> None:
        self.keyboard.put(bytes(self._line))
        self._line.clear()

    def _show(self, data: bytes) -> None:
        if self.echo:
            self.screen.put(data)
            self.screen.changed()

    def printed(self, data: bytes) -> bytes:
        """What becomes of a program's output on its way."""
        return data if self.raw else data.replace(b"\n", b"\r\n")

    async def read(self, most: int) -> bytes:
        """What a program reads: of a line at most, b"" once for each end of file."""
        piece = await self.keyboard.read(most)
        if piece:
            return piece
        self.ends -= 1
        self.keyboard.ended = self.ends > 0
        return b""
