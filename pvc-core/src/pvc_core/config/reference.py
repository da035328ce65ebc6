"""The reference of the configuration, made from the schemas: ``python -m pvc_core.config.reference > docs/configuration.md``."""

import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect as schema_of

from pvc_core.config.environment import CLIENT_FILE, NODE_FILE, VARIABLES
from pvc_core.config.sample import SAMPLE
from pvc_core.config.schema import ClientConfig, NodeConfig
from pvc_core.plugin.config import describe


class Setting(NamedTuple):
    """A key of a section."""

    key: str
    """With the keys around it: ``zookeeper.port``."""
    expected: str
    default: str
    """As YAML; empty: it must be given."""
    description: str


def settings(schema: type[Any], prefix: str = "") -> list[Setting]:
    """Return all settings of a section's schema, those of sections within it after them."""
    info = schema_of.type_info(schema)
    return list(_settings(info, prefix)) if isinstance(info, schema_of.StructType) else []


def _settings(info: schema_of.StructType, prefix: str) -> Iterator[Setting]:
    for field in info.fields:
        key = f"{prefix}{field.encode_name}"
        yield Setting(key, describe(field.type), _default(field), description(field.type))
        if (inner := _struct(field.type)) is not None:
            each = "[]." if isinstance(_plain(field.type), schema_of.VarTupleType | schema_of.ListType) else "."
            yield from _settings(inner, key + each)


def description(info: schema_of.Type) -> str:
    """Return the description that a field's ``Meta`` gives, empty when it gives none."""
    if isinstance(info, schema_of.Metadata):
        return str((info.extra_json_schema or {}).get("description", "")) or description(info.type)
    return ""


def _plain(info: schema_of.Type) -> schema_of.Type:
    while isinstance(info, schema_of.Metadata):
        info = info.type
    return info


def _struct(info: schema_of.Type) -> schema_of.StructType | None:
    match _plain(info):
        case schema_of.StructType() as found:
            return found
        case schema_of.UnionType(types):
            return next((struct for option in types if (struct := _struct(option)) is not None), None)
        case schema_of.VarTupleType(item) | schema_of.ListType(item) | schema_of.DictType(_, item):
            return _struct(item)
        case _:
            return None


def _default(field: schema_of.Field) -> str:
    if field.required:
        return ""
    value = field.default if field.default is not msgspec.NODEFAULT else None
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    if isinstance(value, msgspec.Struct):
        return "see below"
    return "none" if value is None else msgspec.json.encode(value, enc_hook=str).decode()


def table(rows: list[Setting]) -> list[str]:
    """Return settings as a Markdown table."""
    lines = ["| Key | Expected | Default | |", "|---|---|---|---|"]
    for row in rows:
        default = f"`{row.default}`" if row.default not in ("", "none", "see below") else row.default or "**required**"
        expected = row.expected.replace("|", r"\|")
        lines.append(f"| `{row.key}` | {expected} | {default} | {row.description.replace('|', chr(92) + '|')} |")
    return lines


def render() -> str:
    """Return the whole page."""
    lines = [
        "# Configuration",
        "",
        "<!-- Made by `python -m pvc_core.config.reference`: change the schemas, not this file. -->",
        "",
        f"A node reads `{NODE_FILE}`. The CLI reads `{CLIENT_FILE}`, or a node's file where it runs on a node. Both are",
        "YAML; `yes`, `on`, times and dates are plain text in them, and a key may stand only once.",
        "`pvc config check` finds every mistake without starting anything, and says file, line, key and what is expected:",
        "",
        "```",
        "pvcnoded.yml:12: cluster.zookeeper.prot: unknown key; did you mean 'port'?",
        "```",
        "",
        "A secret is never in these files: a key `..._file` names the file that holds it. That file must not be",
        "open to other users (mode 0600), and is read each time the secret is used.",
        "",
        "## pvcnoded.yml",
        "",
    ]
    lines += _sections(NodeConfig)
    lines += ["", "## pvc.yml", "", "For machines that are no nodes. The sections are those of a node's file.", ""]
    lines += table([row for row in settings(ClientConfig) if "." not in row.key])
    lines += ["", "## Environment", "", "| Variable | |", "|---|---|"]
    lines += [f"| `{name}` | {text} |" for name, text in VARIABLES.items()]
    lines += ["", "## Sample", "", "`pvc config sample` prints it.", "", "```yaml", SAMPLE.rstrip(), "```", ""]
    return "\n".join(lines)


def _sections(schema: type[Any]) -> Iterator[str]:
    rows = settings(schema)
    tops = [row for row in rows if "." not in row.key]
    for top in tops:
        yield f"### `{top.key}`"
        yield ""
        yield top.description
        yield ""
        inner = [row for row in rows if row.key.startswith(top.key + ".")]
        if inner:
            yield from table([row._replace(key=row.key.removeprefix(top.key + ".")) for row in inner])
            yield ""
    yield "What stands in a plugin's section is said by `pvc plugin show NAME`."


if __name__ == "__main__":
    sys.stdout.write(render())
