"""Groups of subjects, such as sites: a column of the datalist, of the labels' csv, or of BIDS."""

from collections.abc import Mapping, Sequence

from mrn_components.data.tables import GROUP, Subject
from mrn_components.data.target import TAKEN

_MAX_NAMED = 10


def give_groups(
    subjects: Sequence[Subject],
    covariates: Mapping[str, Mapping[str, float | str]],
    column: str | None,
) -> list[Subject]:
    """Give each subject its ``group``: its value in a column; None gives none.

    Raises:
        ValueError: if subjects have no value there; it names them, and the columns that there are.
            For a column that tables of predictions have themselves.
    """
    if column is None:
        return list(subjects)
    if TAKEN.fullmatch(column.lower()):
        raise ValueError(
            f"subjects cannot be grouped by {column!r}, which is a column of the tables of "
            "predictions; give the groups another name, such as site."
        )
    values = [covariates.get(subject["subject"], {}).get(column) for subject in subjects]
    pairs = list(zip(subjects, values, strict=True))
    if lacking := [subject["subject"] for subject, value in pairs if value is None]:
        known = sorted({key for own in covariates.values() for key in own})
        named = ", ".join(lacking[:_MAX_NAMED]) + ", ..." * (len(lacking) > _MAX_NAMED)
        raise ValueError(
            f"{len(lacking)} of {len(subjects)} subjects have no {column!r} ({named}), by which "
            f"they are to be grouped; columns are {', '.join(known) or 'none'}. Name one of these, "
            "or fill it in: in the datalist, in a csv of labels with the header "
            f"subject,label,{column}, or in participants.tsv of BIDS."
        )
    return [subject | {GROUP: group_name(value)} for subject, value in pairs]


def group_name(value: float | str | None) -> str:
    """Return the name of a group: 1 for 1.0."""
    return f"{value:g}" if isinstance(value, float) else str(value)
