"""`make run`: one sandbox from the default image, one program in it, and how long each step took."""

from __future__ import annotations

import os
import sys
import time

import trio

from trio_sandbox import open_sandbox

PROGRAM = """
import os, platform, subprocess
print("guest kernel  ", platform.release())
print("guest Python  ", platform.python_version())
print("host name     ", platform.node())
print("processes in the guest:")
print(subprocess.run(["ps", "-eo", "pid,user,comm"], capture_output=True, text=True).stdout.rstrip())
"""


async def main() -> int:
    """Boot, run, leave; returns the program's exit code."""
    began = time.perf_counter()
    async with open_sandbox("demo", image="local/base") as sandbox:
        booted = time.perf_counter()
        output = await sandbox.exec("python3", ["-c", PROGRAM])
        executed = time.perf_counter()
    gone = time.perf_counter()
    print(f"host kernel    {os.uname().release}")
    print(output.stdout_text, end="")
    print(output.stderr_text, end="", file=sys.stderr)
    print(
        f"boot {booted - began:.2f} s, first exec {executed - booted:.2f} s, teardown {(gone - executed) * 1e3:.0f} ms"
    )
    return output.exit_code


if __name__ == "__main__":
    sys.exit(trio.run(main))
