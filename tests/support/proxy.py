"""A TCP proxy that can refuse, cut and stall: between rsync and a real sshd."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Proxy:
    """Forwards to a port; what it does with new and present connections can be changed at any time."""

    def __init__(self, to: int) -> None:
        self.to = to
        self.cut_after: int | None = None  #: bytes towards the server, then the connection breaks
        self.stalled = threading.Event()  #: connections are taken, and nothing goes through
        self.refusing = False
        self.seen = 0  #: connections so far
        self._open: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                self.seen += 1
                if self.refusing:
                    client.close()
                    continue
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self.to)) as server:
            self._open.append(server)
            back = threading.Thread(target=self._pump, args=(server, client, None), daemon=True)
            back.start()
            self._pump(client, server, self.cut_after)
            back.join()

    def _pump(self, source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                while self.stalled.is_set():
                    if self._server.fileno() < 0:
                        return
                    threading.Event().wait(0.05)
                passed += len(data)
                if limit is not None and passed > limit:
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Break every connection and take no more."""
        for sock in (self._server, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


@contextlib.contextmanager
def proxy(to: int) -> Iterator[Proxy]:
    """Run one until the block ends."""
    made = Proxy(to)
    try:
        yield made
    finally:
        made.close()
