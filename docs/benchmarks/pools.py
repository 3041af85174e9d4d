"""The pools of the benchmarks: which recorded outcomes, which members, which limits.

The outcomes themselves are not part of this project. A folder given to the benchmarks holds one Parquet file for each
`file` below, with the columns of a table of outcomes and the members' names as they stand here.
"""

from dataclasses import dataclass
from pathlib import Path

from langchain_rlfocal.outcomes import OutcomeGrid, OutcomeTable

OPEN12 = (
    "Meta-Llama-3-70B",
    "Meta-Llama-3_1-70B",
    "jamba-1.5-large",
    "Qwen1.5-110B",
    "Qwen1.5-72B-Chat",
    "Meta-Llama-3_1-8B-Instruct",
    "mathstral-7B",
    "Phi-3-mini-4k-instruct",
    "Yi-34B",
    "Mixtral-8x7B-Instruct-v0.1",
    "c4ai-command-r-v01",
    "gemma-7b",
)
CHAT5 = (
    "gemini-1.5-flash-002",
    "Meta-Llama-3_1-70B-Instruct",
    "jamba-1.5-large",
    "Qwen1.5-72B-Chat",
    "Meta-Llama-3_1-8B-Instruct",
)
CHEAP8 = (
    "Meta-Llama-3.1-8B-Instruct",
    "Qwen2-7B-Instruct",
    "gemma-2-9b-it",
    "Phi-3.5-mini-instruct",
    "Yi-1.5-34B-Chat",
    "gpt-3.5-turbo-0125",
    "claude-3-haiku-20240307",
    "gemini-1.5-flash",
)
CHEAP5 = (
    "gpt-4o-mini-2024-07-18-FC",
    "claude-3-haiku-20240307",
    "gemini-1.5-flash-preview-0514",
    "open-mistral-nemo-2407-FC-Auto",
    "command-r-plus-FC",
)


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool and how it is trained and evaluated.

    Attributes:
        file: Name of the outcomes' file, without suffix.
        members: The members; None takes all in the file.
        tasks: Globs of the tasks; None takes all.
        test_ids: Glob of the test rows' `query_id`; None splits by hash.
        max_team: Members that may be asked.
        max_rounds: Rounds in which they may be asked.
        targets: Mean calls at which it is evaluated; 0 stands for a cost weight of 0.
        share: Share of the single best member's dollars at which it is evaluated instead; None counts calls.
    """

    file: str
    members: tuple[str, ...] | None
    max_team: int
    max_rounds: int
    targets: tuple[float, ...]
    tasks: tuple[str, ...] | None = None
    test_ids: str | None = None
    share: float | None = None

    def read(self, folder: Path) -> OutcomeGrid:
        """Read the pool's outcomes."""
        table = OutcomeTable.read(folder / f"{self.file}.parquet")
        return table.grid(self.members or table.members, task=self.tasks, test_ids=self.test_ids)


POOLS = {
    "mmlu_pro/open12": Pool("mmlu_pro", OPEN12, max_team=8, max_rounds=4, targets=(5.0, 3.0)),
    "mmlu_pro/strong14": Pool(
        "mmlu_pro",
        (*OPEN12, "Meta-Llama-3_1-70B-Instruct", "gemini-1.5-pro-002"),
        max_team=5,
        max_rounds=3,
        targets=(3.0,),
    ),
    "mmlu_pro/chat5": Pool("mmlu_pro", CHAT5, max_team=4, max_rounds=3, targets=(2.0,)),
    "bbh/all5": Pool("bbh", None, max_team=5, max_rounds=2, targets=(0.0,), test_ids="test*"),
    "zeroeval/cheap8": Pool("zeroeval", CHEAP8, max_team=6, max_rounds=3, targets=(4.0,)),
    "bfcl/cheap5": Pool(
        "bfcl",
        CHEAP5,
        max_team=5,
        max_rounds=3,
        targets=(3.0,),
        tasks=(
            "bfcl/simple",
            "bfcl/multiple_function",
            "bfcl/parallel_function",
            "bfcl/parallel_multiple_function",
        ),
    ),
    "routerbench/all11": Pool("routerbench", None, max_team=4, max_rounds=3, targets=(), share=0.3),
}
