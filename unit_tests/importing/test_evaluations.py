"""Evaluation programs: each file gives exactly the rows worked out by hand."""

import json
import math
import shutil

import pytest

from langchain_rlfocal.errors import OutcomeError

STAMP = "2026-11-30T16-16-53.461818"


def brief(outcomes, *names):
    return [tuple(getattr(outcome, name) for name in names) for outcome in outcomes]


# ---- lm-evaluation-harness (files of 0.4.13)


def test_samples_of_generation_take_the_first_filter_and_say_how_to_take_another(imported, fixtures):
    """Two documents under two filters: four rows. The dummy model says "lol", in which the strict filter finds no number."""
    path = fixtures / f"lm-eval/org__ann/samples_toy_gen_{STAMP}.jsonl"
    report, outcomes = imported("lm-eval", path)
    assert brief(outcomes, "task", "query_id", "query", "model", "response", "answer", "gold", "reward") == [
        ("toy_gen", "0", "What is 2 + 3?", "org/ann", "lol", "[invalid]", "5", 0.0),
        ("toy_gen", "1", "What is 4 + 4?", "org/ann", "lol", "[invalid]", "8", 0.0),
    ]
    assert report.read == 4
    ((reason, (count, place)),) = report.skipped.items()
    assert "METRIC,flexible" in reason
    assert (count, place) == (2, f"{path}:3")
    _, flexible = imported("lm-eval", path, reward="exact_match,flexible")
    assert [outcome.answer for outcome in flexible] == ["lol", "lol"]


def test_a_multiple_choice_becomes_letters_and_probabilities(imported, fixtures):
    """Log-likelihoods −0.109, −0.551, −0.707: the first is likeliest, and exp of each over their sum is its probability."""
    _, outcomes = imported("lm-eval", fixtures / f"lm-eval/org__ann/samples_toy_mc_{STAMP}.jsonl")
    logs = [-0.10905784593110368, -0.5512672460905512, -0.7065614098668896]
    first = outcomes[0]
    assert first.option_probs == pytest.approx([math.exp(log) / sum(map(math.exp, logs)) for log in logs])
    assert (first.answer, first.gold, first.reward, first.response) == ("A", "B", 0.0, "B")
    assert first.query == "Which is a vowel?\nA) B\nB) E\nC) K"
    assert brief(outcomes, "answer", "gold", "reward")[1] == ("A", "A", 1.0)


def test_a_target_that_is_a_place_and_an_option_is_what_the_metric_bears_out(imported, write):
    """Options 1, 0: the target "0" may be the place of "1" or the text of the second. The model takes the second, and that is right."""
    row = {
        "doc_id": 3,
        "doc": {"question": "1 - 1?"},
        "target": "0",
        "arguments": [["1 - 1?", " 1"], ["1 - 1?", " 0"]],
        "resps": [[[-2.0, False]], [[-1.0, True]]],
        "filtered_resps": [[-2.0, False], [-1.0, True]],
        "acc": 1.0,
    }
    _, (outcome,) = imported("lm-eval", write(f"bob/samples_minus_{STAMP}.jsonl", [row]))
    assert (outcome.answer, outcome.gold, outcome.reward) == ("B", "B", 1.0)
    _, (wrong,) = imported("lm-eval", write(f"bob/samples_minus_{STAMP}.jsonl", [row | {"acc": 0.0}]))
    assert (wrong.answer, wrong.gold, wrong.reward) == ("B", "A", 0.0)


def test_likelihoods_with_prompts_of_their_own_are_no_options(imported, write):
    """A Winograd schema asks for the likelihood of one end after two beginnings: a reward, and no letters."""
    row = {
        "doc_id": 0,
        "doc": {"sentence": "The cup fits the bag because _ is small."},
        "target": "0",
        "arguments": [["because the cup", " is small."], ["because the bag", " is small."]],
        "resps": [[[-1.0, False]], [[-2.0, False]]],
        "filtered_resps": [[-1.0, False], [-2.0, False]],
        "acc": 1.0,
    }
    _, (outcome,) = imported("lm-eval", write(f"bob/samples_schema_{STAMP}.jsonl", [row]))
    assert (outcome.answer, outcome.option_probs, outcome.reward) == (None, None, 1.0)


def choices(metric, reward, *, target="1", texts=("no", "certainly"), logs=(-2.0, -5.0), **changes):
    """Return a row of an older version, which lists no metrics."""
    return {
        "doc_id": 0,
        "doc": {"query": "Is it?"},
        "target": target,
        "arguments": [["Is it?", f" {text}"] for text in texts],
        "resps": [[[log, False]] for log in logs],
        "filtered_resps": [[log, False] for log in logs],
        metric: reward,
    } | changes


def test_answer_probabilities_and_right_answer_are_of_the_option_that_the_metric_judged(imported, write):
    """−2 < −5 in all, but −2/2 = −1 and −5/9 per letter: `acc` judges the first option, `acc_norm` the second.

    Their probabilities: 1 / (1 + e⁻³) and 1 / (1 + e^(−1 + 5/9)). Of "ß" and "nein", −1.5 and −3.2, `acc_bytes` divides by 2 and 4.
    """
    path = write(f"bob/samples_is_{STAMP}.jsonl", [choices("acc_norm", 1.0, acc=0.0)])
    for metric, answer, probability in (
        ("acc", "A", 1 / (1 + math.exp(-3))),
        ("acc_norm", "B", 1 / (1 + math.exp(-4 / 9))),
    ):
        _, (outcome,) = imported("lm-eval", path, reward=metric)
        assert (outcome.answer, outcome.gold, outcome.reward) == (answer, "B", float(answer == "B"))
        assert max(outcome.option_probs) == pytest.approx(probability)
        assert outcome.response == {"A": "no", "B": "certainly"}[answer]
    row = choices("acc_bytes", 1.0, target="0", texts=("ß", "nein"), logs=(-1.5, -3.2))
    _, (outcome,) = imported("lm-eval", write(f"bob/samples_ja_{STAMP}.jsonl", [row]))
    assert (outcome.answer, outcome.gold) == ("A", "A")
    row = choices("acc_norm", 0.0, target="0", texts=("ß", "nein"), logs=(-1.5, -3.2))  # by letters −1.5 < −0.8
    _, (outcome,) = imported("lm-eval", write(f"bob/samples_ja_{STAMP}.jsonl", [row]))
    assert (outcome.answer, outcome.gold) == ("B", "A")


@pytest.mark.parametrize(
    ("reward", "target", "expected"),
    [
        (1.0, "1", (None, None)),
        (0.0, "0", (None, None)),
        (1.0, ["0", "1"], ("A", None)),
        (0.0, ["1", "1"], ("A", "B")),
        (1.0, "yes", ("A", "A")),
        (0.0, "yes", ("A", None)),
        (0.0, "certainly", ("A", "B")),
    ],
)
def test_no_wrong_option_is_named_as_the_right_one(imported, write, reward, target, expected):
    """The first option is likeliest. Where reward and target name another, it is open; of several right ones none is named."""
    answer, gold = expected
    path = write(f"bob/samples_is_{STAMP}.jsonl", [choices("acc", reward, target=target)])
    report, (outcome,) = imported("lm-eval", path)
    assert (outcome.answer, outcome.gold, outcome.reward) == (answer, gold, reward)
    assert (outcome.option_probs is None) == (answer is None)
    assert any("of another option than the likeliest" in note for note in report.notes) == (answer is None)


def test_a_target_that_two_readings_bear_out_names_no_right_option(imported, write):
    """Options 3, 1, 0, the target "1", and 3 is wrong: the second by place and by text. The target "2" of 3, 2, 0: either of two."""
    for texts, target, gold in ((("3", "1", "0"), "1", "B"), (("3", "2", "0"), "2", None)):
        row = choices("acc", 0.0, target=target, texts=texts, logs=(-1.0, -2.0, -3.0))
        _, (outcome,) = imported("lm-eval", write(f"bob/samples_n_{STAMP}.jsonl", [row]))
        assert (outcome.answer, outcome.gold) == ("A", gold)


@pytest.mark.parametrize("hashed", [True, False])
def test_other_documents_under_the_same_numbers_are_other_questions(imported, write, hashed):
    """Two versions of the data number their documents from 0; the same document is one question, whatever its prompt."""

    def row(question, said):
        doc = {"text_of_it": question}
        arguments = [[f"{said}: {question}", {}]]
        found = {"doc_id": 0, "doc": doc, "target": "5", "arguments": arguments, "resps": [[said]], "exact_match": 1.0}
        return found | {"filtered_resps": [said]} | ({"doc_hash": f"hash of {question}"} if hashed else {})

    files = [
        write(f"{name}/samples_sums_{STAMP}.jsonl", [row(question, name)])
        for name, question in (("ann", "2 + 3?"), ("bob", "2 + 3?"), ("cid", "1 + 4?"))
    ]
    report, outcomes = imported("lm-eval", *files)
    ann, bob, cid = (outcome.query_id for outcome in outcomes)
    assert ann == bob != cid
    assert {ann[:2], cid[:2]} == {"0~"}
    assert report.queries == {2: 1, 1: 1}
    assert outcomes[2].query == "cid: 1 + 4?"


def test_two_folders_are_two_members_of_the_same_questions(imported, fixtures, tmp_path):
    """The same documents under a template of its own: one question, the first text of it, named by its number."""
    folder = tmp_path / "results"
    shutil.copytree(fixtures / "lm-eval", folder)
    (folder / "org__bob").mkdir()
    lines = (fixtures / f"lm-eval/org__ann/samples_toy_gen_{STAMP}.jsonl").read_text().splitlines()[:2]
    rows = [json.loads(line.replace("Q: ", "<|user|>").replace("lol", "It is 5.")) for line in lines]
    for row in rows:
        row["doc"].pop("question")
    (folder / "org__bob" / f"samples_toy_gen_{STAMP}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    report, outcomes = imported("lm-eval", folder)
    assert report.queries == {2: 2, 1: 2}
    assert [member.name for member in report.members] == ["org/ann", "org/bob"]
    assert {outcome.query for outcome in outcomes if outcome.task == "toy_gen"} == {"What is 2 + 3?", "What is 4 + 4?"}


def test_an_older_file_without_digests_joins_a_newer_one(imported, fixtures, write):
    name = f"samples_toy_gen_{STAMP}.jsonl"
    lines = (fixtures / f"lm-eval/org__ann/{name}").read_text().splitlines()[:2]
    rows = [{key: value for key, value in json.loads(line).items() if not key.endswith("_hash")} for line in lines]
    report, _ = imported("lm-eval", fixtures / f"lm-eval/org__ann/{name}", write(f"bob/{name}", rows))
    assert report.queries == {2: 2}


# ---- inspect_ai (files of 0.3.285)


def test_a_log_of_inspect_with_entries_in_zstandard_gives_what_its_json_gives(imported, fixtures):
    """Two samples in two epochs; the fourth answer, 9 instead of 8, is wrong: letters C and I are 1 and 0."""
    expected = [
        ("sums", "s1", "5", "5", "5", 1.0, 11, 3),
        ("sums", "s2", "It is 8.", "8", "8", 1.0, 11, 3),
        ("sums", "s1#2", "5", "5", "5", 1.0, 11, 3),
        ("sums", "s2#2", "9", "9", "8", 0.0, 11, 3),
    ]
    columns = ("task", "query_id", "response", "answer", "gold", "reward", "prompt_tokens", "completion_tokens")
    for name in ("inspect_sums.json", "inspect_sums_zstd.eval"):
        report, outcomes = imported("inspect", fixtures / name)
        assert brief(outcomes, *columns) == expected
        assert {outcome.model for outcome in outcomes} == {"mockllm/ann"}
        assert report.skipped == {}


def test_choices_of_inspect_stand_in_the_query(imported, fixtures):
    _, (outcome,) = imported("inspect", fixtures / "inspect_letters_zstd.eval")
    assert outcome.query == "Which is a vowel?\nA) B\nB) E"
    assert (outcome.response, outcome.answer, outcome.reward) == ("ANSWER: B", "B", 1.0)


def test_a_sample_that_ended_in_an_error_is_a_failure_and_one_without_scores_is_unscored(imported, fixtures, write):
    log = json.loads((fixtures / "inspect_sums.json").read_text())
    log["samples"][0] |= {"error": {"message": "RateLimitError 429"}, "scores": {}, "output": {"choices": []}}
    log["samples"][1] |= {"scores": None}
    _, outcomes = imported("inspect", write("log.json", log))
    failed, unscored = outcomes[:2]
    assert (failed.response, failed.answer, failed.reward) == (None, None, 0.0)
    assert failed.extras["failure"] == "RateLimitError 429"
    assert (unscored.response, unscored.answer, unscored.reward) == ("It is 8.", "8", None)


def test_of_several_scorers_the_user_says_which(imported, fixtures, write):
    log = json.loads((fixtures / "inspect_sums.json").read_text())
    for sample in log["samples"]:
        sample["scores"]["style"] = {"value": 0.25}
    path = write("log.json", log)
    with pytest.raises(OutcomeError, match="`--reward` must say which score is the reward, got several: match, style"):
        imported("inspect", path)
    _, outcomes = imported("inspect", path, reward="style")
    assert {outcome.reward for outcome in outcomes} == {0.25}


def test_another_sample_under_the_same_id_of_inspect_is_another_question(imported, fixtures, write):
    """Epochs of one sample share its id; a later version of the data asks something else under it."""
    log = json.loads((fixtures / "inspect_sums.json").read_text())
    first = write("first.json", log)
    log["eval"]["model"] = "mockllm/bob"
    for sample in log["samples"]:
        if sample["id"] == "s2":
            sample["input"] = "What is 7 + 1?"
    report, outcomes = imported("inspect", first, write("second.json", log))
    assert report.queries == {2: 2, 1: 4}
    ids = {outcome.query_id for outcome in outcomes if outcome.query == "What is 7 + 1?"}
    assert {name.partition("~")[0] for name in ids} == {"s2"}
    assert {name.partition("#")[2] for name in ids} == {"", "2"}
    assert {outcome.query_id for outcome in outcomes if outcome.query_id.startswith("s1")} == {"s1", "s1#2"}


def test_a_grade_of_inspect_that_is_no_score_is_counted(imported, fixtures, write):
    log = json.loads((fixtures / "inspect_sums.json").read_text())
    log["samples"][1]["scores"]["match"]["value"] = "A-"
    report, outcomes = imported("inspect", write("log.json", log))
    assert [outcome.reward for outcome in outcomes] == [1.0, None, 1.0, 0.0]
    assert [note.partition(" (")[0] for note in report.notes] == ["score not a number, left open: 'A-'"]


# ---- promptfoo (shapes of its version 0.121 and of earlier ones)


def promptfoo_result(model, a, b, **changes):
    return {
        "cost": 0.001,
        "latencyMs": 250,
        "namedScores": {},
        "prompt": {"raw": f"What is {a} + {b}?", "label": "What is {{a}} + {{b}}?"},
        "promptIdx": 0,
        "provider": {"id": f"openai:{model}", "label": model},
        "response": {"output": str(a + b), "tokenUsage": {"total": 12, "prompt": 9, "completion": 3}},
        "score": 1,
        "success": True,
        "testCase": {"vars": {"a": a, "b": b}, "assert": [{"type": "equals", "value": str(a + b)}]},
        "testIdx": 0,
        "vars": {"a": a, "b": b},
        "failureReason": 0,
    } | changes


RESULTS = [
    promptfoo_result("ann", 2, 3),
    promptfoo_result(
        "bob", 2, 3, response={"output": "6"}, score=0, success=False, failureReason=1, error="Expected 6 to equal 5"
    ),
    promptfoo_result("ann", 4, 4),
    promptfoo_result(
        "bob", 4, 4, response={"error": "429 Too many"}, score=0, success=False, failureReason=2, error="429 Too many"
    ),
]
PROMPTFOO = [("ann", "5", "5", 1.0), ("bob", "6", "6", 0.0), ("ann", "8", "8", 1.0), ("bob", None, None, 0.0)]


@pytest.mark.parametrize("version", [3, 2])
def test_results_of_promptfoo(imported, write, version):
    """An assertion that fails has an error too, and is a wrong answer; a provider's error is a failure."""
    whole = {
        "evalId": "e",
        "results": {"version": version, "prompts": [], "results": RESULTS},
        "config": {"description": "sums"},
    }
    report, outcomes = imported("promptfoo", write("results.json", whole))
    assert brief(outcomes, "model", "response", "answer", "reward") == PROMPTFOO
    assert brief(outcomes, "task", "query", "gold", "latency_s", "cost_usd")[0] == (
        "sums",
        "What is 2 + 3?",
        "5",
        0.25,
        0.001,
    )
    assert (outcomes[0].prompt_tokens, outcomes[0].completion_tokens) == (9, 3)
    assert report.queries == {2: 2}


def test_how_long_a_cache_took_is_not_how_long_the_member_takes(imported, write):
    cached = {"output": "5", "cached": True}
    rows = [
        promptfoo_result("ann", 2, 3, response=cached),
        promptfoo_result("bob", 2, 3, response=cached | {"cached": False}),
    ]
    _, (ann, bob) = imported("promptfoo", write("results.jsonl", rows))
    assert (ann.latency_s, bob.latency_s) == (None, 0.25)


def test_promptfoo_in_json_lines(imported, write):
    _, outcomes = imported("auto", write("results.jsonl", RESULTS))
    assert brief(outcomes, "model", "response", "answer", "reward") == PROMPTFOO


def test_tables_of_promptfoo_old_and_new(imported, write):
    """Newer tables have the score in columns beside the output, whose names repeat; older ones have it in the same cell."""
    new = (
        "a,b,[ann] What is {{a}} + {{b}}?,Status,Score,Named Scores,Grader Reason,Comment,"
        "[bob] What is {{a}} + {{b}}?,Status,Score,Named Scores,Grader Reason,Comment\n"
        "2,3,5,PASS,1.00,,ok,,6,FAIL,0.00,,no,\n4,4,8,PASS,1.00,,ok,,429 Too many,ERROR,0.00,,,\n"
    )
    old = (
        "a,b,[ann] What is {{a}} + {{b}}?,[bob] What is {{a}} + {{b}}?\n"
        '2,3,"[PASS] (1.00)\n\n5\n\nPass Reason: ok","[FAIL] (0.00)\n\n6\n\nFail Reason: no"\n'
        '4,4,"[PASS] (1.00)\n\n8","[ERROR] (0.00)\n\n429 Too many"\n'
    )
    for text in (new, old):
        _, outcomes = imported("promptfoo", write("table.csv", text))
        assert brief(outcomes, "model", "response", "answer", "reward") == PROMPTFOO
        assert {outcome.query for outcome in outcomes} == {"What is 2 + 3?", "What is 4 + 4?"}


# ---- HELM (shape of crfm-helm 0.5.16)


def helm_run(write, folder, model, said, exact, *, failed=False, asks="Question"):
    states = []
    stats = []
    for number, (text, right) in enumerate(zip(said, exact, strict=True)):
        instance = {
            "input": {"text": f"{asks} {number}?"},
            "references": [
                {"output": {"text": "yes"}, "tags": ["correct"]},
                {"output": {"text": "no"}, "tags": []},
            ],
            "split": "test",
            "id": f"id{number}",
        }
        result = {
            "success": True,
            "completions": [{"text": text, "logprob": 0, "tokens": []}],
            "cached": False,
            "request_time": 0.5,
        }
        states.append(
            {
                "instance": instance,
                "request_mode": "original",
                "train_trial_index": 0,
                "output_mapping": {"A": "yes", "B": "no"},
                "request": {"model": model, "prompt": "five examples, then the question"},
                "result": {"success": False, "error": "time-out", "completions": []} if failed and number else result,
            }
        )
        metrics = {"exact_match": right, "num_prompt_tokens": 40, "num_output_tokens": 1}
        stats.append(
            {
                "instance_id": f"id{number}",
                "train_trial_index": 0,
                "stats": [
                    {"name": {"name": n, "split": "test"}, "count": 1, "sum": v, "mean": v} for n, v in metrics.items()
                ],
            }
        )
    states.append(states[0] | {"instance": states[0]["instance"] | {"perturbation": {"name": "typos"}}})
    name = f"toy:subject=law,model={model}"
    write(
        f"{folder}/scenario_state.json",
        {"adapter_spec": {"method": "multiple_choice_joint", "model": model}, "request_states": states},
    )
    write(f"{folder}/per_instance_stats.json", stats)
    write(f"{folder}/run_spec.json", {"name": name, "adapter_spec": {"model": model}})


def test_run_folders_of_helm_join_by_instance(imported, write, tmp_path):
    """The answer is a letter, the right one is that of the right reference; a perturbed copy and a failed request are told apart."""
    helm_run(write, "runs/a", "org/ann", [" A", " B"], [1.0, 0.0])
    helm_run(write, "runs/b", "org/bob", [" B", " A"], [0.0, 1.0], failed=True)
    report, outcomes = imported("auto", tmp_path / "runs")
    assert brief(outcomes, "task", "query_id", "model", "response", "answer", "gold", "reward") == [
        ("toy:subject=law", "id0", "org/ann", " A", "A", "A", 1.0),
        ("toy:subject=law", "id0", "org/bob", " B", "B", "A", 0.0),
        ("toy:subject=law", "id1", "org/ann", " B", "B", "A", 0.0),
        ("toy:subject=law", "id1", "org/bob", None, None, "A", 0.0),
    ]
    assert outcomes[0].query == "Question 0?\nA) yes\nB) no"
    assert (outcomes[0].prompt_tokens, outcomes[0].completion_tokens, outcomes[0].latency_s) == (40, 1, 0.5)
    assert report.skipped["of a perturbed instance"][0] == 2
    assert report.queries == {2: 2}


def test_another_instance_under_the_same_id_of_helm_is_another_question(imported, write, tmp_path):
    helm_run(write, "runs/a", "org/ann", [" A", " B"], [1.0, 0.0])
    helm_run(write, "runs/b", "org/bob", [" B", " A"], [0.0, 1.0], asks="Riddle")
    report, outcomes = imported("helm", tmp_path / "runs")
    assert report.queries == {1: 4}
    assert {outcome.query_id.partition("~")[0] for outcome in outcomes} == {"id0", "id1"}
