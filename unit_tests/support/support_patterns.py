"""Regular expressions, taken apart: what a test needs to know that matching takes linear time."""


def repeats_of(parsed, above=()):
    """Yield each repetition that can vary, with those around it; depends on the private parse tree of `re`."""
    for operator, argument in parsed:
        name = str(operator)
        if name.endswith("_REPEAT"):
            low, high, inner = argument
            varies = high > max(low, 1)
            if varies:
                yield high, above
            yield from repeats_of(inner, (*above, high) if varies else above)
        elif name == "BRANCH":
            for branch in argument[1]:
                yield from repeats_of(branch, above)
        elif name == "SUBPATTERN":
            yield from repeats_of(argument[3], above)
        elif name in {"ASSERT", "ASSERT_NOT"}:
            yield from repeats_of(argument[1], above)
