"""The protocol of the method's released research code on its own pool, on its own labels and on corrected ones.

    python docs/benchmarks/released.py FOLDER [--seeds 3] [--passes 25 100] [--policies 3]

FOLDER holds `bbh.parquet` and `bbh.npz`, the same rows as arrays: option scores, labels as released (`labels_orig`), wrong in
7 of 24 subtasks, and corrected (`labels`).

The released protocol is written again from its description. For each subtask a Decider (a hidden layer of 128, an on/off head
for each member) sees its last team, that team's plurality accuracy over the last 500 labelled rows, and its size; its reward
is +1 where its team's plurality is right, else -1 - alpha |E| / N. Fusion (two sigmoid layers of 100) sees the team's option
scores, zeros for the others; its reward is +1 or -1. Both are REINFORCE with Adam and returns over blocks of 10 rows. Every
action is sampled, in testing too, where both learn from each block once answered. Assumed: how many passes over the training
rows (the Decider's, then Fusion's with the Decider fixed; none is chosen as best), option scores as released, standardised
returns, a window that runs on into the test rows, an empty team is wrong, the first of options with equal votes wins.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pools import POOLS

from langchain_rlfocal.environment import replay
from langchain_rlfocal.outcomes import OutcomeGrid, OutcomeTable
from langchain_rlfocal.states import Floats, Ints
from langchain_rlfocal.training import TrainingConfig, train

LABELS = {"as released": "labels_orig", "corrected": "labels"}
KINDS = ("Fusion, sampled", "Fusion, its most probable answer", "plurality of the Decider's team", "calls")
ALPHA, WINDOW, BLOCK, RATE = 0.6, 500, 10, 1e-3


class Learners:
    """L networks of one shape, each with its own weights, that learn side by side and share nothing."""

    def __init__(self, sizes: Sequence[int], activation: Any, *, num: int, gamma: float) -> None:
        self.layers = []
        for inputs, outputs in pairwise(sizes):
            bound = (6 / (inputs + outputs)) ** 0.5
            weight = torch.empty(num, inputs, outputs).uniform_(-bound, bound).requires_grad_()
            self.layers.append((weight, torch.full((num, 1, outputs), 0.01, requires_grad=True)))
        self._activation, self._gamma = activation, gamma
        self._optimizer = torch.optim.Adam([one for layer in self.layers for one in layer], lr=RATE)

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute logits, from [L, B, inputs] to [L, B, outputs]."""
        for weight, bias in self.layers[:-1]:
            inputs = self._activation(torch.baddbmm(bias, inputs, weight))
        return torch.baddbmm(self.layers[-1][1], inputs, self.layers[-1][0])

    def learn(self, log_probs: torch.Tensor, rewards: Floats) -> None:
        """Step along the policy gradient of one block, both of shape [L, B]."""
        step = np.arange(rewards.shape[1])
        returns = rewards @ np.tril(self._gamma ** np.abs(step[:, None] - step))
        centred = returns - returns.mean(axis=1, keepdims=True)
        advantages = torch.from_numpy(centred / (centred.std(axis=1, keepdims=True) + 1e-9)).float()
        self._optimizer.zero_grad()
        (-(advantages * log_probs).mean(axis=1).sum()).backward()
        self._optimizer.step()


def released(probs: Floats, labels: Ints, *, num_train: int, passes: int) -> list[Floats]:
    """Play the released protocol on one subtask.

    Args:
        probs: Option scores, shape [Q, N, O].
        labels: Right options as each of L learners is told, shape [L, Q].
        num_train: How many rows, the first ones, are for training.
        passes: Passes over them for each agent.

    Returns:
        Means over the test rows of what `KINDS` names, each of shape [L].
    """
    (num_queries, num_members, num_options), learner = probs.shape, np.arange(len(labels))
    every_team = (np.arange(2**num_members)[:, None] >> np.arange(num_members)) & 1  # [teams, N]
    votes = np.einsum("tm,qmo->tqo", every_team, np.eye(num_options)[probs.argmax(axis=2)])
    is_right = (votes.argmax(axis=2) == labels[:, None]) & every_team.any(axis=1)[:, None]  # [L, teams, Q]
    so_far = np.pad(is_right.cumsum(axis=2), ((0, 0), (0, 0), (1, 0)))
    size, bits, rng = every_team.sum(axis=1) / num_members, 2 ** np.arange(num_members), np.random.default_rng(0)
    decider = Learners((num_members + 2, 128, num_members), torch.relu, num=len(labels), gamma=0.99)
    fusion = Learners((num_members * num_options, 100, 100, num_options), torch.sigmoid, num=len(labels), gamma=0.5)

    def walk(rows: Ints, *, teach: Sequence[Learners]) -> Floats:
        team, seen = np.full(len(labels), len(every_team) - 1), []
        for block in np.split(rows, range(BLOCK, len(rows), BLOCK)):
            hidden, hidden_bias, out, out_bias = [one.detach().numpy() for layer in decider.layers for one in layer]
            steps = []
            for row in block:
                since = max(row - WINDOW, 0)
                accuracy = (so_far[learner, team, row] - so_far[learner, team, since]) / max(row - since, 1)
                saw = np.column_stack([every_team[team], accuracy, size[team]])[:, None].astype(np.float32)
                logits = np.maximum(saw @ hidden + hidden_bias, 0) @ out + out_bias
                team = (rng.random(logits[:, 0].shape) < 1 / (1 + np.exp(-logits[:, 0]))) @ bits
                steps.append((saw[:, 0], team))
            shown, chosen = (np.stack(values, axis=1) for values in zip(*steps, strict=True))  # [L, B, N + 2], [L, B]
            voted = is_right[learner[:, None], chosen, block]
            inputs = (every_team[chosen][..., None] * probs[block]).reshape(*chosen.shape, -1).astype(np.float32)
            log_shares = fusion(torch.from_numpy(inputs)).log_softmax(-1)
            shares = log_shares.detach().exp().numpy().astype(float).cumsum(axis=-1)
            answers = (rng.random(chosen.shape)[..., None] * shares[..., -1:] >= shares).sum(axis=-1)
            is_hit, best = (said == labels[:, block] for said in (answers, log_shares.argmax(-1).numpy()))
            seen.append(np.stack([is_hit, best, voted, size[chosen] * num_members]))
            if decider in teach:
                logits = decider(torch.from_numpy(shown))
                log_probs = torch.from_numpy(every_team[chosen]) * logits - torch.nn.functional.softplus(logits)
                decider.learn(log_probs.sum(-1), np.where(voted, 1.0, -1.0 - ALPHA * size[chosen]))
            if fusion in teach:
                log_probs = log_shares.gather(-1, torch.from_numpy(answers)[..., None])
                fusion.learn(log_probs[..., 0], np.where(is_hit, 1.0, -1.0))
        return np.concatenate(seen, axis=2).mean(axis=2)

    for teach in [[decider]] * passes + [[fusion]] * passes:
        walk(np.arange(num_train), teach=teach)
    return [*walk(np.arange(num_train, num_queries), teach=[decider, fusion])]


def relabelled(grid: OutcomeGrid, arrays: Any, key: str) -> OutcomeGrid:
    """Score the grid by these labels; refuses arrays that are not the grid's rows."""
    scores, option_scores, golds = np.empty_like(grid.scores), np.full_like(grid.option_scores, np.nan), []
    for q, (task, query_id) in enumerate(zip(grid.tasks, grid.query_ids, strict=True)):
        name, row = task.removeprefix("bbh/"), int(query_id.rpartition("-")[2])
        probs, label = arrays[f"{name}/probs"][row], int(arrays[f"{name}/{key}"][row])
        same = np.allclose(grid.option_probs[q, :, : probs.shape[1]], probs, atol=1e-5)
        if not same or not arrays[f"{name}/valid"][row]:
            raise ValueError(f"bbh.npz must hold the rows of bbh.parquet in its order, but {task} {query_id} differs.")
        scores[q] = probs.argmax(axis=1) == label
        option_scores[q] = np.arange(option_scores.shape[1]) == label
        golds.append(str(arrays[f"{name}/choices"][label]))
    return replace(grid, scores=scores, option_scores=np.where(grid.option_ids < 0, np.nan, option_scores), golds=golds)


def macro(scores: Floats, tasks: Sequence[str]) -> Floats:
    """Mean over the tasks of the mean of scores of shape [Q, ...]."""
    return np.mean([scores[np.array(tasks) == name].mean(axis=0) for name in sorted(set(tasks))], axis=0)


def simple_figures(grid: OutcomeGrid) -> dict[str, float]:
    """Macro accuracy on the test rows of members, chosen by the training rows, and of the vote."""
    known, test = grid.take(~grid.is_test), grid.take(grid.is_test)
    best, names, row = macro(known.scores, known.tasks), np.array(known.tasks), np.arange(len(test))
    best_of = {name: known.scores[names == name].mean(axis=0).argmax() for name in set(known.tasks)}
    votes = (test.answer_ids[:, :, None] == test.answer_ids[:, None, :]).sum(axis=1) + best * 1e-3
    return {
        "single best member": macro(test.scores, test.tasks)[best.argmax()],
        "best member of each subtask": macro(test.scores[row, [best_of[name] for name in test.tasks]], test.tasks),
        "plurality of all five": macro(test.scores[row, votes.argmax(axis=1)], test.tasks),
    }


def cell(values: Sequence[float], calls: Sequence[float]) -> str:
    """Write mean, range and calls."""
    return f"{100 * np.mean(values):.1f} ({100 * min(values):.1f} to {100 * max(values):.1f}) at {np.mean(calls):.2f} calls"


def main() -> None:
    """Play, train, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3, help="of the released protocol")
    parser.add_argument("--passes", type=int, nargs="+", default=[25, 100])
    parser.add_argument("--policies", type=int, default=3, help="seeds of our policy, a minute or two for each")
    given = parser.parse_args()
    pool, arrays = POOLS["bbh/all5"], np.load(given.folder / "bbh.npz")
    grid = OutcomeTable.read(given.folder / "bbh.parquet").grid(arrays["models"].tolist(), test_ids=pool.test_ids)
    limits = {"max_team": pool.max_team, "max_rounds": pool.max_rounds}
    torch.manual_seed(0)
    torch.set_num_threads(1)  # small matrices are faster on one thread
    tables: dict[str, dict[str, str]] = {}
    for title, key in LABELS.items():
        scored = relabelled(grid, arrays, key)
        tables[title] = {name: f"{100 * value:.1f}" for name, value in simple_figures(scored).items()}
        parts = scored.split()
        policies = [train(*parts[:2], TrainingConfig(seed=seed, **limits)) for seed in range(given.policies)]
        plays = [replay(policy, parts[2], cost_weight=0.0, **limits) for policy in policies]
        scores = [macro(played.scores, parts[2].tasks) for played in plays]
        tables[title]["our policy, frozen"] = cell(scores, [played.calls.mean() for played in plays])
    for passes in given.passes:
        results = []
        for name in arrays["tasks"]:
            labels = np.repeat([arrays[f"{name}/{key}"] for key in LABELS.values()], given.seeds, axis=0)
            num_train = int(arrays[f"{name}/n_train"])
            results.append(released(arrays[f"{name}/probs"], labels, num_train=num_train, passes=passes))
        *figures, calls = np.mean(results, axis=0).reshape(len(KINDS), len(LABELS), given.seeds)
        for kind, figure in zip(KINDS, figures, strict=False):
            for turn, title in enumerate(LABELS):
                tables[title][f"released protocol, {passes} passes: {kind}"] = cell(figure[turn], calls[turn])
    print(f"\n## bbh\n\nMacro accuracy % over the subtasks; runs of our policy: {given.policies}, else {given.seeds}\n")
    print(f"| | labels {' | labels '.join(tables)} |\n|---|{'---|' * len(tables)}")
    for name in next(iter(tables.values())):
        print(f"| {name} | {' | '.join(table[name] for table in tables.values())} |")


if __name__ == "__main__":
    main()
