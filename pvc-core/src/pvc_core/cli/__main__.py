"""``python -m pvc_core.cli``: the same as ``pvc``."""

from pvc_core.cli.main import main

main()
