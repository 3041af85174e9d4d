"""Training: from recorded outcomes to a policy. The only part of the package that imports torch."""

from langchain_rlfocal.training.config import TrainingConfig
from langchain_rlfocal.training.mappo import Progress, train

__all__ = ["Progress", "TrainingConfig", "train"]
