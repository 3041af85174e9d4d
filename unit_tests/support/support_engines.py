"""Pieces of work for engines, where workers of other processes can import them."""

import json
import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

from langchain_rlfocal.engines import Done


class Count:
    """Counts, for the caller and all workers."""

    def __init__(self):
        self.names = []

    def add(self, name):
        self.names.append(name)
        return len(self.names)

    def all(self):
        return self.names

    def refuse(self):
        raise ValueError("no")


def squares():
    return square


def square(number):
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number * number, os.getpid()


def counts(handle):
    return partial(count, handle)


def count(handle, name):
    return handle.call("add", name)


def asks_what_raises(handle):
    return lambda _: handle.call("refuse")


def dies_once(folder):
    return partial(die_once, folder)


def die_once(folder, name):
    """Killed at the first try of each piece, as by the kernel."""
    path = Path(folder) / name
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return name


def dies():
    return die


def die(_name):
    os.kill(os.getpid(), signal.SIGKILL)


def dies_at_birth():
    os._exit(7)


def cannot_begin():
    raise ValueError("nothing to begin with")


class OddError(Exception):
    def __init__(self, *, what):
        super().__init__(f"odd: {what}")


def raises_odd():
    return raise_odd


def raise_odd(what):
    raise OddError(what=what)


def returns_locks():
    return make_lock


def make_lock(_):
    return threading.Lock()


class Killing:
    """An engine whose first piece has its worker killed."""

    def __init__(self, engine, folder):
        self.engine, self.folder, self.workers, self.deaths = engine, str(folder), engine.workers, 0

    def map(self, begin, items):
        for done in self.engine.map(partial(begins_killed, self.folder, begin), items):
            self.deaths += done.deaths
            yield done


def begins_killed(folder, begin):
    return partial(kill_first, folder, begin())


def kill_first(folder, work, item):
    try:
        (Path(folder) / "killed").open("x").close()
    except FileExistsError:
        return work(item)
    return os.kill(os.getpid(), signal.SIGKILL)


def make_model():
    """One member that repeats the question, a dollar a word of it and of the answer, and fails where it is told to."""
    from langchain_rlfocal import PoolMember, RLFocalChatModel  # noqa: PLC0415
    from langchain_rlfocal.testing import ScriptedChatModel  # noqa: PLC0415

    ann = ScriptedChatModel(script=repeat)
    return RLFocalChatModel(members=[PoolMember("ann", ann, input_usd_per_mtok=1e6, output_usd_per_mtok=1e6)])


def repeat(messages):
    if messages[-1].text == "fail":
        raise ValueError("told to")
    return messages[-1].text


def make_budgeted_model(url, max_calls):
    """The same, with a budget that all who give the URL share."""
    from langchain_rlfocal import Budget, RLFocalChatModel  # noqa: PLC0415
    from langchain_rlfocal.testing import ScriptedChatModel  # noqa: PLC0415

    return RLFocalChatModel(
        members={"ann": ScriptedChatModel(script=repeat)}, shared_state=url, budget=Budget(max_calls=max_calls)
    )


def make_dying_model():
    """The same, which has its process killed where it is told to."""
    from langchain_rlfocal import RLFocalChatModel  # noqa: PLC0415
    from langchain_rlfocal.testing import ScriptedChatModel  # noqa: PLC0415

    return RLFocalChatModel(members={"ann": ScriptedChatModel(script=repeat_or_die)})


def repeat_or_die(messages):
    if messages[-1].text == "die":
        time.sleep(0.3)  # what was told is on its way
        os.kill(os.getpid(), signal.SIGKILL)
    return messages[-1].text


def answering():
    """A class that Ray pickles by value: its workers do not see this module until it says where that is."""
    folder = str(Path(__file__).parent)

    class Answering:
        def __init__(self):
            import sys  # noqa: PLC0415

            sys.path.append(folder)
            from langchain_rlfocal.bulk import RLFocalBatch  # noqa: PLC0415
            from support_engines import make_model  # noqa: PLC0415

            self.batch = RLFocalBatch(make_model)

        def __call__(self, batch):
            return self.batch(batch)

    Answering.__module__ = "__main__"
    return Answering


class Threads:
    """An engine whose workers are threads of this process: nothing is pickled, and members can count who asks them."""

    def __init__(self, workers, *, machines=1):
        self.workers, self.machines = workers, machines
        self._lock = threading.RLock()

    def share(self, value):
        return Locked(value, self._lock)

    def map(self, begin, items, *, on_wait=None, on_death=None):
        with ThreadPoolExecutor(self.workers) as threads:
            work = begin()
            left = {threads.submit(work, item): item for item in items}
            while left:
                ended, _ = wait(left, timeout=0.05, return_when=FIRST_COMPLETED)
                if on_wait is not None:
                    on_wait()
                for future in ended:
                    item = left.pop(future)
                    error = future.exception()
                    yield Done(item, error=error) if error else Done(item, future.result())


class Locked:
    def __init__(self, value, lock):
        self.value, self.lock = value, lock

    def call(self, method, *args):
        with self.lock:
            return getattr(self.value, method)(*args)

    async def acall(self, method, *args):
        return self.call(method, *args)


# ---- a collection whose worker is killed


def collect_and_kill(killed, folder, num, *options, kills=1):
    """Collect from a loopback server by the command, and kill a worker once half is on record; what it takes over is asked on.

    Returns:
        What the command said as JSON and on stderr, how often each (question, member) was asked, and at most how many were out at kills.
    """
    from langchain_rlfocal.log import OutcomeLog  # noqa: PLC0415
    from support_fault_server import Fault, FaultServer  # noqa: PLC0415

    killed.write_questions(folder, num)
    num_killed = 0
    with FaultServer(killed.answer, script=lambda *_: Fault(delay_s=0.1)) as server:
        process = killed.start(folder, server.base_url, "--json", *options)
        read = []
        reader = threading.Thread(target=lambda: read.extend(process.communicate()))
        reader.start()
        while process.poll() is None and num_killed < kills:
            if len(killed.answered_in(folder)) >= num // 2:
                log = OutcomeLog(folder / "o.db")
                pids = {int(run.split(":")[1]) for run in log.runs()} - {process.pid}
                log.close()
                if pids:
                    os.kill(min(pids), signal.SIGKILL)
                    num_killed += 1
            time.sleep(0.01)
        reader.join()
        asked = Counter((str(int(one.question.split()[2])), one.model) for one in server.received)
    assert process.returncode == 0, read[1]
    assert num_killed == kills, "it was over before that"
    return json.loads(read[0]), read[1], asked


def assert_whole(folder, num, facts, asked, *, out):
    """Each question is answered once by each member, on record once; asked again is at most what was out at the kill."""
    from langchain_rlfocal.log import OutcomeLog  # noqa: PLC0415
    from langchain_rlfocal.outcomes import OutcomeTable  # noqa: PLC0415

    cells = {(str(number), name) for number in range(num) for name in ("ann", "bob")}
    log = OutcomeLog(folder / "o.db")
    assert log.num_attempts == len(cells), "on record more than once"
    assert log.runs() == [], "nothing stays claimed"
    log.close()
    rows = [(one.query_id, one.model, one.reward) for one in OutcomeTable.read(folder / "o.jsonl")]
    assert sorted(rows) == sorted((*cell, 1.0) for cell in cells)
    assert set(asked) == cells
    again = sum(asked.values()) - len(cells)
    assert 0 <= again <= out, f"{again} were asked again, and at most {out} were out"
    assert [(one["answered"], one["by_others"], one["missing"]) for one in facts["members"]] == [(num, 0, 0)] * 2
    assert (facts["rows"], facts["missing"], facts["unscored"]) == (2 * num, 0, 0)
