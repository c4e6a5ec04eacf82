"""Jobs: files of texts to files of vectors, which survive a kill; and a search in what they have made."""

from .job import embed_files
from .report import Report
from .search import Hit, search

__all__ = ["Hit", "Report", "embed_files", "search"]
