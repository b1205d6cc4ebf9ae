"""What a check of a log says: a PASS or FAIL line, examples, and the mend; and the report that all checks make."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

EXAMPLES = 3
"""Example lines a check shows."""


@dataclass(frozen=True)
class Check:
    """One check of a log.

    Attributes
    ----------
    name : what should hold
    passed : whether it does
    detail : counts
    examples : places where it does not, at most `EXAMPLES`
    mend : what to do about it
    dead_letters : what fails it becomes dead letters; the rest of the log is processed
    """

    name: str
    passed: bool
    detail: str = ""
    examples: list[str] = field(default_factory=list)
    mend: str = ""
    dead_letters: bool = False

    def lines(self) -> list[str]:
        """The PASS or FAIL line; for a failure also the examples and the mend.

        >>> Check("ids are ids", False, "1 row", ["a.csv line 2: bad_id"], "send text").lines()
        ['FAIL  ids are ids: 1 row', '      a.csv line 2: bad_id', '      mend: send text']
        """
        head = f"{'PASS' if self.passed else 'FAIL'}  {self.name}" + (f": {self.detail}" if self.detail else "")
        if self.passed:
            return [head]
        return [head, *(f"      {example}" for example in self.examples), f"      mend: {self.mend}"]


@dataclass(frozen=True)
class Report:
    """The checks of a log.

    Attributes
    ----------
    rows : raw rows read
    dead_letters : raw rows that would become dead letters
    bounds : times accepted

    >>> report = Report([Check("ids are ids", False, dead_letters=True)], rows=2, dead_letters=1)
    >>> report.passed, report.to_dict()["dead_letters"]
    (True, 1)
    """

    checks: list[Check]
    rows: int = 0
    dead_letters: int = 0
    bounds: str = ""

    @property
    def passed(self) -> bool:
        """Whether every check holds, those about dead letters aside (`dead_letters` counts these)."""
        return all(check.passed or check.dead_letters for check in self.checks)

    def lines(self) -> list[str]:
        """The report as text."""
        return [line for check in self.checks for line in check.lines()]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data."""
        return {"passed": self.passed, **asdict(self)}
