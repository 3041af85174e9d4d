"""Whether processes that serve live, asked without waiting for them."""

from collections import deque

import pytest

from langchain_rlfocal.server.processes import Vigil


class Pipe:
    """The supervisor's end; `answers` are those that have come."""

    def __init__(self):
        self.sent, self.answers = 0, deque()

    def send(self, what):
        self.sent += 1

    def poll(self):
        return bool(self.answers)

    def recv(self):
        return self.answers.popleft()


class Process:
    def __init__(self):
        self.process, self.parent_conn, self.lives = self, Pipe(), True

    def is_alive(self):
        return self.lives


@pytest.fixture
def process():
    return Process()


def test_a_process_that_starts_may_be_silent_for_a_while_and_is_asked_once(process):
    now = [0.0]
    vigil = Vigil(process, 60, clock=lambda: now[0])
    for now[0] in (0, 30, 59):
        assert vigil.is_alive()
    assert process.parent_conn.sent == 1
    now[0] = 60
    assert not vigil.is_alive()


def test_each_answer_is_a_new_sign_of_life(process):
    now = [0.0]
    vigil = Vigil(process, 60, clock=lambda: now[0])
    for now[0] in range(0, 500, 50):
        assert vigil.is_alive()
        process.parent_conn.answers.append(True)
    assert process.parent_conn.sent == 10


def test_one_that_has_ended_is_known_at_once(process):
    vigil = Vigil(process, 60)
    assert vigil.is_alive()
    process.lives = False
    assert not vigil.is_alive()
