"""Policies: whom to ask, and whose answer to return."""

from langchain_rlfocal.policies.base import EnsemblePolicy, Policy
from langchain_rlfocal.policies.learned import RLFocalPolicy
from langchain_rlfocal.policies.prior import PriorPolicy

__all__ = ["EnsemblePolicy", "Policy", "PriorPolicy", "RLFocalPolicy"]
