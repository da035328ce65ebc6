"""Pure decisions: given a snapshot and the time they return actions.  No I/O, no clock, no logging."""
