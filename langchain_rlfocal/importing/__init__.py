"""Importing: tables of outcomes from what other programs recorded.

A reader for each program yields records; one frame checks them, joins those of a question, and writes the table. Nothing is
asked and nothing is scored here: an answer that its program did not score is unscored.
"""

from langchain_rlfocal.importing.frame import ImportReport, MemberReport
from langchain_rlfocal.importing.sources import AUTO, SOURCES, Source, import_outcomes, recognise

__all__ = ["AUTO", "SOURCES", "ImportReport", "MemberReport", "Source", "import_outcomes", "recognise"]
