"""Engines: where pieces of work are done: in this process, in others of this machine, or on a Ray cluster.

    base    what an engine is, and how pieces are handed out and dead workers replaced
    local   this process, or several of this machine
    cluster a Ray cluster, of this machine or of many

What is worked on does not know where: collecting, sweeps and bulk answering take any engine.
"""

from langchain_rlfocal.engines.base import Begin, Done, Engine, Handle, Work
from langchain_rlfocal.engines.cluster import RayEngine
from langchain_rlfocal.engines.local import LocalEngine

__all__ = ["Begin", "Done", "Engine", "Handle", "LocalEngine", "RayEngine", "Work"]
