"""One table that CLI, API and Python are faces of."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
import typing

import msgspec
import pytest

from pvc_core import ops as package
from pvc_core.model.errors import NotFound
from pvc_core.ops import table
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request, decode_request


def operations():
    """Find every public function of the package that takes a request."""
    for module_info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"pvc_core.ops.{module_info.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ != module.__name__ or name.startswith("_"):
                continue
            hints = typing.get_type_hints(function)
            if "request" in hints and isinstance(hints["request"], type) and issubclass(hints["request"], Request):
                yield name, function


def test_every_operation_is_in_the_table_once():
    targets = [table.lookup(name).run for name in table.names()]
    assert len(set(targets)) == len(targets)
    helpers = {"new_task", "begin", "volume_import_node"}  # parts of what is asked for
    assert {name for name, _ in operations()} - helpers == {target.__name__ for target in targets}


@pytest.mark.parametrize("name", table.names())
def test_operation_is_complete(name):
    operation = table.lookup(name)
    first = next(iter(inspect.signature(operation.run).parameters.values()))
    assert first.annotation in (Ops, "Ops")
    assert issubclass(operation.request, Request)
    assert operation.request.__struct_config__.forbid_unknown_fields
    assert operation.summary.endswith(".") or operation.summary.endswith(":")
    group, _, verb = name.partition(".")
    assert operation.run.__name__ == f"{group}_{verb.replace('-', '_')}"
    # Both halves have a JSON Schema, so they can be documented and checked.
    assert msgspec.json.schema(operation.request)["$ref"]
    assert msgspec.json.schema(operation.response)


def test_reading_operations_are_told_apart():
    reading = {name for name in table.names() if not table.lookup(name).changes}
    assert {"vm.list", "vm.info", "vm.dump", "cluster.status", "node.list", "task.info", "primary.info"} <= reading
    assert not {name for name in reading if name.endswith((".define", ".remove", ".start", ".add"))}


def test_unknown_operation():
    with pytest.raises(NotFound, match=r"no operation named 'vm\.strat'; did you mean 'vm\.start'"):
        table.lookup("vm.strat")


def test_operation_from_plain_data_to_plain_data(small):
    define = table.lookup("vm.define")
    view = define.run(small.ops, decode_request(define.request, {"name": "web", "memory": "1G"}))
    listed = table.lookup("vm.list")
    plain = msgspec.json.decode(msgspec.json.encode(listed.run(small.ops, listed.request())))
    assert plain[0]["name"] == "web"
    assert msgspec.convert(plain, listed.response) == [view]


def test_lookup_imports_only_its_own_part():
    code = (
        "import sys; from pvc_core.ops import table; assert len(table.names()) > 60; "
        "before = {m for m in sys.modules if m.startswith('pvc_core.ops.')}; "
        "assert before <= {'pvc_core.ops.table', 'pvc_core.ops.context'}, before; "
        "table.lookup('vm.list'); "
        "assert not {'pvc_core.ops.volume', 'pvc_core.ops.wait', 'kazoo', 'libvirt', 'pluggy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
