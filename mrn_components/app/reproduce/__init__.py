"""``mrn reproduce``: a table of the paper, trained and scored, beside the paper's numbers."""
