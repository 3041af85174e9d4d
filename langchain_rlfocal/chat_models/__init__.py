"""The chat model: a learned team of chat models behind LangChain's interface.

ensemble      the model: what callers can set, and every way to call it
answering     the way of one query: select, call, compare, judge, fuse, synthesize, reply
arguments     what constructors and calls take, and what they make of it
requests      tools and response formats, as each member is asked for them, and checks of what comes back
messages      a conversation as one member can read it
capabilities  who can be asked
consensus     what the candidates together do
equivalence   the judge of texts that rules leave open
metadata      the reply, and how it came about
decider       the Decider alone, as LangChain's decision model
"""

from langchain_rlfocal.chat_models.decider import RLFocalDecider
from langchain_rlfocal.chat_models.ensemble import RLFocalChatModel

__all__ = ["RLFocalChatModel", "RLFocalDecider"]
