"""A Ray cluster: workers are actors, on one machine or on many. Ray is imported when an engine is made.

A cluster that the engine starts itself is of this machine alone, takes nobody in without its token, and reports no usage.
"""

import importlib
import os
import pickle
import secrets
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from langchain_rlfocal._version import __version__
from langchain_rlfocal.engines.base import (
    Begin,
    Died,
    Done,
    Handle,
    Item,
    Outcome,
    Ready,
    Value,
    attempted,
    hand_out,
    untold,
)
from langchain_rlfocal.errors import InputError, MissingDependencyError, WorkerError

START_S = 300.0
"""How long at most no worker at all may be ready: a cluster may have to start machines."""

STORE_BYTES = 128 * 2**20
"""Memory for objects of a cluster that the engine starts: what travels here is small."""

_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


class RayEngine:
    """Works on a Ray cluster.

    Args:
        address: Where the cluster is, as in `ray.init`: `"auto"` for the one that this machine belongs to. None for the one that the
            program is connected to already, else that of `RAY_ADDRESS`, which jobs are given, else one of this machine alone,
            which ends with the engine.
        workers: How many work at the same time; by default one for each CPU of the cluster.
        cpus_per_worker: CPUs that each takes of the cluster; a fraction lets more of them wait for the network on one CPU.

    Raises:
        InputError: A number is outside its range.
        MissingDependencyError: Ray is not installed.
        WorkerError: The cluster cannot be reached.

    Attributes:
        workers: How many work at the same time.
        machines: How many machines the cluster has.
    """

    def __init__(self, address: str | None = None, *, workers: int | None = None, cpus_per_worker: float = 1.0) -> None:
        if workers is not None and workers < 1:
            raise InputError(f"`workers` must be at least 1, got {workers}.")
        if not 0 < cpus_per_worker < float("inf"):
            raise InputError(f"`cpus_per_worker` must be above 0, got {cpus_per_worker}.")
        address = address or os.environ.get("RAY_ADDRESS")
        self._ray = _import_ray(is_for_this_machine=address is None)
        self._cpus_per_worker = cpus_per_worker
        self._kept: list[Any] = []
        self._is_own = not self._ray.is_initialized()
        if self._is_own:
            self._connect(address, workers)
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        cpus = sum(node["Resources"].get("CPU", 0.0) for node in nodes)
        self.machines = len(nodes)
        self.workers = workers or max(int(cpus / cpus_per_worker), 1)

    def _connect(self, address: str | None, workers: int | None) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}
        try:
            if address is not None:
                self._ray.init(address=address, **quiet)
                return
            cpus = max(os.cpu_count() or 1, -(-(workers or 1) * self._cpus_per_worker // 1))
            self._ray.init(
                address="local",
                num_cpus=int(cpus),
                include_dashboard=False,
                object_store_memory=STORE_BYTES,
                _node_ip_address="127.0.0.1",
                **quiet,
            )
        except (OSError, RuntimeError, ValueError) as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise WorkerError(
                f"A Ray cluster of this machine cannot be started: {said}. Free memory, or use the engine `local`."
                if address is None
                else f"The address must be that of a Ray cluster that can be reached, got {address!r:.80}: {said}. Start one "
                "(`ray start --head`), or leave the address out for one of this machine."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def share(self, value: object) -> Handle:
        """Keep an object in an actor beside the caller, with whose machine it ends."""
        here = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy(
            self._ray.get_runtime_context().get_node_id(), soft=False
        )
        actor = self._ray.remote(_Keeper).options(num_cpus=0, scheduling_strategy=here).remote(_packed(value), sys.path)
        self._kept.append(actor)
        return _RayHandle(actor)

    def map(
        self,
        begin: Begin[Item, Value],
        items: Iterable[Item],
        *,
        on_wait: Callable[[], None] | None = None,
        on_death: Callable[[Item, str], None] | None = None,
    ) -> Generator[Done[Item, Value]]:
        """Have every piece worked on by an actor; see `Engine.map`."""
        crew = _Actors(self._ray, begin, cpus=self._cpus_per_worker)
        yield from hand_out(crew, items, workers=self.workers, on_wait=on_wait, on_death=on_death)

    def close(self) -> None:
        """End what is kept, and the connection where the engine made it."""
        for actor in self._kept:
            self._ray.kill(actor)
        self._kept.clear()
        if self._is_own and self._ray.is_initialized():
            self._ray.shutdown()


def _import_ray(*, is_for_this_machine: bool) -> Any:
    """Import Ray, which reads its settings from the environment at that moment, and once."""
    settings = dict(_SETTINGS)
    if is_for_this_machine and "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
        # Ray's ports are open to the network.
        settings |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    new = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(new)
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        for name in new:
            del os.environ[name]
        raise MissingDependencyError(
            "The engine `ray` needs Ray, which is not installed: `pip install 'langchain-rlfocal[ray]'`."
        ) from error


def _packed(what: object) -> bytes:
    packed: bytes = importlib.import_module("ray.cloudpickle").dumps(what)
    return packed


def _unpacked(packed: bytes, paths: Sequence[str]) -> Any:
    """Read what the caller packed, with the modules of its own that it sees."""
    sys.path += [path for path in paths if path not in sys.path and Path(path).is_dir()]
    return pickle.loads(packed)  # noqa: S301  # of who started this worker


class _Keeper:
    """Keeps an object in an actor."""

    def __init__(self, packed: bytes, paths: Sequence[str]) -> None:
        self._value = _unpacked(packed, paths)

    def call(self, method: str, args: tuple[Any, ...]) -> Outcome:
        return attempted(lambda: getattr(self._value, method)(*args))


class _RayHandle:
    """A handle on an object in an actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def call(self, method: str, *args: Any) -> Any:
        done: Outcome = importlib.import_module("ray").get(self._actor.call.remote(method, args))
        return _value_of(done)

    async def acall(self, method: str, *args: Any) -> Any:
        return _value_of(await self._actor.call.remote(method, args))


def _value_of(done: Outcome) -> Any:
    if done.error is not None:
        raise done.error
    return done.value


# ---- workers


class _Actors:
    """Starts workers, and hears of them."""

    def __init__(self, ray: Any, begin: Begin[Any, Any], *, cpus: float) -> None:
        # Handed over once, not to every worker.
        self._ray, self._begin = ray, ray.put(_packed(begin))
        self._make = ray.remote(_Actor).options(num_cpus=cpus, max_restarts=0, scheduling_strategy="SPREAD")
        self._waited_s = 0.0

    def start(self) -> "_RayWorker":
        return _RayWorker(self._ray, self._make.remote(), self._begin)

    def wait(
        self, workers: Sequence["_RayWorker"], timeout_s: float
    ) -> list[tuple["_RayWorker", Ready | Outcome | Died]]:
        by_ref = {worker.ref: worker for worker in workers if worker.ref is not None}
        done, _ = self._ray.wait([*by_ref], num_returns=1, timeout=timeout_s)
        if done:
            self._waited_s = 0.0
        elif not any(worker.has_begun for worker in workers):
            self._waited_s += timeout_s
            if self._waited_s > START_S:
                raise WorkerError(
                    f"No worker could begin within {START_S:g} s: the cluster has {self._ray.cluster_resources().get('CPU', 0):g} CPUs, of which "
                    f"{self._ray.available_resources().get('CPU', 0):g} are free. Start fewer workers, or ask fewer CPUs for each."
                )
        return [(by_ref[ref], by_ref[ref].heard(ref)) for ref in done]


class _RayWorker:
    """One worker's actor."""

    def __init__(self, ray: Any, actor: Any, begin: Any) -> None:
        self._ray, self._actor = ray, actor
        self.has_begun = False
        self.ref: Any = actor.begin.remote(begin, __version__, sys.path)

    def give(self, item: Any) -> None:
        self.ref = self._actor.work.remote(item)

    def end(self) -> None:
        self._ray.kill(self._actor)

    def heard(self, ref: Any) -> Ready | Outcome | Died:
        self.ref = None
        try:
            done: Outcome = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:  # all that the work raises is a value
            return Outcome(error=untold(error.cause))
        except self._ray.exceptions.RayError as error:
            return Died(str(error).strip().splitlines()[0].rstrip("."))
        if self.has_begun or done.error is not None:
            return done
        self.has_begun = True
        return Ready()


class _Actor:
    """What runs in an actor."""

    def begin(self, begin: bytes, version: str, paths: Sequence[str]) -> Outcome:
        """Begin, if this is the same release, and modules that the caller sees are here too."""
        if version != __version__:
            error = f"Workers must run the release of their caller, {version}, got {__version__}. Install the same on each machine."
            return Outcome(error=WorkerError(error))
        try:
            opened: Begin[Any, Any] = _unpacked(begin, paths)
        except (ImportError, AttributeError) as error:
            said = (
                f"A worker cannot read what it is given: {error}. Install the same packages on each machine, and put modules of your own "
                "where workers find them (`ray job submit --working-dir .`)."
            )
            return Outcome(error=WorkerError(said))
        done = attempted(opened)
        if done.error is None:
            self._work = done.value
            return Outcome()
        return done

    def work(self, item: Any) -> Outcome:
        """Work on a piece."""
        return attempted(lambda: self._work(item))
