"""What a check finds: the fault, what was expected, and how to mend it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault of a subject, a file or a table.

    Args:
        id: word for this kind of fault, the same in every message, table and test.
        severity: "error" where results would be wrong or missing, "warning" where a person should
            look.
        found: what is there.
        expected: what should be there.
        fix: what to do, as an order.
        file: path of the file or table; empty for a fault of the whole cohort.
        subject: whose it is; empty for a fault of a table or of the whole cohort.
    """

    id: str
    severity: Severity
    found: str
    expected: str
    fix: str
    file: str = ""
    subject: str = ""

    @property
    def place(self) -> str:
        """The subject and the name of the file."""
        return " ".join(part for part in (self.subject, Path(self.file).name) if part)

    def __str__(self) -> str:
        return f"{self.place}: {self.found}; expected {self.expected}. {self.fix}."


class FaultyFileError(ValueError):
    """A file that cannot be read; ``finding`` says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


def error(id: str, path: Path, *, found: str, expected: str, fix: str) -> Finding:  # noqa: A002
    """An error in a file."""
    return Finding(id=id, severity="error", file=str(path), found=found, expected=expected, fix=fix)


def warning(id: str, path: Path, *, found: str, expected: str, fix: str) -> Finding:  # noqa: A002
    """A warning about a file."""
    return replace(error(id, path, found=found, expected=expected, fix=fix), severity="warning")


def fault(id: str, path: Path, *, found: str, expected: str, fix: str) -> FaultyFileError:  # noqa: A002
    """What to raise of a file that cannot be read."""
    return FaultyFileError(error(id, path, found=found, expected=expected, fix=fix))
