"""``mrn reproduce``: a table of the paper, trained and scored, beside the paper's numbers."""

from mrn_components.app.reproduce.reproduce import reproduce

__all__ = ["reproduce"]
