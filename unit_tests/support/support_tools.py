"""Tools, and a question on which the doubles call one of them."""

QUESTION = "Use lookup for Oslo."


def lookup(city: str) -> str:
    """Look a city up."""
    return city


def weather(city: str) -> str:
    """Tell the weather."""
    return f"sunny in {city}"
