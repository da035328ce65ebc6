"""Version of the hook API, independent of any distribution's version.

``(major, minor)``: minor grows with additions that old plugins need not know (a hook, an argument
that may be left out, a capability); major with anything else.  A plugin that was written for
``(m, n)`` works with a host ``(m, n')`` where ``n' >= n``.
"""

from typing import Final

HOOK_API: Final = (1, 2)


def incompatibility(plugin: tuple[int, int], host: tuple[int, int] = HOOK_API) -> str | None:
    """Return why a plugin of this hook API cannot be used with this host, or None when it can."""
    if plugin[0] != host[0]:
        return f"it is written for hook API {plugin[0]}.{plugin[1]}, this is {host[0]}.{host[1]}: another major version"
    if plugin[1] > host[1]:
        return f"it needs hook API {plugin[0]}.{plugin[1]}, this is {host[0]}.{host[1]}: update pvc-core"
    return None
