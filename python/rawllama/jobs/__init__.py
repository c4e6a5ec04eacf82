"""Jobs: files of texts to files of vectors, which survive a kill."""

from .job import embed_files
from .report import Report

__all__ = ["Report", "embed_files"]
