"""The frame: what every import shares."""

import gzip
import json

import pytest

from langchain_rlfocal.errors import InputError, OutcomeError
from langchain_rlfocal.importing import recognise


def row(model, said, question="2 + 3?", **changes):
    return {"question": question, "model": model, "response": said} | changes


def test_repeated_rows_are_resolved_by_one_rule_and_counted(imported, write):
    """An answer rather than a failure, a scored one rather than an unscored one, else the later; of equals the last."""
    rows = [
        row("ann", "5", score=1),
        row("ann", None, score=0, answer=None),
        row("bob", "6"),
        row("bob", "5", score=1),
        row("bob", "7"),
        row("cid", "8"),
        row("cid", "9"),
    ]
    report, outcomes = imported("long", write("rows.jsonl", rows))
    assert [(outcome.model, outcome.response, outcome.reward) for outcome in outcomes] == [
        ("ann", "5", 1.0),
        ("bob", "5", 1.0),
        ("cid", "9", None),
    ]
    assert (report.read, report.kept, report.repeated, report.unscored) == (7, 3, 4, 1)


def test_a_failure_is_no_empty_answer(imported, write):
    rows = [row("ann", None, score=0), row("bob", "", score=0), row("cid", None, score=None)]
    report, (ann, bob) = imported("long", write("rows.jsonl", rows))
    assert (ann.response, ann.answer, ann.reward) == (None, None, 0.0)
    assert (bob.response, bob.reward) == ("", 0.0)
    assert [member.failures for member in report.members] == [1, 0]
    assert report.skipped["neither answer nor reward"][0] == 1


def test_a_score_on_another_scale_is_refused_or_scaled(imported, write, tmp_path):
    """On a scale from 1 to 5 three stars are one half. A score outside the scale that was given is refused, too."""
    path = write("rows.jsonl", [row("ann", "5", score=1), row("bob", "6", score=3)])
    with pytest.raises(OutcomeError, match=r"rows\.jsonl:2: a reward must lie in \[0, 1\], got 3\. .*`--scale 0,100`"):
        imported("long", path)
    assert list(tmp_path.iterdir()) == [path]
    _, outcomes = imported("long", path, scale=(1, 5))
    assert [outcome.reward for outcome in outcomes] == [0.0, 0.5]
    with pytest.raises(OutcomeError, match=r"must lie in \[0, 2\], got 3"):
        imported("long", path, scale=(0, 2))
    with pytest.raises(InputError, match="LOW below HIGH, got 5,1"):
        imported("long", path, scale=(5, 1))


def test_equal_answers_share_a_label_and_given_answers_keep_theirs(imported, write):
    rows = [row("ann", "It is 5."), row("bob", "The answer is 5"), row("cid", "I say six", answer="6"), row("dee", "6.0")]
    _, outcomes = imported("long", write("rows.jsonl", rows))
    ann, bob, cid, dee = (outcome.answer for outcome in outcomes)
    assert ann == bob
    assert (cid, dee) == ("6", "6")
    _, outcomes = imported("long", write("rows.jsonl", rows), kind=None)
    assert [outcome.answer for outcome in outcomes] == [None, None, "6", None]


def test_torn_lines_are_counted_with_their_place_and_the_rest_is_kept(imported, write, tmp_path):
    good = json.dumps(row("ann", "5"))
    report, outcomes = imported("long", write("rows.jsonl", f"{good}\n[1]\n\n{good[:20]}"))
    assert len(outcomes) == 1
    assert report.read == 3
    assert report.skipped == {
        "no JSON object": (1, f"{tmp_path / 'rows.jsonl'}:2"),
        "no JSON object: the last line is torn": (1, f"{tmp_path / 'rows.jsonl'}:4"),
    }


def test_compressed_files_folders_and_patterns(imported, write, tmp_path):
    """A folder may hold other files: they are counted and left out."""
    packed = tmp_path / "logs" / "ann.jsonl.gz"
    write("logs/bob.jsonl", [row("bob", "6")])
    packed.write_bytes(gzip.compress(json.dumps(row("ann", "5")).encode()))
    write("logs/notes.txt", "hello")
    write("logs/empty.jsonl", "")
    for name in (tmp_path / "logs", f"{tmp_path}/logs/*"):
        report, outcomes = imported("long", name)
        assert [(outcome.model, outcome.response) for outcome in outcomes] == [("ann", "5"), ("bob", "6")]
        assert report.files == 2
        assert sum(report.notes.values()) == 2
    packed.write_bytes(packed.read_bytes()[:-12])
    with pytest.raises(OutcomeError, match=r"ann\.jsonl\.gz: the file must be readable to its end"):
        imported("long", packed)


def test_a_long_list_of_json_is_read_over_the_limits_of_its_chunks(imported, write, monkeypatch):
    """Chunks of seven characters part every row; numbers at a chunk's end go on behind it."""
    monkeypatch.setattr("langchain_rlfocal.importing.files._CHUNK_CHARS", 7)
    rows = [row(name, f"{name} says [{number}], \"{number}\"", prompt_tokens=1000 + number) for number, name in enumerate(("ann", "bob"))]
    _, outcomes = imported("long", write("rows.json", rows))
    assert [(outcome.model, outcome.response, outcome.prompt_tokens) for outcome in outcomes] == [
        ("ann", 'ann says [0], "0"', 1000),
        ("bob", 'bob says [1], "1"', 1001),
    ]
    with pytest.raises(OutcomeError, match="whole JSON"):
        imported("long", write("torn.json", json.dumps(rows)[:-9]))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.jsonl", "", "must hold rows, got an empty file"),
        ("cats.jsonl", '{"cat": 1}\n', "must be a file of litellm"),
        ("torn.json", '{"results": {"results": [', "must be whole JSON"),
        ("samples.jsonl", '{"doc": {}, "resps": []}\n', "looks like one of lm-evaluation-harness.*Use `rlfocal import lm-eval`"),
        ("rows.pkl", "x", "must be a file of litellm"),
    ],
)
def test_files_that_are_not_the_source_s_are_refused_in_one_line(imported, write, name, content, words):
    with pytest.raises(OutcomeError, match=words) as caught:
        imported("litellm", write(name, content))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_does_not_exist_and_what_is_no_source(imported, tmp_path):
    with pytest.raises(OutcomeError, match=r"nowhere\.jsonl: the file must exist"):
        imported("long", tmp_path / "nowhere.jsonl")
    with pytest.raises(InputError, match="SOURCE must be one of auto, lm-eval, .* got 'langtrace'"):
        imported("langtrace", tmp_path)
    with pytest.raises(InputError, match="at least one file"):
        imported("long")


def test_files_of_two_sources_are_not_read_as_one(imported, write):
    ours = write("rows.jsonl", [row("ann", "5")])
    other = write("output.jsonl", [{"custom_id": "q", "response": {}}])
    with pytest.raises(OutcomeError, match="of one source, got long .*, openai-batch"):
        imported("auto", ours, other)


def test_half_a_surrogate_pair_does_not_stop_an_import(imported, write):
    _, (outcome,) = imported("long", write("rows.jsonl", '{"question": "2 \\ud800?", "model": "ann", "response": "5 \\udc00"}\n'))
    assert outcome.response == "5 \ufffd"


def test_rows_beyond_a_batch_keep_their_order_and_join(imported, write, monkeypatch):
    """Batches of three rows: a member's file after the other's, joined query by query."""
    monkeypatch.setattr("langchain_rlfocal.importing.frame._BATCH_ROWS", 3)
    files = [write(f"{name}.jsonl", [row(name, str(n), f"Question {n}?") for n in range(10)]) for name in ("ann", "bob")]
    report, outcomes = imported("long", *files)
    assert [(o.query, o.model, o.response) for o in outcomes] == [(f"Question {n}?", name, str(n)) for n in range(10) for name in ("ann", "bob")]
    assert report.queries == {2: 10}


def test_an_import_that_fails_leaves_the_table_that_was_there(imported, write, tmp_path):
    imported("long", write("rows.jsonl", [row("ann", "5")]))
    before = (tmp_path / "out.parquet").read_bytes()
    with pytest.raises(OutcomeError):
        imported("long", write("bad.jsonl", [row("ann", "5"), row("bob", "6", score=7)]))
    assert (tmp_path / "out.parquet").read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_nobody_s_file_is_recognised_as_nobody_s(write):
    assert recognise(write("cats.jsonl", [{"cat": 1}])) is None
