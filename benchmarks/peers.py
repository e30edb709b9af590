"""Container engines that are installed here and answer, for scale: one `run … true` of an image that is there."""

from __future__ import annotations

import shutil
import subprocess
import time

from benchmarks.figures import Figure, Samples

ENGINES = ("docker", "podman")
ANSWER_TIMEOUT = 5.0
"""Seconds for an engine to say that it is there."""


def measure(repeats: int) -> tuple[list[Figure], list[str]]:
    """What could be measured, and a sentence for each engine that could not. Nothing is pulled."""
    samples, left_out = Samples("ms"), []
    for engine in ENGINES:
        image, problem = _first_image(engine)
        if image is None:
            left_out.append(f"{engine}: {problem}")
            continue
        for _ in range(repeats):
            began = time.perf_counter()
            subprocess.run([engine, "run", "--rm", "--network=none", "--pull=never", image, "true"], check=False)
            samples.add(f"{engine} run {image} true", (time.perf_counter() - began) * 1e3)
    return samples.figures(), left_out


def _first_image(engine: str) -> tuple[str | None, str]:
    if shutil.which(engine) is None:
        return None, "not installed"
    try:
        listed = subprocess.run(
            [engine, "images", "--quiet"], capture_output=True, text=True, timeout=ANSWER_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer within {ANSWER_TIMEOUT:g} s"
    if listed.returncode:
        return None, "installed, but its engine does not run"
    images = listed.stdout.split()
    return (images[0], "") if images else (None, "has no image")
