"""A desk that gives places, for tests of limits."""

from langchain_rlfocal.execution.limits import ConcurrencyLimiter


class Desk:
    """Asks for places and writes down, by name, who got one."""

    def __init__(self):
        self.limits, self.granted, self.places = ConcurrencyLimiter(), [], {}

    def ask(self, name, **caps):
        """Ask for a call of the member that the name begins with."""
        self.places[name] = self.limits.request(name[0], on_granted=lambda: self.granted.append(name), **caps)

    def leave(self, *names):
        for name in names:
            self.places[name].leave()
