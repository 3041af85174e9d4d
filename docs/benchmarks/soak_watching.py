"""What the soak sees of an answer, and what its process holds before and after; see `soak.py`."""

import asyncio
import gc
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler


class Watch(BaseCallbackHandler):
    """Sees how long one answer takes, and what came of each member, also where the answer is an error."""

    run_inline = True  # on the event loop itself: no thread of LangChain's shall be counted

    def __init__(self) -> None:
        self.results: list[dict[str, Any]] = []
        self.began_s = self.ended_s = 0.0

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        """Start the clock."""
        del args, kwargs
        self.began_s = time.perf_counter()

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        """Stop the clock."""
        del args, kwargs
        self.ended_s = time.perf_counter()

    def on_llm_error(self, *args: Any, **kwargs: Any) -> None:
        """Stop the clock."""
        self.on_llm_end(*args, **kwargs)

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        """Take a member's result."""
        del kwargs
        if name == "rlfocal_candidate":
            self.results.append(data)


@dataclass(frozen=True, slots=True)
class Traces:
    """What a process holds."""

    sockets: int
    tasks: int
    threads: int
    blocks: int
    rss_mb: float

    @classmethod
    def now(cls) -> "Traces":
        """Look, once garbage is collected."""
        gc.collect()
        try:
            tasks = len(asyncio.all_tasks())
        except RuntimeError:  # no loop runs
            tasks = 0
        status = Path("/proc/self/status").read_text()
        [rss_kb] = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        links = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        sockets = sum(str(link).startswith("socket:") for link in links)
        return cls(sockets, tasks, threading.active_count(), sys.getallocatedblocks(), rss_kb / 1024)
