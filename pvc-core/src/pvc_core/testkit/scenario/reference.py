"""The tables of docs/scenarios.md, made from the schema: ``python -m pvc_core.testkit.scenario.reference docs/scenarios.md``.

It replaces what stands between the two marks in that file.
"""

import sys
from pathlib import Path
from typing import Any, Final

from pvc_core.config.reference import settings, table
from pvc_core.testkit.scenario.schema import Command, Expectation, Never, NodeEntry, Scenario, Settings, VmEntry
from pvc_core.testkit.scenario.verbs import VERBS

BEGIN: Final = "<!-- made by `python -m pvc_core.testkit.scenario.reference docs/scenarios.md` -->"
END: Final = "<!-- end of what is made -->"

_TABLES: Final[tuple[tuple[str, str, type[Any]], ...]] = (
    ("The file", "", Scenario),
    ("`nodes`", "The first coordinator is primary at the beginning.", NodeEntry),
    ("`vms`", "", VmEntry),
    ("`settings`", "", Settings),
    ("`commands`", "Each has `at` or `when`.", Command),
    (
        "`expect`",
        "One of `at`, `within` and `from`; about a `vm`, a `node`, or (with `problem`) the cluster. All of it must be true.",
        Expectation,
    ),
    ("`never`", "About a `vm` or a `node`; none of what else it says may happen.", Never),
)


def render() -> str:
    """Return the tables."""
    lines: list[str] = []
    for title, text, schema in _TABLES:
        lines += [f"### {title}", ""]
        lines += [text, ""] if text else []
        lines += table([setting for setting in settings(schema) if "." not in setting.key])
        lines.append("")
    lines += [
        "### What `do` takes",
        "",
        "`NODES`: one or several, with commas; `VM`: one, or the name of several. With `for` it passes by itself.",
        "",
        "| Command | |",
        "|---|---|",
    ]
    lines += [f"| `{verb.usage.replace('|', chr(92) + '|')}` | {verb.help} |" for verb in VERBS.values()]
    return "\n".join(lines) + "\n"


def replaced(page: str) -> str:
    """Return the page with the tables of today between the marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{render()}\n{END}{after}"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(replaced(target.read_text(encoding="utf-8")), encoding="utf-8")
