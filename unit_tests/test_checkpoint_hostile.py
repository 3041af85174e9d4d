"""Checkpoints of strangers: whatever stands in one, it gives a policy or a `CheckpointError`, and runs and fills nothing."""

import ast
import json
import os
import re
import subprocess
import sys
import tracemalloc
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import langchain_rlfocal
from langchain_rlfocal.errors import CheckpointError
from langchain_rlfocal.evaluation.baselines import load_baselines
from langchain_rlfocal.policies import RLFocalPolicy, untrusted
from langchain_rlfocal.policies.checkpoint import MAX_BYTES, MAX_FACTS_BYTES, read_checkpoint

FACTS, WEIGHTS = "checkpoint.json", "weights.safetensors"
NAMES = ("ann", "bob")

LOAD = """
import os, resource, sys
from langchain_rlfocal.errors import CheckpointError
from langchain_rlfocal.policies import RLFocalPolicy

RLFocalPolicy.load(sys.argv[1])  # which loads all the code that there is to load
with open("/proc/self/statm") as file:
    now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (now + 192 * 2**20,) * 2)
for path in sys.argv[2:]:
    try:
        RLFocalPolicy.load(path)
    except CheckpointError as error:
        assert len(str(error)) < 1000, path
        print(os.path.basename(path))
"""

WATCHED = """
import sys
from langchain_rlfocal.policies import RLFocalPolicy

RLFocalPolicy.load(sys.argv[1])
seen = []
sys.addaudithook(lambda event, args: seen.append((event, args)))
RLFocalPolicy.load(sys.argv[1])
quiet = {"object.__getattr__", "object.__setattr__", "sys._getframe"}
print([event for event in seen if event[0] not in quiet and not str(event[1][0]).startswith(sys.argv[1])])
"""


def run(code, *args):
    done = subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture
def saved(random_policy, tmp_path):
    random_policy(NAMES, labels=[("facts", "yes")]).save(path := tmp_path / "policy")
    return path


@pytest.fixture
def hostile(saved, tmp_path):
    """Writes a copy of a good checkpoint in which some files hold other bytes."""

    def make(name, **files):
        path = tmp_path / name
        path.mkdir()
        for file in (FACTS, WEIGHTS):
            (path / file).write_bytes(files.get(Path(file).stem, (saved / file).read_bytes()))
        return path

    return make


@contextmanager
def at_most_a_megabyte():
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def header_of(entries):
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


def entry(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def edited(path, change):
    facts = json.loads((path / FACTS).read_text(encoding="utf-8"))
    change(facts)
    (path / FACTS).write_text(json.dumps(facts), encoding="utf-8")


# ---- files


def test_what_is_no_regular_file_is_neither_read_nor_waited_for(saved):
    """A pipe without a writer would be waited for, a device read for ever; a link to a file is as good as the file."""
    for name in (FACTS, WEIGHTS):
        whole = saved.parent / f"{name}.whole"
        (saved / name).rename(whole)
        link = (saved / name).symlink_to
        for make, words in (
            (lambda name=name: os.mkfifo(saved / name), "regular file, not a device or a pipe"),
            (lambda link=link: link("/dev/zero"), "regular file"),
            (lambda link=link, name=name: link(name), "cannot be read"),
            (lambda link=link: link(saved), "cannot be read"),
        ):
            make()
            with pytest.raises(CheckpointError, match=words):
                RLFocalPolicy.load(saved)
            (saved / name).unlink()
        (saved / name).symlink_to(whole)
        assert RLFocalPolicy.load(saved).members == NAMES


def test_a_path_that_no_system_knows_is_refused():
    with pytest.raises(CheckpointError, match="cannot be read"):
        RLFocalPolicy.load("a\0b")


def test_of_a_file_that_grows_no_more_is_read_than_was_measured(tmp_path, monkeypatch):
    path = tmp_path / "grows"
    path.write_bytes(b"0123456789")
    measure = os.fstat

    def before_it_grew(number):
        found = list(measure(number))
        found[6] = 4  # st_size
        return os.stat_result(found)

    monkeypatch.setattr(untrusted.os, "fstat", before_it_grew)
    assert untrusted.read_file(path, most=4) == b"0123"


@pytest.mark.parametrize(("name", "most"), [(FACTS, MAX_FACTS_BYTES), (WEIGHTS, MAX_BYTES)])
def test_a_file_is_refused_by_its_size_before_it_is_read(saved, name, most):
    """The file is a hole of a terabyte, which takes no place on the disk and would take all of the memory."""
    with (saved / name).open("r+b") as file:
        file.truncate(2**40)
    with at_most_a_megabyte(), pytest.raises(CheckpointError, match=f"at most {most} bytes, has {2**40}"):
        RLFocalPolicy.load(saved)


# ---- memory


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory of a process is measured by Linux")
def test_no_checkpoint_takes_more_memory_than_its_limits_allow(saved, hostile):
    """In a process that may take 192 MiB more than it has: each of these would take more if it were believed."""
    many = b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(1_000_000))
    good = (saved / WEIGHTS).read_bytes()
    bombs = {
        "lists": {"checkpoint": b"[" + b"[]," * (MAX_FACTS_BYTES // 3 - 2) + b"[]]"},
        "objects": {"checkpoint": b"[" + b'{"":0},' * (MAX_FACTS_BYTES // 7 - 2) + b"{}]"},
        "depth": {"checkpoint": b"[" * MAX_FACTS_BYTES},
        "deep_objects": {"checkpoint": b'{"a":' * (MAX_FACTS_BYTES // 5)},
        "large": {"checkpoint": b"[" + b"[]," * (MAX_BYTES // 3 - 2) + b"[]]"},
        "text": {"checkpoint": b'"' + b"a" * (MAX_FACTS_BYTES - 2) + b'"'},
        "digits": {"checkpoint": b"1" * MAX_FACTS_BYTES},
        "header": {"weights": (2**63).to_bytes(8, "little") + b"{}"},
        "entries": {"weights": (len(many) + 2).to_bytes(8, "little") + b"{" + many + b"}"},
        "shape": {"weights": header_of({"pool.price": entry([2**40], 0, 2**42)})},
        "dims": {"weights": header_of({"pool.price": entry([1] * 20_000, 0, 4)}) + b"\0" * 4},
        "tail": {"weights": good + b"\0" * (MAX_BYTES - len(good))},
    }
    paths = [hostile(name, **files) for name, files in bombs.items()]
    assert run(LOAD, saved, *paths) == list(bombs)


def test_facts_are_counted_before_any_is_made():
    """Seven bytes an object: parsed, each would take forty times as much."""
    data = b"[" + b'{"":0},' * untrusted.MAX_VALUES + b"0]"
    with at_most_a_megabyte(), pytest.raises(CheckpointError, match="at most 500000 values, got about 1000001"):
        untrusted.parse_json(data, Path(FACTS))


# ---- facts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("NaN", "finite numbers, got NaN"),
        ("-Infinity", "finite numbers, got -Infinity"),
        ("1e999", "finite numbers, got 1e999"),
        ("1" * 5000, "at most 40 digits, got 5000"),
        ("1" * 41, "at most 40 digits, got 41"),
        ('{"seed": 1, "seed": 2}', "each name once"),
        ('"\\ud800"', "surrogates not allowed"),
        ('{"\\udc00": 0}', "surrogates not allowed"),
        ("[" * 32 + "]" * 32, "at most 32 levels deep"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_value_that_no_checkpoint_holds_is_refused(saved, text, words):
    """Wherever it stands, even in the card, which is shown and copied and believed by nobody."""
    good = (saved / FACTS).read_text(encoding="utf-8")
    (saved / FACTS).write_text(good.replace('"card": {', f'"card": {{"odd": {text}, ', 1), encoding="utf-8")
    with pytest.raises(CheckpointError, match=words):
        RLFocalPolicy.load(saved)


def test_values_at_the_limits_are_read(saved):
    deep = {"seed": 10**40 - 1, "deep": json.loads("[" * 30 + "]" * 30)}
    edited(saved, lambda facts: facts["card"].update(deep))
    card = RLFocalPolicy.load(saved).card
    assert {name: card[name] for name in deep} == deep


@pytest.mark.parametrize("data", [b"\xff\xfe{\0}\0", b"\xef\xbb\xbf{}", b'"\xed\xa0\x80"', b"\xff" * 100_000])
def test_facts_that_are_not_utf_8_are_refused_in_few_words(saved, data):
    (saved / FACTS).write_bytes(data)
    with pytest.raises(CheckpointError, match="JSON object of a checkpoint") as caught:
        RLFocalPolicy.load(saved)
    assert len(str(caught.value)) < 1000


def test_each_fact_must_be_there(saved):
    for name in json.loads(good := (saved / FACTS).read_bytes()):
        edited(saved, lambda facts, name=name: facts.pop(name))
        with pytest.raises(CheckpointError, match=f"lacks {name}"):
            RLFocalPolicy.load(saved)
        (saved / FACTS).write_bytes(good)


def test_a_refusal_stays_short_however_long_what_it_names(saved, random_policy):
    def assert_short(words, refused, *args):
        with pytest.raises(CheckpointError, match=words) as caught:
            refused(*args)
        assert len(str(caught.value)) < 1000

    arrays = load_file(saved / WEIGHTS)
    save_file({**arrays, "x" * 60_000: arrays["pool.price"]}, saved / WEIGHTS)
    assert_short(r"unknown: oracle\.xxx", RLFocalPolicy.load, saved)
    edited(saved, lambda facts: facts.update(format_version="9" * 100_000))
    assert_short("format version", RLFocalPolicy.load, saved)
    assert_short("distinct", random_policy, ("x" * 10_000,) * 2)
    odd = {"members": ["a"], "fitted": {"oracle": {"x" * 100_000: 1}}}
    assert_short(r"unknown: oracle\.xxx", load_baselines, {}, odd)


@pytest.mark.parametrize("point", [[float("nan"), 1.5], [0.1, float("inf")], ["nan", "1.5"], [10**400, 1.5]])
def test_a_curve_that_is_not_finite_is_none(random_policy, point):
    """Also of a policy made in memory, which no reader has checked."""
    curve = [{"cost_weight": 0.0, "mean_calls": 2.0}, dict(zip(("cost_weight", "mean_calls"), point, strict=True))]
    policy = random_policy(NAMES, card={"curve": curve})
    with pytest.raises(ValueError, match="must hold a curve"):
        policy.cost_weight_for(1.5)


# ---- arrays


@pytest.mark.parametrize(
    ("entries", "size"),
    [
        ({"a": entry([2], 0, 4)}, 8),
        ({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, 4),
        ({"a": entry([1], 4, 8)}, 8),
        ({"a": entry([2], 0, 8)}, 4),
        ({"a": entry([1], 4, 0)}, 4),
        ({"a": entry([1], 0, 2**63)}, 4),
        ({"a": entry([-1], 0, 4)}, 4),
        ({"a": entry([2**62, 4], 0, 0)}, 0),
        ({"a": entry([2**62, 0], 0, 0)}, 0),
        ({"a": entry([0, 2**62], 0, 0)}, 0),
        ({"a": entry([0, 2**63], 0, 0)}, 0),
        ({"a": entry([1] * 65, 0, 4)}, 4),
        ({"a": entry([1], 0, 8, "O")}, 8),
        ({"a": entry([1], 0, 1, "F8_E4M3")}, 1),
        ({"a": entry([1], 0, 2, "BF16")}, 2),
        ({"baseline.a": entry([1], 0, 8, "C64")}, 8),
        ({"a": None}, 0),
        ([], 0),
        ({"__metadata__": {"a": 1}}, 0),
    ],
)
def test_a_list_of_arrays_that_lies_is_refused(hostile, entries, size):
    path = hostile("lies", weights=header_of(entries) + b"\0" * size)
    with pytest.raises(CheckpointError):
        read_checkpoint(path)


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.int32, np.bool_])
def test_weights_of_another_type_than_they_are_written_in_are_refused(saved, kind):
    save_file({**load_file(saved / WEIGHTS), "pool.price": np.ones(2, dtype=kind)}, saved / WEIGHTS)
    with pytest.raises(CheckpointError, match=f"`pool.price` must hold floats of 32 bits, got {np.dtype(kind)}"):
        RLFocalPolicy.load(saved)


def test_a_boolean_that_is_neither_0_nor_1_is_refused(saved, random_policy, tmp_path):
    """NumPy sums the bytes of a mask to know how many places it picks, and would write beyond them."""
    parts = random_policy(NAMES).parts
    team = np.array([1, 0], dtype=bool)
    RLFocalPolicy(replace(parts, baselines={"top_k.team": team})).save(tmp_path / "team")
    assert read_checkpoint(tmp_path / "team").baselines["top_k.team"].tolist() == [True, False]
    data = (tmp_path / "team" / WEIGHTS).read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    place = end + json.loads(data[8:end])["baseline.top_k.team"]["data_offsets"][0]
    (tmp_path / "team" / WEIGHTS).write_bytes(data[:place] + b"\x07" + data[place + 1 :])
    with pytest.raises(CheckpointError, match="must hold numbers or booleans"):
        read_checkpoint(tmp_path / "team")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("decider.out.bias", 3e38, "within ±1e\\+06"),
        ("decider.out.bias", -1.1e6, "within ±1e\\+06"),
        ("evidence.moments", 1e-45, "at least 1e-06"),
    ],
)
def test_a_number_that_would_overflow_a_decision_is_refused(saved, name, value, words):
    arrays = load_file(saved / WEIGHTS)
    arrays[name][...] = value
    save_file(arrays, saved / WEIGHTS)
    with pytest.raises(CheckpointError, match=words):
        RLFocalPolicy.load(saved)


# ---- everything


@cache
def good_bytes(folder):
    return {name: (folder / name).read_bytes() for name in (FACTS, WEIGHTS)}


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_damaged_gives_a_policy_or_a_checkpoint_error(saved, data):
    """Bytes are changed, put in or cut off anywhere; what still loads still decides in finite numbers."""
    whole = good_bytes(saved)
    name = data.draw(st.sampled_from([FACTS, WEIGHTS]))
    text = bytearray(whole[name])
    header = 8 + int.from_bytes(whole[WEIGHTS][:8], "little")
    places = st.integers(0, len(text)) | st.integers(0, min(header, len(text)))  # most of the arrays' file are numbers
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(places)
        junk = data.draw(st.binary(max_size=3) | st.sampled_from([b"[", b"{}", b'"', b"9" * 30, b"-", b"e9", b"null"]))
        text[start : start + data.draw(st.sampled_from([0, 1, len(junk), 10**6]))] = junk
    (saved / name).write_bytes(text)
    try:
        with suppress(CheckpointError):
            known = RLFocalPolicy.load(saved).describe(["Is it?"], ["facts"])
            assert all(np.isfinite(getattr(known, part)).all() for part in ("competence", "trust", "slopes", "price"))
    finally:
        (saved / name).write_bytes(whole[name])


def test_loading_runs_imports_and_opens_nothing_but_its_two_files(saved):
    """As the interpreter's own audit tells: no pickle, no import, no code compiled or run, no process, no connection."""
    edited(
        saved,
        lambda facts: facts["card"].update(embedder="this:that", config={"cost_unit": "__import__('antigravity')"}),
    )
    assert run(WATCHED, saved) == ["[]"]


def test_no_module_reads_pickles_or_runs_text():
    """What could, by name; `__reduce__`, which says how an object is copied, reads none."""
    refused = re.compile(r"(import|from) (pickle|marshal|shelve|dill|joblib|cloudpickle)\b|\b(np|numpy|torch)\.load\b")
    found = []
    for path in Path(langchain_rlfocal.__path__[0]).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        calls = [node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        names = [call.id for call in calls if isinstance(call, ast.Name) and call.id in {"eval", "exec", "compile"}]
        found += [(path.name, each) for each in [*names, *(match[0] for match in refused.finditer(text))]]
    assert found == []


def test_what_could_not_be_read_again_is_not_written(random_policy, tmp_path):
    deep = json.loads("[" * 40 + "]" * 40)
    for card, words in (
        ({"deep": deep}, "levels deep"),
        ({"list": [0] * 600_000}, "values"),
        ({"x": "\ud800"}, "JSON"),
    ):
        with pytest.raises(CheckpointError, match=words):
            random_policy(NAMES, card=card).save(tmp_path / "policy")
    assert list(tmp_path.iterdir()) == []
