"""Evaluation: what a policy is worth on outcomes it has not seen, compared with the baselines it has to beat."""

from langchain_rlfocal.evaluation.baselines import fit_baselines
from langchain_rlfocal.evaluation.report import Figures, Report, baselines_of, evaluate, rivals_of
from langchain_rlfocal.evaluation.rivals import fit_rivals

__all__ = ["Figures", "Report", "baselines_of", "evaluate", "fit_baselines", "fit_rivals", "rivals_of"]
