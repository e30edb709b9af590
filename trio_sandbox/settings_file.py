"""A file of settings in the data folder, which a person writes: read whole, bounded, and told apart from what is wrong
with it.
"""

from __future__ import annotations

import tomllib
from typing import Any

from trio_sandbox.errors import InvalidConfigError
from trio_sandbox.home import Home


def read_settings(home: Home, name: str, most: int) -> dict[str, Any] | None:
    """The TOML document of the file `name` in the data folder; None where there is none. most: bytes that it may have.

    Raises InvalidConfigError for one that cannot be read.
    """
    path = home.root / name
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise InvalidConfigError([f"{path}: more than {most} bytes"])
        return tomllib.loads(data.decode())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InvalidConfigError([f"{path}: {error.strerror}"]) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidConfigError([f"{path}: {error}"]) from error
