"""The node's configuration file, ``pvcnoded.yml``."""
