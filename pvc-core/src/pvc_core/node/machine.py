"""Which machine this is: a random word, made when a daemon first runs on it, that no other machine has.

A node's name may be given to another machine by mistake, or when the hardware is replaced.  By this word the cluster
tells the two apart, and lets the other one in only when the first is proven dead: see ``node.lease``.
"""

import os
import re
import secrets
from pathlib import Path
from typing import Final

from pvc_core.plugin.errors import ConfigError

_FILE: Final = "machine"
_WORD: Final = re.compile(r"[0-9a-f]{16}")


def machine_word(state_directory: Path) -> str:
    """Return this machine's word, which is made at the first call.  Raises ConfigError."""
    path = state_directory / _FILE
    try:
        try:
            word = path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return _make(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"node.state_directory: cannot read or write {path}: {error}") from error
    if not _WORD.fullmatch(word):
        raise ConfigError(
            f"node.state_directory: {path} is damaged; if this machine is the one that had this node's name until now, "
            "delete the file, and confirm with 'pvc fence confirm' that nothing of it runs any more"
        )
    return word


def _make(path: Path) -> str:
    word = secrets.token_hex(8)
    new = path.with_suffix(".new")
    with new.open("w", encoding="ascii") as file:
        file.write(f"{word}\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    return word
