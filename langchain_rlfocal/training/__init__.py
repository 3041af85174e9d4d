"""Training: from recorded outcomes to a policy. The only part of the package that imports torch."""

from langchain_rlfocal.training.config import TrainingConfig
from langchain_rlfocal.training.mappo import TrainingInterrupted, train, with_curve_of
from langchain_rlfocal.training.metrics import Progress
from langchain_rlfocal.training.new_tasks import NewTask, leave_task_out

__all__ = [
    "NewTask",
    "Progress",
    "TrainingConfig",
    "TrainingInterrupted",
    "leave_task_out",
    "train",
    "with_curve_of",
]
