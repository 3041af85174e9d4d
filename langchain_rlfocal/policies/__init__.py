"""Policies: whom to ask, and whose answer to return."""

from langchain_rlfocal.policies.base import Commitment, EnsemblePolicy, Policy
from langchain_rlfocal.policies.learned import RLFocalPolicy, add_member
from langchain_rlfocal.policies.prior import PriorPolicy

__all__ = ["Commitment", "EnsemblePolicy", "Policy", "PriorPolicy", "RLFocalPolicy", "add_member"]
