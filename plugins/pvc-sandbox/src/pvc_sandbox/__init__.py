"""A whole real PVC cluster on one machine: every node is a set of namespaces with its own daemons.

Light on purpose: the ``pvc`` command and the first process of every simulated node import this package.
"""
