"""Integration tests: real servers and real local models on loopback; skipped with a reason where they are absent."""

from collections.abc import Iterator

import pytest
from pytest_socket import socket_allow_hosts

from langchain_rlfocal.demo import EmbeddedPool, embedded_pool
from langchain_rlfocal.errors import MissingDependencyError


def pytest_runtest_setup() -> None:
    """Nothing beyond this machine can be reached."""
    socket_allow_hosts(["127.0.0.1"], allow_unix_socket=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest, so that of two processes none is left waiting for the other at the end."""
    items.sort(key=lambda item: "test_tutorial" not in item.nodeid)


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedPool]:
    """The embedded pool, one for all tests."""
    try:
        pool = embedded_pool()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    with pool:
        yield pool
