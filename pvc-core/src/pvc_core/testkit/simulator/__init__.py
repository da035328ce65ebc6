"""Whole clusters in one process, on a virtual clock, under seeded faults.

The code under test is the daemon's own: agent, work queue, lease, reconcilers, plans, operations.  Only
the state store, the hypervisors and the drivers are the in-memory ones.  One seed gives one run.
"""
