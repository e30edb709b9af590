"""Run as a program in a mount namespace of its own: mounts what it is told, and tells what is to be seen there.

One JSON object a line: {"overlay": [lowest folder, ...]} or {"squashfs": file}; with it may be `copy`, files to copy
out by their paths before the answer. The answer is a line too: a file's properties by its path, in which bytes are
Latin-1.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import subprocess
import sys
import tempfile
from typing import Any


def main() -> None:
    """Answer until the input ends; then the namespace goes, and with it whatever is still mounted."""
    view = tempfile.mkdtemp()
    empty = tempfile.mkdtemp()
    try:
        for line in sys.stdin:
            request = json.loads(line)
            if "squashfs" in request:
                subprocess.run(["mount", "-t", "squashfs", "-o", "loop,ro", request["squashfs"], view], check=True)
            else:
                # The bottom one is there because an overlay needs two.
                lower = ":".join([*reversed(request["overlay"]), empty])
                subprocess.run(["mount", "-t", "overlay", "overlay", "-o", f"ro,lowerdir={lower}", view], check=True)
            try:
                for path, target in request.get("copy", {}).items():
                    subprocess.run(["cp", "-a", os.path.join(view, path), target], check=True)
                print(json.dumps(seen(os.fsencode(view))), flush=True)
            finally:
                subprocess.run(["umount", view], check=True)
    finally:
        os.rmdir(view)
        os.rmdir(empty)


def seen(root: bytes) -> dict[str, Any]:
    """Every file below `root` and `root` itself, with the least of its names in `same`."""
    found: dict[str, Any] = {}
    names: dict[int, list[str]] = {}
    for folder, folders, files in os.walk(root):
        for name in sorted([*folders, *files, *([b"."] if folder == root else [])]):
            path = os.path.join(folder, name)
            if not os.path.lexists(path):  # overlayfs lists a whiteout in a folder that it need not merge
                continue
            shown = os.path.relpath(path, root).decode("latin-1")
            found[shown] = properties(path)
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                names.setdefault(os.lstat(path).st_ino, []).append(shown)
    for same in names.values():
        for shown in same:
            found[shown]["same"] = min(same)
    return found


def properties(path: bytes) -> dict[str, Any]:
    """All that an image says of a file."""
    status = os.lstat(path)
    body = ""
    if stat.S_ISLNK(status.st_mode):
        body = os.readlink(path).decode("latin-1")
    elif stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            body = hashlib.sha256(file.read()).hexdigest()
    try:
        names = [name for name in os.listxattr(path, follow_symlinks=False) if not name.startswith("trusted.overlay.")]
    except OSError as error:  # a kernel may be built to read squashfs without them
        if error.errno != errno.EOPNOTSUPP:
            raise
        names = []
    return {
        "mode": oct(status.st_mode),
        "owner": [status.st_uid, status.st_gid],
        "mtime": int(status.st_mtime),
        "size": status.st_size if stat.S_ISREG(status.st_mode) else 0,
        "device": status.st_rdev,
        "body": body,
        "xattrs": {name: os.getxattr(path, name, follow_symlinks=False).decode("latin-1") for name in sorted(names)},
    }


if __name__ == "__main__":
    main()
