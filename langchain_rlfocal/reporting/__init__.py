"""Reporting: one page that shows a person what a policy is worth.

`facts` and `cases` say what is shown, as plain values; `sentences`, `charts` and `page` draw it. The page needs the extra `report`,
the facts do not.
"""

from langchain_rlfocal.reporting.facts import Facts, facts_of, read_metrics
from langchain_rlfocal.reporting.page import check_installed, check_writable, page_of, write_page

__all__ = ["Facts", "check_installed", "check_writable", "facts_of", "page_of", "read_metrics", "write_page"]
