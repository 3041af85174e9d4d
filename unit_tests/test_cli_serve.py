"""`rlfocal serve`: what is refused before anything listens, and what is said at the start. That it serves is tested as a process."""

import errno
import json
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, nullcontext

import pytest

from langchain_rlfocal.cli import serving
from langchain_rlfocal.cli.serving import Settings
from langchain_rlfocal.demo import POLICY_PATH
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.execution import SharedState


@pytest.fixture
def pool(folder):
    (folder / "my_pool.py").write_text(
        "from langchain_rlfocal.testing import ScriptedChatModel\n"
        "def pool():\n"
        "    return {name: ScriptedChatModel(script=['Yes.']) for name in ('ann', 'bob')}\n"
    )
    return "my_pool:pool"


class Listener(nullcontext):
    """An address that nobody listens at."""

    def __init__(self, host, port):
        super().__init__(self)
        self.address = (host, port or 8123)

    def getsockname(self):
        return self.address


@pytest.fixture
def served(monkeypatch):
    """What would be served, instead of serving it: no test has a socket."""
    found = []
    monkeypatch.setattr(serving, "_listen", Listener)
    monkeypatch.setattr(serving, "_serve", lambda app, listener: found.append((app, listener.getsockname())))
    monkeypatch.setattr(
        serving,
        "_serve_by_several",
        lambda listener, workers: found.append((workers, serving.os.environ[serving.SETTINGS_NAME])),
    )
    monkeypatch.setattr("langchain_rlfocal.server.tuning.collect_less", lambda: None)
    return found


def test_other_machines_need_a_key(cli, pool):
    result = cli.run("serve", "--pool", pool, "--host", "0.0.0.0")
    assert result.exit_code == 2
    assert "rlfocal keys add" in result.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_s_own_addresses_need_none(host):
    assert serving._is_own(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_all_others_do(host):
    assert not serving._is_own(host)


def test_a_port_that_is_taken_is_said_in_one_line(cli, pool, monkeypatch):
    def is_taken(*args, **kwargs):
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr(serving.socket, "getaddrinfo", lambda *args, **kwargs: [(socket.AF_INET,)])
    monkeypatch.setattr(serving.socket, "create_server", is_taken)
    monkeypatch.setattr(serving, "_serve", lambda *args: pytest.fail("It serves."))
    result = cli.run("serve", "--pool", pool, "--port", 8123)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "in use" in result.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--pool", "nobody.yaml"], "nobody.yaml"),
        (["--learning", "on"], "`--log outcomes.db`"),
        (["--allow-origin", "https://app.example/page"], "without a path"),
        (["--state", "redis://127.0.0.1:1/0?namespce=prod"], "namespce"),
        (["--target-calls", "2"], "trained policy"),
        (["--max-usd", "5"], "must have prices"),
        (["--keys", "keys.toml"], "keys.toml"),
        (["--state", "http://127.0.0.1"], "redis://"),
    ],
)
def test_what_is_wrong_is_said_before_anything_listens(cli, pool, served, options, said):
    given = options if "--pool" in options else ["--pool", pool, *options]
    result = cli.run("serve", "--port", 0, *given)
    assert result.exit_code == 2, result.stderr
    assert said in result.stderr
    assert not served


def test_it_says_where_it_is_and_who_answers(cli, pool, served):
    facts = cli.said("serve", "--pool", pool, "--port", 0, "--max-team", 2)
    [(app, (host, port))] = served
    assert facts["url"] == f"http://{host}:{port}/v1"
    assert (facts["members"], facts["trained"], facts["max_team"], facts["keys"]) == (["ann", "bob"], False, 2, None)
    assert app.state.serving.model.max_team == 2
    shown = cli.run("serve", "--pool", pool, "--port", 0).stderr
    assert "ann, bob" in shown
    assert "curl http://127.0.0.1:" in shown


def test_it_promises_no_more_members_than_there_are(cli, pool, served):
    assert cli.said("serve", "--pool", pool, "--port", 0, "--max-team", 9)["max_team"] == 2


def test_a_process_that_cannot_start_says_so_in_a_line(monkeypatch, capsys):
    settings = Settings(pool="nobody.yaml", members=[], policy=None, embedder=None, server={"allow_origins": []})
    monkeypatch.setenv(serving.SETTINGS_NAME, settings.to_json())
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        serving.worker_app()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("A serving process cannot start: file nobody.yaml")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_process_that_was_told_to_stop_before_it_began_does_not_begin(monkeypatch):
    class Server:
        should_exit = True

        def handle_exit(self, *_): ...

    monkeypatch.setattr(Settings, "open", lambda *_: pytest.fail("It begins."))
    before = signal.signal(signal.SIGTERM, Server().handle_exit)
    interrupts = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit):
            serving.worker_app()
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, interrupts)


def test_the_store_s_password_is_not_said():
    assert (
        serving._without_password("redis://ann:s3cret@127.0.0.1:6379/0?namespace=a")
        == "redis://ann:***@127.0.0.1:6379/0?namespace=a"
    )
    assert serving._without_password("redis://:s3cret@127.0.0.1/0") == "redis://:***@127.0.0.1/0"
    assert serving._without_password("redis://127.0.0.1/0") == "redis://127.0.0.1/0"


def test_processes_know_of_how_many_they_are_one_before_a_store_says_so(cli, pool, served):
    assert serving._shared_by("redis://host/0", 4) == "redis://host/0?workers=4"
    assert serving._shared_by("redis://host?namespace=a", 4) == "redis://host?namespace=a&workers=4"
    assert serving._shared_by("redis://host?workers=9", 4) == "redis://host?workers=9"
    assert serving._shared_by("redis://host", 1) == "redis://host"
    assert serving._shared_by(None, 4) is None


def test_a_process_that_ends_leaves_the_store(pool, tmp_path):
    """So does the one that only checks the settings and has others serve."""
    url = f"unix://{tmp_path}/nobody.sock"
    settings = Settings(pool=pool, members=[], policy=None, embedder=None, fields={"shared_state": url})
    with ExitStack() as stack:
        shared = settings.open(stack).shared_state
        assert SharedState.at(url) is shared
    again = SharedState.at(url)
    again.close()
    assert again is not shared


def test_several_processes_make_their_models_of_settings_in_their_environment(cli, pool, served, monkeypatch):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "counts")  # so that no folder is made for the test
    monkeypatch.setenv(serving.SETTINGS_NAME, "")  # and what is set is taken back
    cli.said("serve", "--pool", pool, "--port", 0, "--workers", 3, "--max-calls-per-answer", 1, "--drain-s", 7)
    [(workers, text)] = served
    settings = Settings.from_json(text)
    assert workers == 3
    assert settings == Settings.from_json(settings.to_json())
    assert settings.fields["budget_per_answer"] == {"max_calls": 1}
    assert settings.config.drain_s == 7
    assert json.loads(text)["server"]["keys_file"] is None


def test_the_policy_that_ships_decides_about_the_pool_that_ships(cli, served, monkeypatch):
    opened = []

    def no_model(self, stack):
        opened.append(self)
        raise InputError("Not today.")

    monkeypatch.setattr(Settings, "open", no_model)
    assert cli.run("serve", "--port", 0).exit_code == 2
    assert opened[0].pool is None
    assert opened[0].policy == str(POLICY_PATH)


def test_help_loads_no_server():
    code = "import sys; from langchain_rlfocal.cli import app; print({'starlette', 'uvicorn', 'prometheus_client', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
