"""``mrn evaluate --sheet``: reporting checklists and a model card, filled from the records."""
