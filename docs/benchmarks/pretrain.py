"""Make the networks that come with the package, which every training starts from.

    python docs/benchmarks/pretrain.py FOLDER [--pools 24] [--iterations 400] [--seed 0] [--out FILE]

They learn on random pools of two Apache-2.0 tables in FOLDER, `mmlu_pro.parquet` and `zeroeval.parquet`: random members, tasks,
rows (some few), limits and prices, some with open answers, and each pool is seen in three ways: with what training knows of
its queries, as if their tasks were new, and with nothing known but what someone would declare. No member of a pool in
`pools.py` takes part, and no other table, so that every benchmark there is of members that the networks have not seen.

Takes about eight minutes on one quiet core. The same command makes the same bytes.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from pools import POOLS
from threadpoolctl import threadpool_limits

from langchain_rlfocal.environment import EnsembleEnv, answers_of
from langchain_rlfocal.outcomes import OutcomeGrid, OutcomeTable
from langchain_rlfocal.policies import pretrained
from langchain_rlfocal.states import Evidence, MemberFeatures
from langchain_rlfocal.training import TrainingConfig
from langchain_rlfocal.training.mappo import Learner, environments
from langchain_rlfocal.training.supervised import prepare

SHARES = (0.6, 0.25, 0.15)
"""How often a pool is seen as known, as new tasks, and as unknown."""

Seen = tuple[EnsembleEnv, int]


def sources(folder: Path) -> list[OutcomeGrid]:
    """Read both tables, without the members of the benchmarks' pools and those who did not answer every query."""
    grids = []
    for file in ("mmlu_pro", "zeroeval"):
        table = OutcomeTable.read(folder / f"{file}.parquet")
        taken = {name for pool in POOLS.values() if pool.file == file for name in pool.members or ()}
        left = [name for name in table.members if name not in taken]
        counts = {name: len(table.grid([name])) for name in left}
        grids.append(table.grid([name for name in left if counts[name] == max(counts.values())]))
    return grids


def draw_pool(grids: Sequence[OutcomeGrid], rng: np.random.Generator) -> tuple[OutcomeGrid, TrainingConfig]:
    """Draw members, tasks, rows, limits and prices."""
    whole = grids[int(rng.random() < 0.4)]
    columns = np.sort(rng.permutation(len(whole.members))[: rng.integers(2, 13)])
    names = sorted(set(whole.tasks))
    tasks = [names[i] for i in rng.permutation(len(names))[: rng.integers(1, len(names) + 1)]]
    rows = np.flatnonzero(np.isin(np.array(whole.tasks), tasks))
    num = int(np.exp(rng.uniform(np.log(60), np.log(1500))))
    grid = of_members(whole.take(np.sort(rng.permutation(rows)[:num])), columns)
    m = len(columns)
    if rng.random() < 0.15:  # open answers: no two are the same
        ids = np.where(grid.answer_ids >= 0, np.arange(m), -1).astype(np.int32)
        texts = np.array([[f"{q}/{k}" for k in range(m)] for q in range(len(grid))], dtype=object)
        grid = replace(grid, answer_ids=ids, answers=np.where(ids >= 0, texts, np.array(None, dtype=object)))
    if rng.random() < 0.5:
        grid = replace(grid, cost_usd=np.tile(np.exp(rng.normal(size=m)), (len(grid), 1)))
    config = TrainingConfig(
        max_team=int(rng.integers(2, 9)), max_rounds=int(rng.integers(1, 5)), seed=int(rng.integers(2**31))
    )
    return grid, config


def of_members(grid: OutcomeGrid, columns: np.ndarray) -> OutcomeGrid:
    """Keep these members."""
    parts = {
        name: getattr(grid, name)[:, columns]
        for name in (
            "scores",
            "recorded",
            "propensity",
            "cost_usd",
            "latency_s",
            "prompt_tokens",
            "completion_tokens",
            "logprobs",
            "response_chars",
        )
    }
    ids = grid.answer_ids[:, columns]
    first = (ids[:, :, None] == ids[:, None, :]).argmax(axis=2)
    return replace(
        grid,
        members=tuple(grid.members[column] for column in columns),
        answers=grid.answers[:, columns],
        answer_ids=np.where(ids >= 0, first, -1).astype(np.int32),
        **parts,
    )


def unknown(grid: OutcomeGrid, config: TrainingConfig, rng: np.random.Generator) -> Seen:
    """Show a pool of which nothing is known but each member's competence, well or badly declared or not at all."""
    (q, m), kind = grid.scores.shape, np.float32
    declared = np.clip(grid.scores.mean(axis=0) + 0.1 * rng.normal(size=m), 0.05, 0.95)
    competence = np.tile(declared if rng.random() < 0.5 else np.full(m, 0.5), (q, 1)).astype(kind)
    trust = np.log(competence / (1 - competence)) + 1
    features = MemberFeatures(
        competence=competence,
        trust=trust,
        option_weights=np.zeros((q, m), dtype=kind),
        price=np.full(m, 1 / m, dtype=kind),
        diversity=np.zeros((m, m), dtype=kind),
        novelty=np.ones(q, dtype=kind),
        coincidence=np.ones(q, dtype=kind),
    )
    answers = answers_of(grid)
    evidence = Evidence(answers.candidate_index, trust, np.zeros(answers.labels.shape, dtype=kind), None, None)
    env = EnsembleEnv(grid, features, evidence, max_team=config.max_team, max_rounds=config.max_rounds)
    return env, q


def pretrain(grids: Sequence[OutcomeGrid], *, num_pools: int, num_iterations: int, seed: int) -> dict[str, np.ndarray]:
    """Learn on random pools: arrays of actors and critic by name."""
    rng = np.random.default_rng(seed)
    # So many kinds of pools ask for more patience with choices that do not seem to pay yet.
    config = TrainingConfig(seed=seed, num_iterations=num_iterations, learning_rate=5e-3, entropy_coef=0.01)
    learner = Learner(config)
    networks, pools, start = learner.actors.arrays(), [], time.perf_counter()
    while len(pools) < num_pools:
        grid, own = draw_pool(grids, rng)
        if len(grid) < 40:
            continue
        data = prepare(grid, own, embedder=None, rng=rng)
        known, *new = environments(grid, data, own, embedder=None, rng=rng, networks=networks)
        pools.append((known, *(new or [known]), unknown(grid, own, rng)))
    print(f"{num_pools} pools in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    recent: list[float] = []
    for step in range(1, num_iterations + 1):
        pool = pools[rng.integers(num_pools)]
        rollout, _ = learner.learn(*pool[rng.choice(3, p=SHARES)], step=step, rng=rng)
        recent.append(float(rollout.rewards.sum(axis=0).mean()))
        if step % 50 == 0:
            seconds = time.perf_counter() - start
            print(f"{step}: reward {np.mean(recent[-50:]):.3f}, {seconds:.0f} s", file=sys.stderr, flush=True)
    return learner.arrays()


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pools", type=int, default=24)
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(pretrained.__file__).with_suffix(".safetensors"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(limits=1, user_api="blas"):
        arrays = pretrain(
            sources(given.folder), num_pools=given.pools, num_iterations=given.iterations, seed=given.seed
        )
    given.out.write_bytes(pretrained.dump_networks(arrays))


if __name__ == "__main__":
    main()
