"""Build hook: compiles the guest agent and the host helper into the wheel.

Compilers are tried in this order: musl-gcc, cc -static, and the ziglang wheel. The last is a large download, so it is
asked for (`dependencies`) only where no other compiler works. `TRIO_SANDBOX_CC` overrides the choice.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MACHINE = os.uname().machine
FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-Os", "-s", "-static", "-Wall", "-fstack-protector-strong"]
FLAGS += ["-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"]
ZIG_FLAGS = ["-fno-sanitize=all"]  # zig turns the sanitizer for undefined behaviour on by itself


def installed_compilers() -> Iterator[list[str]]:
    """The compilers on this machine, best first."""
    if chosen := os.environ.get("TRIO_SANDBOX_CC"):
        yield shlex.split(chosen)
    for name in ("musl-gcc", "cc", "gcc", "clang"):
        if shutil.which(name):
            yield [name]


def zig() -> list[str]:
    """The compiler of the ziglang wheel, which brings its own C library."""
    return [sys.executable, "-m", "ziglang", "cc", "-target", f"{MACHINE}-linux-musl", *ZIG_FLAGS]


def compile_program(compiler: list[str], sources: list[Path], output: Path, version: str) -> str | None:
    """Compile and link one static program; what went wrong, or None."""
    command = [*compiler, *FLAGS, f'-DAGENT_VERSION="{version}"', "-o", str(output), *map(str, sources)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return done.stderr or "failed without a message" if done.returncode else None


def works(compiler: list[str]) -> bool:
    """Whether the compiler can make a static program: a `cc` without its libc.a cannot."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text("#include <unistd.h>\nint main(void) { return getpid() == 0; }\n")
        return compile_program(compiler, [source], Path(folder, "probe"), "probe") is None


def build_programs(root: Path, folder: Path, version: str) -> list[Path]:
    """Compile both programs into `folder`, each put in place in one step. Raises RuntimeError."""
    programs = {
        "agent": sorted(root.glob("guest/*.c")),
        "host": sorted(root.glob("guest/host/*.c")),
    }
    compiler = next((candidate for candidate in installed_compilers() if works(candidate)), zig())
    folder.mkdir(parents=True, exist_ok=True)
    built = []
    for name, sources in programs.items():
        output = folder / f"{name}-{MACHINE}"
        part = folder / f".{output.name}.part"
        if problem := compile_program(compiler, sources, part, version):
            part.unlink(missing_ok=True)
            raise RuntimeError(f"{shlex.join(compiler)} cannot build {output.name}:\n{problem[-2000:]}")
        part.chmod(0o755)
        part.replace(output)
        built.append(output)
    return built


class ProgramsHook(BuildHookInterface[Any]):
    """The hook that hatchling calls, see `[tool.hatch.build.targets.wheel.hooks.custom]`."""

    def dependencies(self) -> list[str]:
        return [] if any(map(works, installed_compilers())) else ["ziglang>=0.13"]

    def staging(self) -> Path:
        """Where the programs are until they are in the wheel."""
        return Path(self.directory) / "programs"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        in_tree = version == "editable"
        folder = root / "trio_sandbox" / "_bin" if in_tree else self.staging()
        for program in build_programs(root, folder, str(self.metadata.version)):
            if not in_tree:
                build_data["force_include"][str(program)] = f"trio_sandbox/_bin/{program.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-linux_{MACHINE}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        shutil.rmtree(self.staging(), ignore_errors=True)
