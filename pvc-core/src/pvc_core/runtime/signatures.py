"""The hook API as text, for the file that keeps it from changing unnoticed.

``python -m pvc_core.runtime.signatures FILE`` writes it, and refuses when the hooks differ from those in
the file while HOOK_API is the same.
"""

import inspect
import sys
import typing
from pathlib import Path
from typing import Final

from pvc_core.model.errors import PvcError
from pvc_core.plugin.version import HOOK_API
from pvc_core.runtime.contract import text_of
from pvc_core.runtime.hooks import Hook, hooks

_FIRST: Final = "HOOK_API "


class ApiChanged(PvcError):
    """Hooks were changed without a new version of the hook API."""


def signature(hook: Hook) -> str:
    """Return a hook as it is specified: ``volume_info(volume: VolumeRef) -> VolumeInfo``."""
    function = getattr(hook.spec, hook.name)
    hints = typing.get_type_hints(function, include_extras=True)
    arguments = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name != "self":
            default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
            arguments.append(f"{name}: {text_of(hints[name])}{default}")
    return f"{hook.name}({', '.join(arguments)}) -> {text_of(hook.returns)}"


def mandatory(hook: Hook) -> bool:
    """Return whether a driver must have the hook."""
    return bool(getattr(getattr(hook.spec, hook.name), "__isabstractmethod__", False))


def hook_api(version: tuple[int, int] = HOOK_API) -> str:
    """Return all signatures, with the version of the API on top."""
    lines = [f"{_FIRST}{version[0]}.{version[1]}"]
    for hook in hooks().values():
        need = " mandatory" if mandatory(hook) else ""
        lines.append(f"{hook.spec.__name__} {hook.kind}{need}: {signature(hook)}")
    return "\n".join(lines) + "\n"


def write(path: Path) -> None:
    """Write the file; raise ApiChanged when hooks changed and HOOK_API did not."""
    new = hook_api()
    if path.exists():
        old = path.read_text(encoding="utf-8")
        if old != new and old.partition("\n")[0] == new.partition("\n")[0]:
            raise ApiChanged(
                f"the hooks differ from those in {path}, which has the same {old.partition(chr(10))[0]}: "
                "raise HOOK_API in pvc_core/plugin/version.py first (minor: additions that old plugins need not know)"
            )
    path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    try:
        write(Path(sys.argv[1]))
    except ApiChanged as changed:
        sys.exit(str(changed))
