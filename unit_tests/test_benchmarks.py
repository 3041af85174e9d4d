"""The benchmark of speed and size: its arithmetic by hand, and that it runs and writes its page."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "docs/benchmarks/bench.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["bench"]


def test_a_ratio_is_that_of_the_medians_and_lies_in_its_interval(bench):
    """Medians 6 and 2 of pairs that always differ by a factor of three: 3, whichever pairs are drawn."""
    theirs = np.array([1.0, 2.0, 30.0])
    assert bench.ratio_of(3 * theirs, theirs) == pytest.approx((3.0, 3.0, 3.0))
    ratio, low, high = bench.ratio_of(np.array([1.0, 2.0, 9.0]), theirs)
    assert ratio == 1.0
    assert low <= 1.0 <= high
    assert low < high


def test_an_exponent_is_the_slope_of_the_logarithms(bench):
    """3 n² has exponent 2 and no spread. 1, 2, 8 at 1, 2, 4: logarithms 0, 1, 3 rise by 3/2, at the end by 2.

    The line through them is -1/6 + 3/2 n: it misses by 1/6, -1/3 and 1/6, so the standard error is √(1/6 / 1 / 2) = √(1/12).
    """
    assert bench.exponent_of([10, 20, 40], [300, 1200, 4800]) == "exponent 2.00 ± 0.00, at the end 2.00"
    assert bench.exponent_of([1, 2, 4], [1, 2, 8]) == "exponent 1.50 ± 0.29, at the end 2.00"
    assert bench.exponent_of([1, 2], [1, 2]) == "exponent 1.00"
    assert bench.exponent_of([1], [1]) == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.2e-5, "42 µs"), (0.05, "50 ms"), (0.001234, "1.23 ms"), (1.5, "1.5 s"), (181.1, "181 s")]
)
def test_seconds_are_written_in_the_unit_that_suits_them(bench, seconds, text):
    assert bench.in_units(seconds) == text


def test_some_rows_are_written_to_a_page(tmp_path):
    page = tmp_path / "page.md"
    command = [sys.executable, SCRIPT, "--quick", "--only", "answer", "--only", "diversity", "--out", page]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    text = page.read_text()
    table = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [len(row) for row in table] == [6] * 4
    assert table[1][0] == "| one `ainvoke`, three members without latency"
    assert table[1][3].count("x (") == 1
    assert "--quick --only answer --only diversity" in text
