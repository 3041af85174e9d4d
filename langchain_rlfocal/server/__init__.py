"""Server: an ensemble behind OpenAI's HTTP interface.

Any program that speaks to OpenAI's API can ask it, by its base URL alone. The server adds nothing to how an answer is made: it
reads requests, asks `RLFocalChatModel`, and writes down what came of it.

    app               the routes, and what holds for all of them
    config, state     what is set when it starts; what handlers share
    bodies, errors    requests under limits of size, depth and time; errors in OpenAI's form
    callers           who asks, and what they may
    admission         how many answers are in flight, and when no more are taken
    names, options    from a model's name and the body's `rlfocal` object to the options of a call
    messages          OpenAI's messages and tools to LangChain's, and replies back
    answering, events one answer, whole or as a stream of server-sent events
    decisions         how an answer came about, as a field and headers
    chat_completions, listing, health    what is asked for
    responses         the same as a response of items: response_items, response_stream
    systemone         the Decider alone, as a decision model

It needs the extra `serve`.
"""

from langchain_rlfocal.server.config import ServerConfig

__all__ = ["ServerConfig"]
