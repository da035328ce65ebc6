"""Raw libvirt XML laid over the rendered domain: what the structured definition does not model.

The overlay is a ``<domain>`` element with anything in it that libvirt understands.  Rules:

1. An element of the overlay is laid over its partner: the element of the same tag, at the same place,
   with the same key (table ``KEYS``).  Its attributes and text replace the partner's, and its children are
   laid over the partner's children by the same rules.
2. A tag that has no key (``<cputune>``, ``<rng>``) has the only element of this tag as its partner.
   ``<hostdev>`` and other devices in ``REPEATED`` never have one: each is added.
3. An element without a partner is added.
4. ``pvc:lay="replace"`` on an element puts it in place of its partner, ``pvc:lay="remove"`` takes the
   partner away, ``pvc:lay="add"`` adds it whatever is there.  (``xmlns:pvc`` is ``NAMESPACE``.)
5. ``name``, ``uuid``, ``memory``, ``vcpu`` and the domain's type belong to the structured definition, because
   placement relies on them: an overlay with one of them is refused.
"""

import copy
from typing import Final
from xml.etree import ElementTree as ET

from pvc_core.model.errors import InvalidRequest

NAMESPACE: Final = "https://parallelvirtualcluster.org/xmlns/libvirt/1.0"
"""Namespace of PVC's own elements and attributes in a domain's XML."""

LAY: Final = f"{{{NAMESPACE}}}lay"

KEYS: Final[dict[str, tuple[str, ...]]] = {
    "disk": ("target@dev",),
    "interface": ("mac@address",),
    "controller": ("@type", "@index"),
    "channel": ("target@name",),
    "graphics": ("@type",),
    "input": ("@type", "@bus"),
    "filesystem": ("target@dir",),
    "feature": ("@name",),
    "timer": ("@name",),
    "vcpupin": ("@vcpu",),
    "iothreadpin": ("@iothread",),
    "cell": ("@id",),
    "boot": ("@dev", "@order"),
}
"""Tag -> where its key is: attributes of its own, or of a child."""

REPEATED: Final = frozenset({"hostdev", "redirdev", "shmem", "sound", "memory-device", "video", "serial", "console"})
"""Devices that a domain may have several of and that nothing names."""

RESERVED: Final = ("name", "uuid", "memory", "vcpu")

for _prefix, _uri in (("pvc", NAMESPACE), ("qemu", "http://libvirt.org/schemas/domain/qemu/1.0")):
    ET.register_namespace(_prefix, _uri)


def parse_xml(text: str, what: str) -> ET.Element:
    """Return the root of an XML text; raise InvalidRequest with line and column when it is not well-formed."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        # Entities can be made to expand without bound; libvirt's XML never needs them.
        raise InvalidRequest(f"{what} has a document type declaration, which is not accepted: remove it")
    try:
        return ET.fromstring(text)  # noqa: S314 - declarations were refused above
    except ET.ParseError as error:
        line, column = error.position
        reason = ET.ParseError.__str__(error).split(": line ")[0]
        raise InvalidRequest(f"{what} is not valid XML: line {line}, column {column + 1}: {reason}") from error


def check_overlay(text: str) -> None:
    """Raise InvalidRequest unless the text can be laid over a domain; an empty one can."""
    if text.strip():
        _parse_overlay(text)


def lay_over(domain: ET.Element, text: str) -> None:
    """Lay an overlay over a rendered domain, in place.  Raises InvalidRequest; an empty text does nothing."""
    if text.strip():
        _merge(domain, _parse_overlay(text))


def _parse_overlay(text: str) -> ET.Element:
    root = parse_xml(text, "the XML overlay")
    if root.tag != "domain":
        raise InvalidRequest(f"the XML overlay begins with <{root.tag}>; it must be one <domain> element")
    if "type" in root.attrib:
        raise InvalidRequest("the XML overlay sets the domain's type; use the field `accelerator` for that")
    for tag in RESERVED:
        if root.find(tag) is not None:
            raise InvalidRequest(f"the XML overlay has <{tag}>; set it by the VM's own field instead")
    for element in root.iter():
        mode = element.get(LAY)
        if mode not in (None, "replace", "remove", "add"):
            raise InvalidRequest(f'the XML overlay has pvc:lay="{mode}" at <{element.tag}>; use replace, remove or add')
    return root


def _merge(base: ET.Element, over: ET.Element) -> None:
    for name, value in over.attrib.items():
        if name != LAY:
            base.set(name, value)
    if over.text and over.text.strip():
        base.text = over.text
    for child in over:
        mode = child.get(LAY, "")
        partner = None if mode == "add" else _partner(base, child)
        if mode == "remove":
            if partner is not None:
                base.remove(partner)
        elif partner is None:
            base.append(_clean(child))
        elif mode == "replace":
            base[list(base).index(partner)] = _clean(child)
        else:
            _merge(partner, child)


def _clean(element: ET.Element) -> ET.Element:
    new = copy.deepcopy(element)
    for each in new.iter():
        each.attrib.pop(LAY, None)
    return new


def _partner(base: ET.Element, child: ET.Element) -> ET.Element | None:
    if child.tag in REPEATED:
        # Only an explicit replace or remove may take the one that is there.
        same = base.findall(child.tag) if child.get(LAY) else []
        return same[0] if len(same) == 1 else None
    same = base.findall(child.tag)
    if child.tag not in KEYS:
        return same[0] if len(same) == 1 else None
    key = _key(child)
    return next((e for e in same if _key(e) == key), None) if any(key) else None


def _key(element: ET.Element) -> tuple[str, ...]:
    values = []
    for place in KEYS[element.tag]:
        path, _, attribute = place.partition("@")
        found = element.find(path) if path else element
        values.append((found.get(attribute, "") if found is not None else "").lower())
    return tuple(values)
