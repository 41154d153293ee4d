"""HTTP/1.1 for strangers: uvicorn's h11 protocol, which bounds what a request's head may hold, and a bound on the time that it may take.

uvicorn 0.54 waits for ever for a head that never ends, so that a few thousand idle connections leave no descriptor for anybody else. h11 is named
rather than left to "auto": where httptools happens to be installed uvicorn takes that, and its heads have no limit at all.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 15.0
"""within which a connection must have sent its request's head"""


class PatientProtocol(H11Protocol):
    """Closes a connection whose head does not come in time; how long a body may take is the application's to say."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self._head is None:  # the next request on this connection has begun
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        self._head = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _give_up(self) -> None:
        self._head = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()
