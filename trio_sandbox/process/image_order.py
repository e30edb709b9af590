"""What a program asks of a process that works on images for it. Plain data, no I/O.

It is forked and undone as a sandbox process is (`order.py`): the end of the leash means that the work is off. Over the
report pipe it says `pull` (a PullEvent) any number of times, then `result` (references) or `error`.
"""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Any

import attrs

from trio_sandbox.config import PullPolicy
from trio_sandbox.home import Home
from trio_sandbox.registry_auth import RegistryAuth, auth_of


class ImageWork(enum.StrEnum):
    """What is to be done."""

    PULL = "pull"
    LOAD = "load"
    SAVE = "save"


@attrs.frozen
class ImageOrder:
    """references: the image to pull, the name of the one to load if another is wanted, or the images to save. path: of
    the archive, absolute.
    """

    work: ImageWork
    home: Home
    references: tuple[str, ...] = ()
    path: str = ""
    policy: PullPolicy = PullPolicy.ALWAYS
    auth: RegistryAuth | None = None

    def to_json(self) -> str:
        """Whole, with what is secret."""
        return json.dumps(
            {**attrs.asdict(self, recurse=False), "home": str(self.home.root.absolute()), "auth": self._auth()}
        )

    def _auth(self) -> dict[str, Any] | None:
        return attrs.asdict(self.auth) if self.auth is not None else None

    @classmethod
    def from_json(cls, text: str) -> ImageOrder:
        """What `to_json` wrote."""
        plain = json.loads(text)
        return cls(
            work=ImageWork(plain["work"]),
            home=Home(Path(plain["home"])),
            references=tuple(plain["references"]),
            path=plain["path"],
            policy=PullPolicy(plain["policy"]),
            auth=auth_of(plain["auth"]),
        )


def is_image_order(text: str) -> bool:
    """Whether this is the JSON of an ImageOrder and not of a sandbox's order."""
    return "work" in json.loads(text)
