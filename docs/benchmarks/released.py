"""The protocol of the method's released research code on its own pool, on its own labels and on corrected ones.

    python docs/benchmarks/released.py FOLDER [--seeds 3]

FOLDER holds `bbh.parquet`, as for the other benchmarks, and `bbh.npz`, the same rows as arrays by subtask: option scores, the
labels as released (`labels_orig`), wrong in 7 of 24 subtasks, and corrected (`labels`). Figures are means over the subtasks of
the accuracy on the rows that the paper tests.

The released protocol is written anew here, from its description. For each subtask a Decider (one hidden layer of 128, an
on/off head for each member) sees its last team, that team's plurality accuracy over the last 500 labelled rows, and its
size, all over their largest; its reward is +1 where the plurality of its team is right, else -1 - alpha |E| / N. Fusion (two
sigmoid layers of 100) sees the team's option scores, zeros for the others; its reward is +1 or -1. Both are REINFORCE with
returns over blocks of 10 rows, standardised, and Adam. Every action is sampled, in testing too, and both go on learning
there: each block of test rows is answered, then its labels teach the next.

Assumed, where the description leaves it open: 25 passes over the training rows for the Decider, then 25 for Fusion with the
Decider fixed, and no choice of a best pass; option scores enter as they were released, the window runs on from training to
test rows, an empty team is wrong, and of options with equal votes the first wins.
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
from torch import Tensor

from langchain_rlfocal.environment import replay
from langchain_rlfocal.outcomes import OutcomeGrid, OutcomeTable
from langchain_rlfocal.states import Floats, Ints
from langchain_rlfocal.training import TrainingConfig, train

LABELS = {"as released": "labels_orig", "corrected": "labels"}
ALPHA, WINDOW, BLOCK, PASSES, RATE = 0.6, 500, 10, 25, 1e-3
DECIDER, FUSION = (128,), (100, 100)
GAMMAS = {"decider": 0.99, "fusion": 0.5}


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

    def __call__(self, inputs: Tensor) -> Tensor:
        """Compute logits, from [L, B, inputs] to [L, B, outputs]."""
        for weight, bias in self.layers[:-1]:
            inputs = self._activation(torch.baddbmm(bias, inputs, weight))
        return torch.baddbmm(self.layers[-1][1], inputs, self.layers[-1][0])

    def learn(self, log_probs: Tensor, rewards: Floats) -> None:
        """Step along the policy gradient of one block, both of shape [L, B]."""
        returns, after = np.empty_like(rewards), np.zeros(len(rewards))
        for step in range(rewards.shape[1] - 1, -1, -1):
            returns[:, step] = after = rewards[:, step] + self._gamma * after
        spread = returns.std(axis=1, keepdims=True) + 1e-9
        advantages = torch.from_numpy((returns - returns.mean(axis=1, keepdims=True)) / spread).float()
        self._optimizer.zero_grad()
        (-(advantages * log_probs).mean(axis=1).sum()).backward()
        self._optimizer.step()


def released(probs: Floats, labels: Ints, *, num_train: int, rng: np.random.Generator) -> dict[str, Floats]:
    """Play the released protocol on one subtask.

    Args:
        probs: Option scores, shape [Q, N, O]; the first `num_train` rows are for training.
        labels: Right options as each of L learners is told, shape [L, Q].
        num_train: How many rows are for training.
        rng: Draws all actions.

    Returns:
        Means over the test rows by name, each of shape [L].
    """
    num_queries, num_members, num_options = probs.shape
    learner = np.arange(len(labels))
    every_team = (np.arange(2**num_members)[:, None] >> np.arange(num_members)) & 1  # [teams, N]
    votes = np.einsum("tm,qmo->tqo", every_team, np.eye(num_options)[probs.argmax(axis=2)])
    is_right = (votes.argmax(axis=2) == labels[:, None]) & every_team.any(axis=1)[:, None]  # [L, teams, Q]
    so_far = np.pad(is_right.cumsum(axis=2), ((0, 0), (0, 0), (1, 0)))
    size, bits = every_team.sum(axis=1) / num_members, 2 ** np.arange(num_members)
    decider = Learners((num_members + 2, *DECIDER, num_members), torch.relu, num=len(labels), gamma=GAMMAS["decider"])
    fusion_sizes = (num_members * num_options, *FUSION, num_options)
    fusion = Learners(fusion_sizes, torch.sigmoid, num=len(labels), gamma=GAMMAS["fusion"])

    def walk(rows: Ints, *, teach: Sequence[Learners]) -> dict[str, list[Floats]]:
        team = np.full(len(labels), len(every_team) - 1)
        seen: dict[str, list[Floats]] = {"sampled": [], "argmax": [], "plurality": [], "calls": []}
        for block in np.split(rows, range(BLOCK, len(rows), BLOCK)):
            (hidden, hidden_bias), (out, out_bias) = [
                [one.detach().numpy() for one in layer] for layer in decider.layers
            ]
            shown, teams = [], []
            for row in block:
                since = max(row - WINDOW, 0)
                accuracy = (so_far[learner, team, row] - so_far[learner, team, since]) / max(row - since, 1)
                saw = np.column_stack([every_team[team], accuracy, size[team]])[:, None].astype(np.float32)
                logits = np.maximum(saw @ hidden + hidden_bias, 0) @ out + out_bias
                team = (rng.random(logits[:, 0].shape) < 1 / (1 + np.exp(-logits[:, 0]))) @ bits
                shown.append(saw[:, 0])
                teams.append(team)
            chosen = np.stack(teams, axis=1)  # [L, B]
            voted = is_right[learner[:, None], chosen, block]
            inputs = every_team[chosen][..., None] * probs[block]
            log_shares = fusion(torch.from_numpy(inputs.reshape(*chosen.shape, -1)).float()).log_softmax(-1)
            shares = log_shares.detach().exp().numpy().astype(float).cumsum(axis=-1)
            answers = (rng.random(chosen.shape)[..., None] * shares[..., -1:] >= shares).sum(axis=-1)
            is_hit = answers == labels[:, block]
            for name, values in zip(
                seen,
                (is_hit, log_shares.argmax(-1).numpy() == labels[:, block], voted, size[chosen] * num_members),
                strict=True,
            ):
                seen[name].append(values)
            if decider in teach:
                on = torch.from_numpy(every_team[chosen]).float()
                logits = decider(torch.from_numpy(np.stack(shown, axis=1)))
                log_probs = -torch.nn.functional.binary_cross_entropy_with_logits(logits, on, reduction="none").sum(-1)
                decider.learn(log_probs, np.where(voted, 1.0, -1.0 - ALPHA * size[chosen]))
            if fusion in teach:
                taken = log_shares.gather(-1, torch.from_numpy(answers)[..., None])[..., 0]
                fusion.learn(taken, np.where(is_hit, 1.0, -1.0))
        return seen

    training = np.arange(num_train)
    for teach in ([decider], [fusion]):
        for _ in range(PASSES):
            walk(training, teach=teach)
    tested = walk(np.arange(num_train, num_queries), teach=[decider, fusion])
    return {name: np.concatenate(values, axis=1).mean(axis=1) for name, values in tested.items()}


def relabelled(grid: OutcomeGrid, arrays: Any, key: str) -> OutcomeGrid:
    """Score the grid by these labels; refuses arrays that are not the grid's rows."""
    scores, option_scores, golds = np.empty_like(grid.scores), np.full_like(grid.option_scores, np.nan), []
    for q, (task, query_id) in enumerate(zip(grid.tasks, grid.query_ids, strict=True)):
        name, row = task.removeprefix("bbh/"), int(query_id.rpartition("-")[2])
        probs, label = arrays[f"{name}/probs"][row], int(arrays[f"{name}/{key}"][row])
        num_options = probs.shape[1]
        if not np.allclose(grid.option_probs[q, :, :num_options], probs, atol=1e-5):
            raise ValueError(f"bbh.npz must hold the rows of bbh.parquet in its order, but {task} {query_id} differs.")
        scores[q] = probs.argmax(axis=1) == label
        option_scores[q, :num_options] = np.arange(num_options) == label
        golds.append(str(arrays[f"{name}/choices"][label]))
    option_scores[grid.option_ids < 0] = np.nan
    return replace(grid, scores=scores, option_scores=option_scores, golds=golds)


def macro(scores: Floats, tasks: Sequence[str]) -> Floats:
    """Mean over the tasks of the mean of scores of shape [Q, ...]."""
    names = np.array(tasks)
    return np.mean([scores[names == name].mean(axis=0) for name in sorted(set(tasks))], axis=0)


def simple_figures(grid: OutcomeGrid) -> dict[str, float]:
    """Macro accuracy on the test rows of members and votes; members are chosen by the training rows unless said."""
    known, test = grid.take(~grid.is_test), grid.take(grid.is_test)
    best = macro(known.scores, known.tasks)
    names = np.array(known.tasks)
    best_of = {name: known.scores[names == name].mean(axis=0).argmax() for name in set(known.tasks)}
    routed = test.scores[np.arange(len(test)), [best_of[name] for name in test.tasks]]
    votes = (test.answer_ids[:, :, None] == test.answer_ids[:, None, :]).sum(axis=1) + best * 1e-3
    return {
        "single best member": macro(test.scores, test.tasks)[best.argmax()],
        "single best member, chosen on the test rows": macro(test.scores, test.tasks).max(),
        "best member of each subtask": macro(routed, test.tasks),
        "plurality of all five": macro(test.scores[np.arange(len(test)), votes.argmax(axis=1)], test.tasks),
    }


def cell(values: Sequence[float], calls: Sequence[float]) -> str:
    """Write mean, range and calls."""
    percent = [100 * value for value in values]
    return f"{np.mean(percent):.1f} ({min(percent):.1f} to {max(percent):.1f}) at {np.mean(calls):.2f} calls"


def main() -> None:
    """Play, train, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    pool, arrays = POOLS["bbh/all5"], np.load(given.folder / "bbh.npz")
    members = [str(name) for name in arrays["models"]]
    grid = OutcomeTable.read(given.folder / "bbh.parquet").grid(members, test_ids=pool.test_ids)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    tables: dict[str, dict[str, str]] = {}
    played: dict[str, list[Floats]] = {}
    for name in arrays["tasks"]:
        valid = arrays[f"{name}/valid"].astype(bool)
        labels = np.repeat([arrays[f"{name}/{key}"][valid] for key in LABELS.values()], given.seeds, axis=0)
        num_train = int(valid[: int(arrays[f"{name}/n_train"])].sum())
        result = released(arrays[f"{name}/probs"][valid], labels, num_train=num_train, rng=np.random.default_rng(0))
        for kind, values in result.items():
            played.setdefault(kind, []).append(values)
    shaped = {kind: np.mean(values, axis=0).reshape(len(LABELS), -1) for kind, values in played.items()}
    for turn, (title, key) in enumerate(LABELS.items()):
        scored = relabelled(grid, arrays, key)
        table = {name: f"{100 * value:.1f}" for name, value in simple_figures(scored).items()}
        calls = shaped["calls"][turn]
        table["released protocol: Fusion, sampled"] = cell(shaped["sampled"][turn], calls)
        table["released protocol: Fusion, its most probable answer"] = cell(shaped["argmax"][turn], calls)
        table["released protocol: plurality of the Decider's team"] = cell(shaped["plurality"][turn], calls)
        parts, plays = scored.split(), []
        for seed in range(given.seeds):
            config = TrainingConfig(seed=seed, max_team=pool.max_team, max_rounds=pool.max_rounds)
            policy = train(parts[0], parts[1], config)
            limits = {"max_team": pool.max_team, "max_rounds": pool.max_rounds}
            plays.append(replay(policy, parts[2], cost_weight=0.0, **limits))
        table["our policy, frozen"] = cell(
            [macro(p.scores, parts[2].tasks) for p in plays], [p.calls.mean() for p in plays]
        )
        tables[title] = table
    print(
        f"\n## bbh: the released protocol\n\nMacro accuracy % over {len(arrays['tasks'])} subtasks; seeds: {given.seeds}\n"
    )
    print(f"| | labels {' | labels '.join(tables)} |\n|---|{'---|' * len(tables)}")
    for name in next(iter(tables.values())):
        print(f"| {name} | {' | '.join(table[name] for table in tables.values())} |")


if __name__ == "__main__":
    main()
