"""What a job says when it is done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """What a job has done; printed, a line.

    Attributes
    ----------
    path
        The output.
    rows
        Rows in it.
    skipped
        Bad rows: left out, or without a vector, as `bad_rows` says.
    tokens
        Tokens that were computed for it, by this run and those before.
    seconds
        What this run took, from the first look at the input.
    resumed
        Input rows that runs before this one had computed.
    truncated
        Texts that this run has cut to what the model takes.
    """

    path: str
    rows: int
    skipped: int
    tokens: int
    seconds: float
    resumed: int
    truncated: int

    def __str__(self) -> str:
        words = f"{self.path}: {self.rows:,} rows"
        if self.skipped:
            words += f", {self.skipped:,} bad rows"
        if self.truncated:
            words += f", {self.truncated:,} texts cut"
        if self.resumed:
            words += f", {self.resumed:,} of them from before"
        return f"{words}, {self.tokens:,} tokens, {self.seconds:.1f} s"
