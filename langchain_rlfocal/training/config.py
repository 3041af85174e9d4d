"""Configuration of training: every hyperparameter, once, with its meaning."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import get_args

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.outcomes import CostUnit

_RULES: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    (
        "at least 1",
        lambda value: value >= 1,
        "max_team max_rounds num_iterations batch_size num_epochs num_minibatches validate_every patience",
    ),
    ("at least 1", lambda value: value >= 1, "decider_hidden fusion_hidden critic_hidden"),
    ("at least 2", lambda value: value >= 2, "num_folds"),
    ("finite and not negative", lambda value: 0 <= value < math.inf, "cost_weight diversity_weight entropy_coef"),
    (
        "finite and positive",
        lambda value: 0 < value < math.inf,
        "learning_rate fusion_learning_rate clip_epsilon value_coef max_grad_norm target_kl",
    ),
    ("in [0, 1]", lambda value: 0 <= value <= 1, "gamma gae_lambda"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """Hyperparameters of MAPPO.

    The defaults are for a start from the networks that come with the package. Networks of other widths start at random: give
    them 100 iterations or more, and a learning rate of 5e-3.

    Attributes:
        seed: Seed of every random number; the same seed and data give the same checkpoint.
        max_team: Members that may be asked for one query.
        max_rounds: Rounds in which they may be asked; 1 is the paper's setting.
        cost_weight: What asking the whole pool once is worth in units of score, where a caller says nothing.
            Training draws another for each episode, so that one policy serves every weight.
        cost_unit: What spending is counted in; `auto` is dollars where some cost of every member is known, else calls.
        diversity_weight: What focal diversity of the team is worth in the training reward.
        num_iterations: Rollouts and updates at most.
        batch_size: Episodes of a rollout.
        num_epochs: Passes over each rollout.
        num_minibatches: Updates in each pass.
        learning_rate: Step size of Adam for the Decider and the critic; falls linearly to a tenth.
        fusion_learning_rate: Step size for Fusion, which starts from a supervised fit and has less to learn; falls alike.
        clip_epsilon: How far a probability ratio may leave 1, and a value its old self.
        gamma: Discount of a later round's reward.
        gae_lambda: Weight of longer returns in the advantages.
        entropy_coef: Weight of the entropy bonus; falls linearly to a tenth.
        value_coef: Weight of the critic's loss.
        max_grad_norm: Gradients are scaled down to this norm.
        target_kl: A rollout's updates end when the policy moved farther than this.
        decider_hidden: Width of the Decider's hidden layers.
        fusion_hidden: Width of Fusion's hidden layer.
        critic_hidden: Width of the critic's hidden layers.
        num_folds: Folds from which training queries get competence estimates that did not see them.
        validate_every: Iterations between two validations.
        patience: Validations without improvement after which training ends.
    """

    seed: int = 0
    max_team: int = 3
    max_rounds: int = 2
    cost_weight: float = 0.1
    cost_unit: CostUnit = "auto"
    diversity_weight: float = 0.02
    num_iterations: int = 60
    batch_size: int = 2048
    num_epochs: int = 4
    num_minibatches: int = 4
    learning_rate: float = 2e-3
    fusion_learning_rate: float = 2e-4
    clip_epsilon: float = 0.2
    gamma: float = 1.0
    gae_lambda: float = 0.95
    entropy_coef: float = 0.003
    value_coef: float = 0.5
    max_grad_norm: float = 0.5
    target_kl: float = 0.05
    decider_hidden: int = 64
    fusion_hidden: int = 32
    critic_hidden: int = 64
    num_folds: int = 5
    validate_every: int = 5
    patience: int = 10

    def __post_init__(self) -> None:
        """Check types and ranges."""
        whole = {field.name for field in fields(self) if field.type is int}
        for rule, is_met, names in _RULES:
            for name in names.split():
                value = getattr(self, name)
                is_number = isinstance(value, int if name in whole else int | float) and not isinstance(value, bool)
                if not is_number or not is_met(value):
                    kind = "a whole number" if name in whole else "a number"
                    raise InputError(f"`{name}` must be {kind} {rule}, got {value!r}. Leave it out for the default.")
        if self.cost_unit not in get_args(CostUnit):
            raise InputError(f"`cost_unit` must be one of {', '.join(get_args(CostUnit))}, got {self.cost_unit!r}.")
