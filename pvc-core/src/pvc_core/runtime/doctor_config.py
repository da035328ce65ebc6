"""The doctor's rules about a plugin's configuration schema."""

from collections.abc import Iterator

import msgspec
from msgspec import inspect as schema_of

from pvc_core.config.reference import Setting, settings
from pvc_core.plugin.config import SECRET_FILE, sensitive
from pvc_core.plugin.manifest import Manifest
from pvc_core.runtime.discover import PluginFailure
from pvc_core.runtime.load import schema


def config_problems(manifest: Manifest) -> Iterator[str]:
    """Check that the section's schema is a frozen struct whose fields are described and whose secrets are files."""
    try:
        section = schema(manifest)
    except PluginFailure as error:
        yield f"{manifest.config}: {error}"
        return
    if section is None:
        return
    if not issubclass(section, msgspec.Struct):
        yield f"{manifest.config} is not a msgspec struct"
        return
    if not section.__struct_config__.frozen:
        yield f"{manifest.config} is not frozen: configuration does not change while the daemon runs"
    try:
        schema_of.type_info(section)
    except TypeError as error:
        yield f"{manifest.config} cannot be decoded: {error}"
        return
    for setting in settings(section):
        yield from _setting_problems(setting)


def _setting_problems(setting: Setting) -> Iterator[str]:
    name = setting.key.rpartition(".")[2]
    if not setting.description:
        yield f"the setting {setting.key!r} has no description: Annotated[..., Meta(description=...)]"
    is_secret = SECRET_FILE in setting.expected
    if sensitive(name) and not is_secret:
        yield f"the setting {setting.key!r} looks like a secret: call it {name + '_file'!r} and give it the type Secret"
    if is_secret and not name.endswith("_file"):
        yield f"the setting {setting.key!r} names a file with a secret: call it {name + '_file'!r}"
