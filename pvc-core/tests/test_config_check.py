"""``pvc config check``: everything that is wrong, plugins' sections included, without starting anything."""

import sys
from collections.abc import Iterator

import pytest

from pvc_core.runtime.check import check_config
from pvc_core.testkit.distributions import Site

BASE = """\
cluster:
  coordinators:
    - {name: node1, address: 10.0.0.1}
node:
  name: node1
  address: 10.0.0.1
plugins:
"""

MANIFEST = """
    from typing import Annotated
    import msgspec
    from pvc_core.plugin import HOOK_API, Manifest, Secret

    class Login(msgspec.Struct, frozen=True):
        password_file: Secret

    class Config(msgspec.Struct, frozen=True):
        device: str
        logins: tuple[Login, ...] = ()

    MANIFEST = Manifest(name="acme", summary="", api=HOOK_API, network=("acme",), config="plug_acme.manifest:Config")
"""


@pytest.fixture
def site(tmp_path) -> Iterator[Site]:
    with Site(tmp_path) as site:
        site.plugin("acme")
        site.module("plug_acme.manifest", MANIFEST)
        yield site


@pytest.fixture
def check(tmp_path):
    def check(text: str) -> list[str]:
        file = tmp_path / "pvcnoded.yml"
        file.write_text(text)
        return [line.replace(str(file), "FILE") for line in check_config(str(file), {})]

    return check


def test_a_good_file_has_no_problems_and_no_driver_is_imported(site, check):
    assert check(BASE + "  acme:\n    device: eth0\n") == []
    assert "plug_acme.driver" not in sys.modules


def test_all_problems_are_told_at_once(site, check):
    text = BASE.replace("node1, address: 10.0.0.1}", "node1, address: 10.0.0.1, port: 3}") + (
        "  acme:\n    devise: eth0\n  nothing:\ntimng: {}\n"
    )
    assert check(text) == [
        "FILE:3: cluster.coordinators[0].port: unknown key; known keys: name, address",
        "FILE:11: timng: unknown key; did you mean 'timing'?",
        "FILE:8: plugins.acme: the key 'device' is missing: expected text",
        "FILE:9: plugins.acme.devise: unknown key; did you mean 'device'?",
        "FILE:10: plugins.nothing: discover: no distribution offers a plugin named 'nothing'; installed: "
        + check(BASE + "  nothing:\n")[0].partition("installed: ")[2],
    ]


def test_secrets_are_read(site, check, tmp_path):
    (tmp_path / "open").write_text("x")
    (tmp_path / "open").chmod(0o644)
    text = f"{BASE}  acme:\n    device: eth0\n    logins:\n      - password_file: {tmp_path}/open\n      - password_file: /no\n"
    first, second = check(text)
    assert first.startswith("FILE:11: plugins.acme.logins[0].password_file: the secret in ")
    assert "chmod 0600" in first
    assert (
        second
        == "FILE:12: plugins.acme.logins[1].password_file: cannot read the secret in /no: No such file or directory"
    )


def test_a_plugin_for_another_core(site, check):
    site.plugin("new", api="(9, 9)")
    [problem] = check(BASE + "  new:\n")
    assert problem.startswith("FILE:8: plugins.new: gate: pvc-new 1.0: it is written for hook API 9.9")


def test_a_file_that_is_no_yaml(check):
    [problem] = check("a: [1, 2\n")
    assert problem.startswith("FILE:2: this is not valid YAML")


def test_a_missing_file(tmp_path):
    assert check_config(str(tmp_path / "no.yml"), {}) == [
        f"cannot read the configuration {tmp_path}/no.yml: No such file or directory"
    ]
