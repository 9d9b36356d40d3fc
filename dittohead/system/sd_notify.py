"""Tell systemd how we are: sd_notify over $NOTIFY_SOCKET; does nothing without one.

Source: sd_notify(3); the reload protocol of Type=notify-reload, which older versions ignore.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time


def _send(*lines: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    # A manager that reads nothing fills its socket: what we tell it is then lost, and nothing waits for it.
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as sock:
        sock.connect(address)
        sock.sendall("\n".join(lines).encode())


def ready() -> None:
    """Say that start-up, or a reload, is complete."""
    _send("READY=1")


def status(text: str) -> None:
    """Say in one line what goes on, for `systemctl status`."""
    _send("STATUS=" + text.replace("\n", " "))


def stopping() -> None:
    """Say that a stop has begun."""
    _send("STOPPING=1")


def reloading() -> None:
    """Say that a reload has begun; `ready` ends it."""
    microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    _send("RELOADING=1", f"MONOTONIC_USEC={microseconds}")


def watchdog() -> None:
    """Say that we are alive; to be called after real work, never from a timer of its own."""
    _send("WATCHDOG=1")


def watchdog_interval_s() -> float | None:
    """Return within how many seconds systemd wants to hear `watchdog`; None when it does not listen.

    Source: sd_watchdog_enabled(3): $WATCHDOG_PID, when set, names the one process that is meant.
    """
    try:
        microseconds = int(os.environ.get("WATCHDOG_USEC", ""))
        meant = int(os.environ.get("WATCHDOG_PID", os.getpid()))
    except ValueError:
        return None
    return microseconds / 1_000_000 if microseconds > 0 and meant == os.getpid() else None


def extend_timeout(seconds: float) -> None:
    """Ask for more time to start or stop, counted from now."""
    _send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")
