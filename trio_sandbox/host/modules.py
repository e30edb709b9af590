"""Which kernel modules a guest loads, and in which order.

Sans-IO at the core: indexes are parsed from text, and `load_order` is a function of an index. `read_index` and
`read_module` are the two that touch the disk. depmod's own files are read here, and modprobe is not asked, because
its answer differs between versions (`builtin`, `insmod` with options) and tests need no kernel for text.
"""

from __future__ import annotations

import fnmatch
import gzip
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import attrs

from trio_sandbox.errors import HostNotReadyError
from trio_sandbox.files import storage_errors
from trio_sandbox.host.packages import find_program
from trio_sandbox.tools import run_tool

WANTED = (
    "virtio_mmio",  # the bus of the microvm machine
    "virtio_console",  # the agent's port; first of the devices, so that hello comes early
    "virtio_blk",  # base and upper disk
    "squashfs",  # base
    "ext4",  # upper
    "overlay",  # root = base + upper
)
"""Modules that a guest cannot do without, by the names that modprobe takes."""

WELCOME = ("virtio_rng",)
"""Modules that are loaded where the kernel has them."""

DISK_ROOTS = ("xfs", "btrfs")
"""Modules for the root of a disk image, each with what it needs: loaded when the disk turns out to need one."""

MODULE_MAX = 64 << 20
"""Bytes of one module once decompressed; the largest that a guest needs has two million."""


@attrs.frozen
class ModuleIndex:
    """What depmod wrote about one kernel, by normal module names.

    `paths`: where each module is; `needs`: modules to load before it; `builtin`: in the kernel itself;
    `before`: soft dependencies to load before it where they exist; `aliases`: pattern and module.
    """

    paths: Mapping[str, str]
    needs: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    builtin: frozenset[str] = frozenset()
    before: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    aliases: tuple[tuple[str, str], ...] = ()

    def resolve(self, name: str) -> str | None:
        """The module of this name or alias; None when the kernel has it built in or knows nothing of it."""
        normal = normal_name(name)
        if normal in self.paths:
            return normal
        if normal in self.builtin:
            return None
        for wanted in (name, f"crypto-{name}"):
            for pattern, module in self.aliases:
                if fnmatch.fnmatchcase(wanted, pattern):
                    return module if module in self.paths else None
        return None


def normal_name(module: str) -> str:
    """The name of a module or of its file, with `_` for `-` as the kernel has it: virtio-rng.ko.xz → virtio_rng."""
    return PurePosixPath(module).name.partition(".ko")[0].replace("-", "_")


def parse_dependencies(text: str) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Paths and needs from modules.dep: `path: path path …`."""
    paths: dict[str, str] = {}
    needs: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        path, colon, rest = line.partition(":")
        if colon and path.strip():
            name = normal_name(path)
            paths[name] = path.strip()
            needs[name] = tuple(normal_name(word) for word in rest.split())
    return paths, needs


def parse_builtin(text: str) -> frozenset[str]:
    """Names from modules.builtin: a path a line."""
    return frozenset(normal_name(line) for line in text.splitlines() if line.strip())


def parse_soft(text: str) -> dict[str, tuple[str, ...]]:
    """What to load before each module, from modules.softdep: `softdep NAME pre: A B post: C`."""
    before: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "softdep":
            continue
        stage = ""
        for word in words[2:]:
            if word.endswith(":"):
                stage = word
            elif stage == "pre:":
                name = normal_name(words[1])
                before[name] = (*before.get(name, ()), word)
    return before


def parse_aliases(text: str) -> tuple[tuple[str, str], ...]:
    """Patterns and modules from modules.alias: `alias PATTERN MODULE`."""
    found = (line.split() for line in text.splitlines())
    return tuple((words[1], normal_name(words[2])) for words in found if len(words) == 3 and words[0] == "alias")


def load_order(index: ModuleIndex, wanted: Iterable[str], welcome: Iterable[str] = ()) -> list[str]:
    """Paths of the modules to load, each after all that it needs and each once; built-in ones need no loading.

    Raises HostNotReadyError that names every module of `wanted`, or needed by one, that the kernel lacks.
    """
    order: dict[str, None] = {}
    lacking: list[str] = []
    visiting: set[str] = set()

    def visit(name: str) -> None:
        if name in index.builtin or name in order or name in visiting:
            return
        if name not in index.paths:
            lacking.append(name)
            return
        visiting.add(name)  # soft dependencies may go in circles
        for soft in index.before.get(name, ()):
            found = index.resolve(soft)
            if found is not None:
                visit(found)
        for needed in index.needs.get(name, ()):
            visit(needed)
        visiting.discard(name)
        order[name] = None

    for name in wanted:
        visit(normal_name(name))
    if lacking:
        names = ", ".join(dict.fromkeys(lacking))
        raise HostNotReadyError(
            "kernel", f"its modules lack {names}", "name a kernel that has them, or run `trio-sandbox setup`"
        )
    for name in welcome:
        if normal_name(name) in index.paths:
            visit(normal_name(name))
    return [index.paths[name] for name in order if name in index.paths]


def read_index(folder: Path) -> ModuleIndex:
    """The index of the kernel whose modules.dep is in `folder`. Raises HostNotReadyError when there is none."""
    try:
        paths, needs = parse_dependencies((folder / "modules.dep").read_text(errors="replace"))
    except FileNotFoundError as error:
        raise HostNotReadyError("kernel", f"there is no modules.dep in {folder}") from error

    def text(name: str) -> str:
        try:
            return (folder / name).read_text(errors="replace")
        except FileNotFoundError:
            return ""

    return ModuleIndex(
        paths,
        needs,
        parse_builtin(text("modules.builtin")),
        parse_soft(text("modules.softdep")),
        parse_aliases(text("modules.alias")),
    )


async def read_module(path: Path) -> bytes:
    """The bytes of a module as the kernel loads it, decompressed by its suffix (.xz, .zst, .gz or none).

    Raises HostNotReadyError for a damaged file, a compression of another kind, or a program that is missing.
    """
    try:
        with storage_errors(path):
            packed = path.read_bytes()
        match path.suffix:
            case ".ko":
                module = packed
            case ".gz":
                module = gzip.decompress(packed)
            case ".xz" | ".zst" as suffix:
                # Not lzma: a Python that was built without its header lacks the module.
                program = "xz" if suffix == ".xz" else "zstd"
                done = await run_tool([find_program(program) or program, "-dcq"], stdin=packed)
                module = done.stdout
            case suffix:
                raise HostNotReadyError("kernel", f"{path} is compressed as {suffix}, which is not supported")
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise HostNotReadyError("kernel", f"the module {path} cannot be read: {error}") from error
    if not module.startswith(b"\x7fELF") or len(module) > MODULE_MAX:
        raise HostNotReadyError("kernel", f"the module {path} is damaged")
    return module
