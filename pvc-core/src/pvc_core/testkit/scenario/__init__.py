"""Scenario files: failures at stated times against a simulated cluster, and what must come of them.

Run by ``pvc simulate``; the format is described in docs/scenarios.md.
"""
