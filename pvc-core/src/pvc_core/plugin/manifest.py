"""What a plugin says about itself without its drivers being imported.

The entry point of group ``pvc.plugin`` names a ``Manifest``.  The module that holds it may import
the standard library, msgspec and ``pvc_core.plugin`` only: ``pvc --help`` imports it.
"""

import msgspec


class CommandSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A CLI command of the plugin, imported only when it is called."""

    name: str
    """Word after ``pvc`` (or after ``pvc <extends>``)."""
    target: str
    """``package.module:attribute`` of a click command or group."""
    help: str
    """One line for ``pvc --help``."""
    extends: str = ""
    """Core group (``network``, ``storage``, ``vm``, ``node``, ``cluster``) the command is put into; empty: top level."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a plugin is and offers."""

    name: str
    """Key of its section in ``pvcnoded.yml``: the distribution's name without ``pvc-``."""
    summary: str
    api: tuple[int, int]
    """Version of the hook API it was written for."""
    storage: tuple[str, ...] = ()
    """Names of its storage drivers: entry points of group ``pvc.storage``."""
    network: tuple[str, ...] = ()
    fencing: tuple[str, ...] = ()
    scheduling: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    """Names of its entry points of group ``pvc.hooks``: objects with collect and event hooks."""
    config: str = ""
    """``package.module:Class`` of the msgspec struct for its section; empty: the section must be empty."""
    validators: dict[str, str] = {}
    """Driver name -> ``package.module:function(spec)``: pure check of the parameters of a pool, network or
    fence device (``PoolSpec``, ``NetworkSpec``, ``FenceDevice``).

    Called where the operation runs, before anything is written.  Raises InvalidRequest; may return sentences that warn of what is
    possible and risky (shown for pools).  A network's function may take a second argument, the list of the driver's other
    networks, so that it can refuse what they have already.
    """
    nic_validators: dict[str, str] = {}
    """Network driver -> ``package.module:function(network, nic)``: pure check of a NIC (``Nic``) that a VM is to have in a
    network (``NetworkSpec``), called as ``validators`` are.  Raises InvalidRequest.
    """
    commands: tuple[CommandSpec, ...] = ()
