"""Synthetic paired NM and QSM subjects in the challenge layout, with both masks.

``numbers`` holds every value with its unit and source, ``anatomy`` draws the shapes, ``signal``
turns them into images and ``cohort`` writes the files. None of them needs torch or monai.
"""

from mrn_components.phantom.cohort import Phantom, latent_values, make_cohort, make_subject
