"""The chat model: a learned team of chat models behind LangChain's interface.

`ensemble` is the model and `river` the way of one query through it, in order; `turns` keeps its state and the caps.
`binding` takes tools and schemas from LangChain, `requests` puts them to each member and checks what comes back, `consensus`
decides what the candidates together do; `history` and `profiles` see to it that a member is asked only what it can read.
`options` reads what a member scores the options of a question; `replies` makes the message, `explanations` says how it came
about, `synthesis` writes the synthesizer's prompt and `equivalence` the equivalence judge's, `arguments` checks what the
constructor is given.
`decider` is the Decider alone, as LangChain's decision model.
"""

from langchain_rlfocal.chat_models.decider import RLFocalDecider
from langchain_rlfocal.chat_models.ensemble import RLFocalChatModel

__all__ = ["RLFocalChatModel", "RLFocalDecider"]
