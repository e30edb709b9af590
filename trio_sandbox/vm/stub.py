"""The part of a kernel image that QEMU looks at: what a clone is given instead of the whole.

A clone goes on from a saved state and never boots, but QEMU wants a kernel on its command line, since that makes
devices that the state
speaks of. It reads all of it, which for 14 MB takes some 8 ms. The boot protocol's header and set-up code are all that
it looks at.
"""

from __future__ import annotations

SETUP_SECTORS_AT = 0x1F1
MAGIC_AT, MAGIC = 0x202, b"HdrS"
SECTOR = 512
DEFAULT_SECTORS = 4
HEADER_READ = 8192
"""Bytes that QEMU reads to look at the header."""
TAIL = 4096
"""Bytes of the kernel proper that stay: some must."""


def kernel_stub(image: bytes) -> bytes | None:
    """The beginning of an x86 boot image, without its kernel proper; None for anything else, which must be given whole.

    The numbers are those of Linux's x86 boot protocol (Documentation/arch/x86/boot.rst).
    """
    if image[MAGIC_AT : MAGIC_AT + 4] != MAGIC:
        return None
    setup = ((image[SETUP_SECTORS_AT] or DEFAULT_SECTORS) + 1) * SECTOR
    stub = image[: max(setup, HEADER_READ) + TAIL]
    return stub if len(stub) < len(image) else None
