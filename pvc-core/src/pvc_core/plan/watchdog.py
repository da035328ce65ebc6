"""When a node that armed a watchdog certainly runs nothing any more.

Terms.  A node *confirms* its lease by a transaction of the servers' majority that checks it; a confirmation is as old
as its *sending*, on the node's own clock.  The node *checks* whether its newest confirmation is less than ``F`` seconds
old, and only then *feeds* the watchdog, which resets the machine ``W`` seconds after it was last fed.

Invariant.  Let ``D = down_after(F, W)`` be declared for a lease.  From ``D`` seconds after the lease has ceased to exist,
whoever measures it, the node runs no guest, unless it has taken a newer lease meanwhile.

Proof.  Let the lease end at ``r``, and let no newer one have been taken up to the moment that is looked at.

1. A confirmation shows that the lease existed at some moment after its sending.  A lease that has ended never comes
   back: each taking raises the generation.  So every confirmation, whenever its answer comes, was sent before ``r``.
2. So every check that is passed is made before ``r + F``.
3. The watchdog was armed and fed before ``D`` was declared, so before ``r``, and is not disarmed while the declaration
   holds.  Later feedings are by one thread, each after its own check.  The process may be stopped between the two; but
   the feeding before that one came before the check, or before ``r``, so that by ``W`` after the later of these the
   machine is fed or reset.  So the last feeding is before ``r + F + W``.
4. Linux feeds once more by itself when a process dies that had the watchdog open (``watchdog_release`` in
   drivers/watchdog/watchdog_dev.c; seen with 6.1); that too is less than ``W`` after the last feeding: before
   ``r + F + 2W``.  A later daemon does not touch the watchdog before it has a lease, and that is a newer one.
5. So the machine is reset before ``r + F + 3W``.  ``DRIFT`` covers the rates of the three clocks (the node's, the
   watchdog's, the observer's), ``RESET_S`` the steps in which a watchdog counts and the reset itself.

What the observer owes: it counts from a moment at which it knew that the lease had ended, and uses the result in a
transaction that checks that no newer lease was taken.

Why the answers to pings do not confirm: a ZooKeeper server that is cut off from the others goes on answering its
clients until it notices (``syncLimit`` ticks), while the others count the session's time from what they last heard of it.
Answers have been seen 6 s after the others had ended the session (4 s long, 40 ticks of 250 ms).
"""

from typing import Final

DRIFT: Final = 0.01
"""Part by which clocks may differ from each other; quartz is a hundred times better."""
RESET_S: Final = 2.0
"""Time that a watchdog may take beyond its time-out: its resolution, and the reset."""

_FEEDS: Final = 5
"""Feedings that must all fail before a node is reset that has its lease."""
_LONGEST_S: Final = 1.0
_ASKS: Final = 4
"""Confirmations that must all fail before feeding ends."""


def down_after(feeding_s: float, timeout_s: float) -> float:
    """Return the seconds after the end of a node's lease by which its watchdog has certainly reset it.

    ``feeding_s`` is how old the newest confirmation may be for feeding (F), ``timeout_s`` the time-out that the
    watchdog itself reports (W).
    """
    return (feeding_s + 3 * timeout_s) * (1 + DRIFT) + RESET_S


def may_feed(now: float, confirmed: float | None, feeding_s: float) -> bool:
    """Return whether the watchdog may be fed: a check.

    ``now`` and ``confirmed`` are on the node's monotonic clock; ``confirmed`` is when the newest confirmation was
    sent, None while the node has no lease.
    """
    return confirmed is not None and now - confirmed < feeding_s


def feed_interval(timeout_s: float) -> float:
    """Return the seconds between two feedings."""
    return min(timeout_s / _FEEDS, _LONGEST_S)


def confirm_interval(feeding_s: float) -> float:
    """Return the seconds between two confirmations."""
    return feeding_s / _ASKS
