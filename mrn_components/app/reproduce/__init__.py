"""``mrn reproduce``: a table of the paper, trained and scored, beside the paper's numbers."""

from mrn_components.app.reproduce.run import reproduce

__all__ = ["reproduce"]
