"""Scenario files: a cluster, what befalls it at which time, and what must come of it, run in the simulator."""
