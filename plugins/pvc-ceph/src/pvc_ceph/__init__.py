"""Replicated block storage on Ceph (RBD) for PVC."""
