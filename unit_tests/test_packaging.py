"""Packaging: what a user installs, what stands in the repository, and who may import whom."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

import langchain_rlfocal

ROOT = Path(__file__).parents[1]
FOLDERS = {"langchain_rlfocal", "unit_tests", "integration_tests", "docs", ".ci", ".github"}
FILES = {
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "LICENSE",
    "Makefile",
    "mkdocs.yml",
    ".gitignore",
    ".pre-commit-config.yaml",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> list[str]:
    """Names of the files in a wheel built from this checkout."""
    pytest.importorskip("hatchling", reason="hatchling builds the wheel: pip install --group test")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (path,) = folder.iterdir()
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel):
    """The shipped policy and the questions are no Python, and easily left out."""
    here = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "langchain_rlfocal").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    about = f"langchain_rlfocal-{langchain_rlfocal.__version__}.dist-info/"
    assert {name for name in wheel if not name.startswith(about)} == here
    assert {"langchain_rlfocal/py.typed", "langchain_rlfocal/demo/questions.jsonl"} <= here


def test_the_shipped_policy_is_under_a_megabyte_and_holds_no_pickle():
    files = [path for path in (ROOT / "langchain_rlfocal/demo/policy").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".json"}
    assert sum(path.stat().st_size for path in files) < 2**20


@pytest.mark.skipif(
    not os.environ.get("RLFOCAL_EXPECT_WHEEL"), reason="tests the checkout: RLFOCAL_EXPECT_WHEEL is unset"
)
def test_what_is_tested_is_the_installed_wheel():
    """CI installs the wheel and runs the tests beside the checkout, whose package would be imported just as well."""
    site_packages = Path(sysconfig.get_path("purelib")).resolve()
    assert site_packages in Path(langchain_rlfocal.__file__).resolve().parents
    # An editable installation leaves no file of the package in its record.
    assert any(str(file) == "langchain_rlfocal/__init__.py" for file in distribution("langchain-rlfocal").files or ())


def test_the_top_level_holds_what_it_should_and_nothing_else():
    """As git sees it: what is tracked, and what would be if it were added."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    command = [git, "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip(f"git cannot read the checkout: {listed.stderr}")
    paths = [Path(line) for line in listed.stdout.splitlines() if (ROOT / line).exists()]
    assert {path.parts[0] for path in paths if len(path.parts) > 1} == FOLDERS
    assert {path.name for path in paths if len(path.parts) == 1} == FILES


def test_import_contracts_hold():
    # In a process of its own: the linter's command line silences the loggers that are there.
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(sys.argv[1], no_cache=True))"
    command = [sys.executable, "-c", code, str(ROOT / "pyproject.toml")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
