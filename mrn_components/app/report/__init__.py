"""Reports: self-contained HTML pages of subjects, of a folder of predictions and of a cohort."""
