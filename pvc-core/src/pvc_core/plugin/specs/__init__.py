"""Hook specifications, one module per kind.

A driver specification is an abstract base class and a pluggy specification at once: Python refuses an
incomplete driver, pluggy one whose arguments are wrong, mypy one whose types are.
"""
