"""Costs: what calls cost, in dollars, tokens or calls, and what each member's share of it is."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from langchain_rlfocal.outcomes.grids import OutcomeGrid

Floats = npt.NDArray[np.float64]

CostUnit = Literal["auto", "usd", "tokens", "calls"]
"""What spending is counted in: `auto` is dollars where some cost of every member is known, else calls."""


def costs_of(grid: OutcomeGrid, unit: CostUnit = "auto") -> Floats:
    """Cost of each call in one unit, NaN where unknown, shape [Q, M]."""
    if unit == "auto":
        known = ~np.isnan(grid.cost_usd)
        unit = "usd" if known.any(axis=0).all() and np.nansum(grid.cost_usd) > 0 else "calls"
    if unit == "usd":
        return grid.cost_usd
    if unit == "tokens":
        return grid.prompt_tokens + grid.completion_tokens
    return np.ones_like(grid.scores)


def prices_of(grid: OutcomeGrid, unit: CostUnit = "auto") -> tuple[Floats, float]:
    """Estimate what calling each member costs.

    By its mean cost, over the calls whose cost is known; even where some member's never is, or all are free.

    Returns:
        Each member's share of what asking the whole pool costs, shape [M], and what that is in the unit (0 where even).
    """
    costs = costs_of(grid, unit)
    known = ~np.isnan(costs)
    mean = np.where(known, costs, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    total = float(mean.sum())
    if not known.any(axis=0).all() or total <= 0:
        return np.full(len(mean), 1.0 / len(mean)), 0.0
    return mean / total, total
