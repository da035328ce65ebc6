"""The units that a node's ``systemctl`` knows, one module per family; all of them: module ``known``."""
