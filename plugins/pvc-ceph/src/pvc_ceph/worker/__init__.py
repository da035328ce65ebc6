"""The process that uses librados and librbd: ``python -m pvc_ceph.worker``, started by ``pvc_ceph.workers``."""
