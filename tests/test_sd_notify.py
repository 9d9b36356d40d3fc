"""sd_notify over real sockets."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from dittohead.system import sd_notify


@pytest.mark.parametrize("abstract", [False, True])
def test_each_message_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    """By a path and by an abstract name."""
    name = f"@dittohead-test-{os.getpid()}" if abstract else str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind("\0" + name[1:] if abstract else name)
        server.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        sd_notify.ready()
        sd_notify.status("2 running\nx")
        sd_notify.watchdog()
        sd_notify.stopping()
        sd_notify.extend_timeout(1.5)
        sd_notify.reloading()
        said = [server.recv(1000) for _ in range(6)]
    assert said[:5] == [
        b"READY=1",
        b"STATUS=2 running x",
        b"WATCHDOG=1",
        b"STOPPING=1",
        b"EXTEND_TIMEOUT_USEC=1500000",
    ]
    assert said[5].startswith(b"RELOADING=1\nMONOTONIC_USEC=")


def test_without_a_socket_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every daemon is run by systemd."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    sd_notify.ready()
    monkeypatch.setenv("NOTIFY_SOCKET", "/no/such/socket")
    sd_notify.ready()


@pytest.mark.parametrize(
    ("usec", "pid", "wanted"),
    [
        ("120000000", None, 120.0),
        ("1500000", "ours", 1.5),
        ("120000000", "1", None),  # meant for another process
        (None, None, None),
        ("0", None, None),
        ("soon", None, None),
    ],
)
def test_the_watchdogs_interval_is_what_systemd_asks_of_this_process(
    monkeypatch: pytest.MonkeyPatch, usec: str | None, pid: str | None, wanted: float | None
) -> None:
    """Nothing when it does not listen, or listens to another."""
    given = {"WATCHDOG_USEC": usec, "WATCHDOG_PID": str(os.getpid()) if pid == "ours" else pid}
    for key, value in given.items():
        if value is not None:
            monkeypatch.setenv(key, value)
    assert sd_notify.watchdog_interval_s() == wanted


def test_a_manager_that_reads_nothing_holds_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its socket is full some messages later; those on top are lost, and nothing waits for it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "s"))
        server.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "s"))
        for _ in range(2000):
            sd_notify.status("x" * 1000)
        assert server.recv(2000).startswith(b"STATUS=")
