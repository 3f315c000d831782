# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Reading a page
#
# [A study from BIDS](05_study_from_bids.py), which comes first, left a page for each subject and
# one of all. They are files that open offline in any browser.

# %%
import json
import re
from html import unescape
from pathlib import Path

STUDY = Path("build/examples/study")
pages = sorted(STUDY.rglob("*.html"))
print("\n".join(map(str, pages)))

# %% [markdown]
# `index.html` lists all subjects, the odd ones first to look at. In a notebook:
#
# ```python
# from IPython.display import IFrame
#
# IFrame("build/examples/study/index.html", 1000, 600)
# ```
#
# A subject's page has, from top to bottom, these parts:

# %%
page = next(path for path in pages if path.parent.parent.name == "subjects")
text = page.read_text(encoding="utf-8")
for level, heading in re.findall(r"<h([12])[^>]*>(.*?)</h[12]>", text, re.DOTALL):
    words = unescape(re.sub(r"<[^>]+>", " ", heading))
    print("  " * (int(level) - 1) + " ".join(words.split()))

# %% [markdown]
# How to read it:
#
# 1. **P(PD)** is what this network says, and no diagnosis. It decides above 0.5; near it a
#    subject is as good as undecided.
# 2. **Flags**, to be read before the number: a mask that lacks a nucleus, values that no tissue
#    has, slices unlike those of the training. A flagged number may be wrong; each flag says what
#    to look at.
# 3. **Regions**: how much each one moved the number, by exact Shapley values. They explain the
#    network and not the disease.
# 4. **Slices with contours** show what was cropped. If a contour misses its nucleus, the number
#    is of something else.
# 5. **Biomarkers** beside published ranges, to see whether the number agrees with what is
#    measured.
# 6. **How it was made**: weights, config and versions, so that it can be made again.
#
# The record beside the page has the same for programs:

# %%
record = json.loads((page.parent / "prediction.json").read_text(encoding="utf-8"))
for key in ("subject", "status", "prob_pd", "class", "mask_source", "missing_rois", "flags"):
    print(f"{key:14}{record.get(key)}")
explained = json.loads((page.parent / "explanation.json").read_text(encoding="utf-8"))
print("explanation   ", ", ".join(explained))
