"""What a check finds: the fault, what was expected, and how to mend it."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml

Severity = Literal["error", "warning"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault of a subject, a file or a table."""

    id: str  # word for this kind of fault, the same in every message, table and test
    severity: Severity  # "error": results would be wrong or missing; "warning": a person must look
    found: str  # what is there
    expected: str  # what should be there
    fix: str  # what to do, as an order
    file: str = ""  # path of the file or table; empty for a fault of the whole cohort
    subject: str = ""  # whose it is; empty for a fault of a table or of the whole cohort

    @property
    def place(self) -> str:
        """The subject and the name of the file, once if they are the same."""
        parts = dict.fromkeys((self.subject, Path(self.file).name))
        return " ".join(part for part in parts if part)

    def __str__(self) -> str:
        return f"{self.place}: {self.found}; expected {self.expected}. {self.fix}."


class FaultyFileError(ValueError):
    """A file that cannot be read; ``finding`` says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


def finding(kind: str, file: str | Path, found: str, subject: str = "", **words: Any) -> Finding:
    """Return a finding of a kind that ``findings.yaml`` describes.

    The ``words`` stand in its texts, where these name them in braces; ``severity``, ``expected``
    and ``fix`` stand for the texts themselves.
    """
    texts = {"severity": "error", **_kinds()[kind]}
    texts = {name: words.get(name) or text.format(**words) for name, text in texts.items()}
    return Finding(id=kind, file=str(file), found=found, subject=subject, **texts)


def fault(kind: str, path: Path, found: str, **words: Any) -> FaultyFileError:
    """Return what to raise of a file that cannot be read; see ``finding``."""
    return FaultyFileError(finding(kind, path, found, **words))


@lru_cache
def _kinds() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name("findings.yaml").read_text(encoding="utf-8"))
