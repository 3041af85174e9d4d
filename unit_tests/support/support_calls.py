"""Every way to call a model with a config, what its streams give, and a gate that holds its members."""

import asyncio


async def consume(stream):
    return [item async for item in stream]


async def collect(stream, words):
    """Put each text into `words`, where it stays when the stream breaks."""
    async for chunk in stream:
        words.append(chunk.text)


class Gate:
    """Holds members until the test lets them go, which it never does."""

    def __init__(self, num_members):
        self.begun, self.never, self.missing = asyncio.Event(), asyncio.Event(), num_members

    async def hold(self):
        self.missing -= 1
        if not self.missing:
            self.begun.set()
        await self.never.wait()


CALLS = {
    "invoke": lambda model, config: model.invoke("?", config),
    "batch": lambda model, config: model.batch(["?"], [config]),
    "stream": lambda model, config: list(model.stream("?", config)),
    "ainvoke": lambda model, config: model.ainvoke("?", config),
    "abatch": lambda model, config: model.abatch(["?"], [config]),
    "astream": lambda model, config: consume(model.astream("?", config)),
    "astream_events": lambda model, config: consume(model.astream_events("?", config, version="v2")),
}
