"""The two markers of a hook: in a specification, and in a plugin."""

from typing import Final

import pluggy

PROJECT: Final = "pvc"

hookspec: Final = pluggy.HookspecMarker(PROJECT)
hookimpl: Final = pluggy.HookimplMarker(PROJECT)
