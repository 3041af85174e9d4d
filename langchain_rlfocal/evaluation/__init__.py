"""Evaluation: what a policy is worth on outcomes it has not seen, beside the baselines it has to beat.

Nothing here learns from what it scores.
"""

from langchain_rlfocal.evaluation.baselines import fit_baselines
from langchain_rlfocal.evaluation.report import HEADER, Figures, Report, baselines_of, evaluate, with_baselines

__all__ = ["HEADER", "Figures", "Report", "baselines_of", "evaluate", "fit_baselines", "with_baselines"]
