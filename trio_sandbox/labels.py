"""Labels of sandboxes and snapshots: text by text, for people and programs to find them by. No I/O."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
LABEL_KEY_LIMIT, LABEL_VALUE_LIMIT = 128, 1024
"""Characters."""
IMAGE_LABELS_LIMIT = 256
"""Labels that a sandbox takes over from its image."""


def labels_problem(value: object) -> str | None:
    """What is wrong with a mapping of labels, or None."""
    if not isinstance(value, Mapping):
        return f"must be a mapping, not {type(value).__name__}"
    for key, text in value.items():
        if not isinstance(key, str) or not _LABEL.fullmatch(key) or len(key) > LABEL_KEY_LIMIT:
            return f"{key!r} is not 1 to {LABEL_KEY_LIMIT} letters, digits, '.', '_', '-' and '/'"
        if not isinstance(text, str) or "\0" in text or len(text) > LABEL_VALUE_LIMIT:
            return f"the value of {key!r} must be str of at most {LABEL_VALUE_LIMIT} characters without NUL"
        if any("\ud800" <= character <= "\udfff" for character in text):
            return f"the value of {key!r} cannot be written as UTF-8"
    return None


def usable_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Those of an image's labels that a sandbox can have. Its author need not know of our limits."""
    good = ((key, value) for key, value in labels.items() if labels_problem({key: value}) is None)
    return dict(itertools.islice(good, IMAGE_LABELS_LIMIT))
