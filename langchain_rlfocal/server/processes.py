"""Processes: several that serve one address, looked after by the one that started them.

It answers a signal within a second, whatever its processes do: it waits for none of them while it looks whether they live.
"""

import logging
import time
from collections.abc import Callable
from socket import socket

from typing_extensions import override
from uvicorn.config import STARTUP_FAILURE, Config
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

_logger = logging.getLogger(__name__)


class Vigil:
    """Whether a process gives signs of life, asked without waiting for one.

    Args:
        process: The process, which may be starting.
        patience_s: Seconds that it may be silent.
        clock: Gives seconds.
    """

    def __init__(self, process: Process, patience_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.process = process
        self._patience_s, self._clock = patience_s, clock
        self._heard_s, self._is_asked = clock(), False

    def is_alive(self) -> bool:
        """Tell it, and ask again; one question at a time, so that no old answer stands for a new one."""
        if not self.process.process.is_alive():
            return False
        pipe = self.process.parent_conn
        try:
            if self._is_asked and pipe.poll():
                pipe.recv()
                self._is_asked, self._heard_s = False, self._clock()
            if not self._is_asked:
                pipe.send(b"ping")
                self._is_asked = True
        except (OSError, EOFError):
            return False
        return self._clock() - self._heard_s < self._patience_s


class Processes(Multiprocess):
    """uvicorn's supervisor, which looks without waiting: its own waits for each process as long as it may be silent, and hears no signal meanwhile.

    Attributes:
        has_failed: Whether it stopped because a process cannot start.
    """

    def __init__(self, config: Config, sockets: list[socket]) -> None:
        super().__init__(config, sockets)
        self.has_failed = False
        self._vigils: dict[Process, Vigil] = {}

    @override
    def keep_subprocess_alive(self) -> None:
        if self.should_exit.is_set():
            return
        patience_s = self.config.timeout_worker_healthcheck
        self._vigils = {process: self._vigils.get(process) or Vigil(process, patience_s) for process in self.processes}
        for index, process in enumerate(self.processes):
            if self._vigils[process].is_alive():
                continue
            process.kill()
            process.join()
            if process.exitcode == STARTUP_FAILURE:  # as it would every time
                _logger.error("A serving process cannot start, so that the server stops.")
                self.has_failed = True
                self.should_exit.set()
                return
            self.processes[index] = Process(self.config, self.sockets)
            self.processes[index].start()
