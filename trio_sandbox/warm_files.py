"""Which files a template reads into its page cache: what a first program is likely to touch, in the usual
distributions.

Patterns for the agent, at most 64 of them (docs/wire.md, *Templates*); what an image does not have costs nothing.
Measured under software
emulation on a Debian image: the first `python3 -c "print(1)"` in a clone takes 640 ms with them and 930 without; what
remains is the
emulator's translation of code that it has not seen. The archive of all locales is left out: it could use up the whole
budget.
"""

from __future__ import annotations

from collections.abc import Iterator

PROGRAMS = (
    *("sh", "bash", "busybox", "??", "cat", "date", "echo", "grep", "head", "mkdir", "sed", "sleep", "tail", "true"),
    "uname",
)
LIBRARY_FOLDERS = ("/lib/*-linux-gnu", "/lib64")
PYTHON_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib")


def _patterns() -> Iterator[str]:
    for name in PROGRAMS:
        yield f"/bin/{name}"
    yield from ("/usr/bin/coreutils", "/usr/bin/env", "/usr/bin/python3", "/usr/local/bin/python3")
    yield from ("/lib64/ld-linux-*", "/lib/ld-*")
    for name in ("ld.so.cache", "ld.so.preload", "passwd", "group", "nsswitch.conf", "localtime"):
        yield f"/etc/{name}"
    for folder in LIBRARY_FOLDERS:
        for name in ("lib[cmz].so.*", "libexpat.so.*", "libtinfo.so.*", "libselinux.so.*", "libpcre2-8.so.*"):
            yield f"{folder}/{name}"
    yield from ("/lib64/libacl.so.*", "/lib64/libattr.so.*", "/lib64/libcap.so.*")
    yield from ("/lib/libz.so.*", "/usr/lib/libz.so.*", "/usr/lib/libexpat.so.*", "/usr/lib/*-linux-gnu/libpython3*")
    yield from ("/usr/lib/locale/C.utf8/LC_CTYPE", "/usr/share/locale/locale.alias")
    yield "/usr/lib/*/gconv/gconv-modules.cache"
    for folder in PYTHON_FOLDERS:
        yield f"{folder}/libpython3.*"
        yield f"{folder}/python3*/encodings/[_au]*"
        yield f"{folder}/python3*/encodings/__pycache__/[_au]*"
        yield f"{folder}/python3*/os.py"
        yield f"{folder}/python3*/__pycache__/sitecustomize*"


WARM_FILES = tuple(_patterns())
