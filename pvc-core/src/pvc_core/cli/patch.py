"""Options of `pvc vm modify` as a patch of the definition."""

from typing import Any, NamedTuple, TypeVar

import yaml

from pvc_core.model.errors import InvalidRequest
from pvc_core.model.names import check_mac, did_you_mean
from pvc_core.ops.vm_definition import DiskDefinition, VmDefine
from pvc_core.ops.vm_modify import VmPatch
from pvc_core.ops.vm_nic_definition import NicDefinition
from pvc_core.plugin.config import InvalidSection, decode
from pvc_core.plugin.errors import ConfigError

T = TypeVar("T")


class Edits(NamedTuple):
    """What the options say, as text."""

    settings: tuple[str, ...] = ()
    add_disks: tuple[str, ...] = ()
    remove_disks: tuple[str, ...] = ()
    add_nics: tuple[str, ...] = ()
    remove_nics: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any(self)


def patch_of(current: VmDefine, edits: Edits) -> VmPatch:
    """Return what the options change of the current definition.  Raises InvalidRequest."""
    fields = dict(_setting(text) for text in edits.settings)
    if edits.add_disks or edits.remove_disks:
        fields["disks"] = _disks(current, edits)
    if edits.add_nics or edits.remove_nics:
        fields["nics"] = _nics(current, edits)
    return VmPatch(**fields)


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InvalidRequest(f"{text!r} is not of the form KEY=VALUE")
    key = key.strip().replace("-", "_")
    if key not in VmPatch.__struct_fields__:
        hint = did_you_mean(key, VmPatch.__struct_fields__)
        raise InvalidRequest(f"a VM has no field {key!r}{hint or '; see: pvc vm dump'}")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        parsed = value
    # "2024" is a number, but a description may be "2024" too: text is tried when the value does not fit.
    for candidate in (parsed, value):
        try:
            return key, getattr(decode({key: candidate}, VmPatch), key)
        except InvalidSection as error:
            wrong = error
    raise InvalidRequest(str(wrong).replace("\n", "; "))


def _disks(current: VmDefine, edits: Edits) -> tuple[DiskDefinition, ...]:
    disks = list(current.disks)
    for text in edits.remove_disks:
        match = [disk for disk in disks if f"{disk.pool}/{disk.volume}" == text]
        if not match:
            known = [f"{disk.pool}/{disk.volume}" for disk in disks]
            raise InvalidRequest(f"VM {current.name} has no disk {text!r}{_hint(text, known)}")
        disks.remove(match[0])
    for text in edits.add_disks:
        volume, options = _options(text)
        pool, slash, name = volume.partition("/")
        if not (slash and pool and name):
            raise InvalidRequest(f"{volume!r} is not a volume: write pool/volume, such as ssd/web1")
        disks.append(_decode({"pool": pool, "volume": name, **options}, DiskDefinition, f"--add-disk {text}"))
    return tuple(disks)


def _nics(current: VmDefine, edits: Edits) -> tuple[NicDefinition, ...]:
    nics = list(current.nics)
    for text in edits.remove_nics:
        mac = check_mac(text) if ":" in text else ""
        match = [nic for nic in nics if (nic.mac == mac if mac else nic.network == text)]
        if not match:
            known = [nic.network for nic in nics] + [nic.mac for nic in nics]
            raise InvalidRequest(f"VM {current.name} has no NIC {text!r}{_hint(text, known)}")
        if len(match) > 1:
            macs = ", ".join(nic.mac for nic in match)
            raise InvalidRequest(
                f"VM {current.name} has {len(match)} NICs in network {text!r}: name one by its MAC: {macs}"
            )
        nics.remove(match[0])
    for text in edits.add_nics:
        network, options = _options(text)
        nics.append(_decode({"network": network, **options}, NicDefinition, f"--add-nic {text}"))
    return tuple(nics)


def _options(text: str) -> tuple[str, dict[str, Any]]:
    """Return the first word of ``word,key=value,...`` and the options after it."""
    first, *rest = text.split(",")
    options: dict[str, Any] = {}
    for part in rest:
        key, equals, value = part.partition("=")
        if not equals:
            raise InvalidRequest(f"{part!r} in {text!r} is not of the form key=value")
        options[key.replace("-", "_")] = (
            yaml.safe_load(value) if value in ("true", "false") or value.isdecimal() else value
        )
    return first, options


def _decode(values: dict[str, Any], type_: type[T], what: str) -> T:
    try:
        return decode(values, type_)
    except ConfigError as error:
        raise InvalidRequest(f"{what}: {'; '.join(str(error).splitlines())}") from error


def _hint(wrong: str, known: list[str]) -> str:
    return did_you_mean(wrong, known) or (f"; it has {', '.join(known)}" if known else "; it has none")
