"""Checks of data: every fault is named with what was found, what was expected, and the fix.

Nothing here raises at the first fault or needs torch: ``mrn check`` runs all of it, training the
headers' part, prediction a subject's cheap part.
"""

from mrn_components.checks.subject import Examination, check_headers, examine_subject
