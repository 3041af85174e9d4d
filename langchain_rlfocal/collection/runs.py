"""Runs: who holds a claim, and whether whoever does can still be alive.

A run that is killed leaves its claims behind. On another machine they end with their lease; on this one the name tells that its
process is gone, and nobody has to wait.
"""

import os
import platform
import secrets
import sys
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path


def new_run() -> str:
    """Name a run of this process: `machine:pid:start:random`."""
    return f"{_machine()}:{os.getpid()}:{_started(os.getpid()) or ''}:{secrets.token_hex(4)}"


def is_dead(run: str) -> bool:
    """Tell whether a run has surely ended: its process was one of this machine, and is no more.

    False wherever that cannot be known, as of another machine, of another container, or of a name of another form.
    """
    try:
        machine, pid_text, started, _ = run.split(":")
        pid = int(pid_text)
    except ValueError:
        return False
    if machine != _machine() or sys.platform == "win32":  # there signal 0 is no question, it ends the process
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    now_started = _started(pid)
    return bool(started) and now_started is not None and now_started != started  # the number was given again


@cache
def _machine() -> str:
    """Name this machine since its last start, and the namespace of its process numbers; containers can share a host's name."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return blake2b("\n".join(parts).encode("utf-8", "replace"), digest_size=8).hexdigest()


def _started(pid: int) -> str | None:
    """When a process was started, in ticks since the machine was; None where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return fields[19]
