"""The daemon pvcnoded."""
