"""What an import takes: seconds of processor time and memory, for samples with extracted answers and for logs without.

    python docs/benchmarks/imports.py [--questions 250000] [--members 4] [--labels]

Makes samples as lm-evaluation-harness writes them, imports them by the program, and prints what that took. With `--labels` the
answers are a spend log's, which have to be read and labelled.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Make the files, import them, and print what that took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=250_000)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--labels", action="store_true")
    args = parser.parse_args()
    chance = random.Random(0)  # noqa: S311  # no secret
    with tempfile.TemporaryDirectory() as folder:
        for member in range(args.members):
            file = Path(folder, f"m{member}", "samples_sums_2026-01-01T00-00-00.000000.jsonl")
            file.parent.mkdir()
            with file.open("w", encoding="utf-8") as sink:
                for number in range(args.questions):
                    said = number + 7 + (chance.random() < 0.3)
                    row = log_row(f"m{member}", number, said) if args.labels else sample_row(number, said)
                    sink.write(json.dumps(row) + "\n")
        source = "litellm" if args.labels else "lm-eval"
        out = Path(folder, "out.parquet")
        command = [sys.executable, "-m", "langchain_rlfocal.cli", "import", source, folder, "--out", str(out)]
        subprocess.run(command, check=True)  # noqa: S603  # our own program
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(
            f"{args.questions * args.members:,} outcomes: {used.ru_utime + used.ru_stime:.0f} s of one processor, ",
            end="",
        )
        print(f"{used.ru_maxrss / 2**20:.2f} GiB")


def sample_row(number: int, said: int) -> dict[str, object]:
    """Return a row of lm-evaluation-harness."""
    return {
        "doc_id": number,
        "doc": {
            "question": f"A shop has {number} apples and buys 7 more. How many apples does it have now? Think step by step."
        },
        "target": str(number + 7),
        "arguments": {"gen_args_0": {"arg_0": "Q: ...", "arg_1": {}}},
        "resps": [[f"It starts with {number} apples. It buys 7 more, so it has {said}. The answer is {said}."]],
        "filtered_resps": [str(said)],
        "filter": "none",
        "metrics": ["exact_match"],
        "exact_match": float(said == number + 7),
    }


def log_row(member: str, number: int, said: int) -> dict[str, object]:
    """Return a row of litellm's spend logs."""
    return {
        "call_type": "acompletion",
        "spend": 0.0001,
        "model": member,
        "messages": [
            {
                "role": "user",
                "content": f"A shop has {number} apples and buys 7 more. How many apples does it have now?",
            }
        ],
        "response": {"choices": [{"message": {"role": "assistant", "content": f"It has {said} apples."}}]},
        "status": "success",
    }


if __name__ == "__main__":
    main()
