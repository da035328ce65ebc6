"""The hook reference, made from the specifications: ``python -m pvc_core.runtime.reference docs/plugins.md``.

It replaces what stands between the two marks in that file.
"""

import inspect
import sys
from pathlib import Path
from typing import Final

from pvc_core.plugin.version import HOOK_API
from pvc_core.runtime.hooks import DRIVER_SPECS, OTHER_SPECS, Hook, hook_names, hooks
from pvc_core.runtime.signatures import mandatory, signature

BEGIN: Final = "<!-- hooks: made by `python -m pvc_core.runtime.reference docs/plugins.md` -->"
END: Final = "<!-- end of hooks -->"

_LANES: Final = {
    "work": "the plugin's own pool, 4 threads",
    "long": "the plugin's pool for long calls, 4 threads",
    "told": "the plugin's pool for collect and event hooks, 4 threads",
}

_FAILURES: Final = {
    "storage_preflight": "The driver is not given out, its capability is absent from the node; tried again every minute.",
    "network_preflight": "The driver is not given out, its capability is absent from the node; tried again every minute.",
    "fence_preflight": "The driver is not given out, its capability is absent from the node; tried again every minute.",
    "storage_capabilities": "As for the preflight.",
    "network_capabilities": "As for the preflight.",
    "storage_close": "Logged; the daemon ends all the same.",
    "network_close": "Logged; the daemon ends all the same.",
    "fence_close": "Logged; the daemon ends all the same.",
    "node_block": "Not blocked: no proof, so nothing is recovered on this ground.",
    "power_status": "The state is unknown: no proof, so nothing is recovered on this ground.",
    "power_off": "Not confirmed: no proof, so nothing is recovered on this ground. Tried again with back-off.",
    "selector_score": "The decision falls back to the selector `mem` and says so.",
    "node_filter": "Counts as a reason against the node.",
    "node_weight": "Counts as no answer.",
    "role_services": "The primary runs none of this plugin's services; the node gets a condition that names it.",
    "queries": "This plugin's queries are answered as unknown ones.",
    "task_runners": "This plugin's tasks fail as of an unknown kind.",
    "resource_reconcile": "Not done: it is tried again with back-off.",
}
_FAILURE_OF_KIND: Final = {
    "driver": "Not done. Tried again with back-off while the error is `retryable`; the object's condition names it.",
    "collect": "Only this plugin's answer is missing; it is counted and logged.",
    "event": "Logged and counted; the next plugin is told all the same.",
}


def failure(hook: Hook) -> str:
    """Return what an exception of a hook means."""
    return _FAILURES.get(hook.name, _FAILURE_OF_KIND[hook.kind])


def deadline(hook: Hook) -> str:
    """Return a hook's default deadline, for people."""
    if "progress" in inspect.signature(getattr(hook.spec, hook.name)).parameters:
        return "the task's time limit"
    return f"{hook.deadline_s:g} s"


def thread(hook: Hook) -> str:
    """Return in which thread a hook runs."""
    if hook.spec is DRIVER_SPECS["fencing"] and "target" in inspect.signature(getattr(hook.spec, hook.name)).parameters:
        return "a pool of 2 threads for each node that is fenced"
    return _LANES[hook.lane]


def render() -> str:
    """Return the reference."""
    lines = [BEGIN, "", f"Hook API {HOOK_API[0]}.{HOOK_API[1]}.", ""]
    for spec in (*DRIVER_SPECS.values(), *OTHER_SPECS):
        lines += [f"### {spec.__name__}", ""]
        module = inspect.getdoc(inspect.getmodule(spec)) if spec in DRIVER_SPECS.values() else None
        lines += [_prose(module or inspect.getdoc(spec) or ""), ""]
        for name in hook_names(spec):
            lines += _section(hooks()[name])
    lines.append(END)
    return "\n".join(lines) + "\n"


def _section(hook: Hook) -> list[str]:
    need = {True: ", every driver has it", False: ", optional" if hook.kind == "driver" else ""}[mandatory(hook)]
    return [
        f"#### `{signature(hook)}`",
        "",
        _prose(inspect.getdoc(getattr(hook.spec, hook.name)) or ""),
        "",
        f"- Kind: {hook.kind} hook{need}",
        f"- Thread: {thread(hook)}",
        f"- Deadline: {deadline(hook)}",
        f"- An exception: {failure(hook)}",
        "",
    ]


def _prose(text: str) -> str:
    return text.replace("``", "`").replace(".  ", ". ")


def replace(page: str) -> str:
    """Return a page with the reference between its marks made anew."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} ... {END}")
    return before + render().rstrip("\n") + after


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(replace(target.read_text(encoding="utf-8")), encoding="utf-8")
