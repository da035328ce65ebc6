"""The hook API: what is exported, what is documented, and that it does not change unnoticed."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pvc_core.plugin
from pvc_core.plugin.version import HOOK_API, incompatibility
from pvc_core.runtime import signatures
from pvc_core.runtime.hooks import DEADLINES, TASK_S, hooks
from pvc_core.runtime.reference import BEGIN, END, failure, render, replace
from pvc_core.runtime.signatures import ApiChanged, hook_api, signature, write

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "plugins.md"


def test_hooks_are_those_of_the_golden_file():
    golden = (HERE / "hook_api.txt").read_text()
    assert hook_api() == golden, (
        "the hook API changed: raise HOOK_API in pvc_core/plugin/version.py if the change is to be released, "
        "then run python -m pvc_core.runtime.signatures pvc-core/tests/hook_api.txt"
    )


def test_the_golden_file_is_not_rewritten_without_a_new_version(tmp_path, monkeypatch):
    file = tmp_path / "hook_api.txt"
    write(file)
    write(file)
    file.write_text(file.read_text().replace("size_bytes: int", "size_mib: int"))
    with pytest.raises(ApiChanged, match="raise HOOK_API"):
        write(file)
    newer = hook_api((HOOK_API[0], HOOK_API[1] + 1))
    monkeypatch.setattr(signatures, "hook_api", lambda: newer)
    write(file)
    assert file.read_text() == newer


def test_every_hook_has_a_deadline_and_every_deadline_a_hook():
    assert set(DEADLINES) == set(hooks())


def test_deadlines_in_docstrings_are_those_of_the_table():
    for hook in hooks().values():
        said = re.search(r"Deadline (\d+) s", inspect.getdoc(getattr(hook.spec, hook.name)) or "")
        if said:
            assert float(said[1]) == hook.deadline_s, hook.name
        elif hook.kind == "driver" and hook.name != "selector_score":
            assert hook.deadline_s == TASK_S, f"{hook.name}: its docstring gives no deadline"


def test_hook_reference_is_current():
    page = PAGE.read_text()
    assert replace(page) == page, "run python -m pvc_core.runtime.reference docs/plugins.md"


def test_every_hook_has_a_section_with_all_that_must_be_known():
    page = PAGE.read_text()
    reference = page[page.index(BEGIN) : page.index(END)]
    for hook in hooks().values():
        section = reference.split(f"#### `{signature(hook)}`\n", 1)[1].split("\n#### ", 1)[0]
        for needed in ("- Kind: ", "- Thread: ", "- Deadline: ", f"- An exception: {failure(hook)}"):
            assert needed in section, (hook.name, needed)
        assert len(section.split("- Kind", 1)[0].strip()) > 20, f"{hook.name} has no description"


def test_hook_reference_needs_its_marks():
    assert render().startswith(BEGIN)
    with pytest.raises(ValueError, match="the page has no"):
        replace("# A page without marks\n")


def test_every_exported_name_exists_and_is_listed():
    exported = {name for names in pvc_core.plugin._HOME.values() for name in names}
    assert exported == set(pvc_core.plugin.__all__)
    for name in exported:
        assert getattr(pvc_core.plugin, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        pvc_core.plugin.nothing  # noqa: B018
    assert exported <= set(dir(pvc_core.plugin))


def test_a_manifest_is_light_to_import():
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from pvc_core.plugin import Manifest, CommandSpec, HOOK_API; print(*sys.modules)",
        ],
        capture_output=True,
        check=True,
        text=True,
    )
    core = {name for name in said.stdout.split() if name.startswith("pvc_core")}
    assert core == {"pvc_core", "pvc_core.plugin", "pvc_core.plugin.manifest", "pvc_core.plugin.version"}
    assert "pluggy" not in said.stdout.split()


@pytest.mark.parametrize(
    ("plugin", "host", "works"),
    [
        ((1, 0), (1, 0), True),
        ((1, 0), (1, 3), True),
        ((1, 4), (1, 3), False),
        ((2, 0), (1, 3), False),
        ((1, 0), (2, 0), False),
    ],
)
def test_versions_work_together_within_a_major_version(plugin, host, works):
    assert (incompatibility(plugin, host) is None) == works
