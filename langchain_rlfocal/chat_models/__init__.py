"""The chat model: a learned team of chat models behind LangChain's interface.

`ensemble` is the answering river, in order; `turns` keeps one query's state and the caps; `options` reads what a member
scores the options of a question; `replies` makes the message; `explanations` says how it came about; `synthesis` writes the
synthesizer's prompt; `arguments` checks the constructor's.
"""

from langchain_rlfocal.chat_models.ensemble import RLFocalChatModel

__all__ = ["RLFocalChatModel"]
