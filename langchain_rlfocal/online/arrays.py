"""Arrays by name, in which everything learned is kept: checked where they come back."""

from collections.abc import Mapping

import numpy as np

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.states import Floats


def checked_array(arrays: Mapping[str, Floats], name: str, shape: tuple[int, ...]) -> Floats:
    """Copy an array of this name and shape.

    Raises:
        InputError: There is none.
    """
    given = arrays.get(name)
    if given is None or np.shape(given) != shape:
        found = "none" if given is None else f"shape {np.shape(given)}"
        raise InputError(f"`arrays` must hold `{name}` of shape {shape}, got {found}. Start without them.")
    return np.array(given, dtype=np.float64)
