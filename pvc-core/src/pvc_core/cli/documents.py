"""Definitions of VMs as files: YAML documents, with errors that name file, line and key, or libvirt XML."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from pvc_core.config.source import parse_all
from pvc_core.model.errors import InvalidRequest
from pvc_core.ops.vm_definition import VmDefine
from pvc_core.plugin.config import InvalidSection, decode
from pvc_core.plugin.errors import ConfigError


class Text(NamedTuple):
    """A text and what it is called in messages."""

    name: str
    text: str


def read_text(path: str) -> Text:
    """Return a file's text, or that of standard input for ``-``.  Raises InvalidRequest."""
    try:
        if path == "-":
            return Text("standard input", sys.stdin.read())
        return Text(path, Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def definitions(source: Text, note: Callable[[str], None] = lambda _: None) -> list[VmDefine]:
    """Return the VMs that a text defines: one or more YAML documents, or one libvirt XML domain.

    ``note`` is told what of an XML domain was left out or changed.  Raises ConfigError with file, line and key of everything that is wrong; then none of it is to be used.
    """
    if source.text.lstrip().startswith("<"):
        from pvc_core.hypervisor.xmlimport import vm_from_xml

        imported = vm_from_xml(source.text, source.name)
        for text in imported.notes:
            note(text)
        try:
            return [msgspec.convert(imported.definition, VmDefine)]
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"{source.name}: {error}") from error
    found, wrong = [], []
    for document in parse_all(source.text, source.name):
        try:
            found.append(decode(document.value, VmDefine))
        except InvalidSection as error:
            wrong += document.problems(error)
    if wrong:
        raise ConfigError("\n".join(wrong))
    if not found:
        raise ConfigError(f"{source.name} defines no VM: it is empty")
    return found


def definition(source: Text, note: Callable[[str], None] = lambda _: None) -> VmDefine:
    """Return the one VM that a text defines; see ``definitions``.  Raises ConfigError."""
    found = definitions(source, note)
    if len(found) > 1:
        raise ConfigError(f"{source.name} defines {len(found)} VMs: expected one")
    return found[0]
