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
# # A study, from BIDS to a table with intervals
#
# A small network is trained on phantoms, and asked about others that lie as a BIDS data set does:
# QSM among the derivatives, raw NM, masks beside them. Everything here is also a command, which
# stands above it. Run it from the root of the repository.

# %%
import json
import shutil
import subprocess
import sys
from pathlib import Path

from mrn_components.app.check import check
from mrn_components.app.evaluate import evaluate
from mrn_components.app.predict import predict
from mrn_components.phantom import make_cohort

WORK = Path("build/examples")
cohort = make_cohort(WORK / "phantoms", subjects=16, seed=1, view="midbrain", workers=2)
others = make_cohort(WORK / "others", subjects=8, seed=2, view="midbrain", workers=2)

# %% [markdown]
# ## The data set
#
# A `Chimap` is in ppm unless its JSON says otherwise; ours are in ppb.

# %%
bids = WORK / "bids"
shutil.rmtree(bids, ignore_errors=True)
labels = [line.split(",") for line in (others / "train_cases.csv").read_text().split()]
for number, (name, _) in enumerate(labels, start=1):
    person = f"sub-{number:02d}"
    raw = bids / person / "anat"
    derived = bids / "derivatives" / "qsm" / person / "anat"
    for folder in (raw, derived):
        folder.mkdir(parents=True)
    files = others / name
    shutil.copy(files / "NM.nii.gz", raw / f"{person}_acq-NM_MTw.nii.gz")
    shutil.copy(files / "NM_mask.nii.gz", raw / f"{person}_acq-NM_dseg.nii.gz")
    shutil.copy(files / "QSM.nii.gz", derived / f"{person}_Chimap.nii.gz")
    shutil.copy(files / "QSM_mask.nii.gz", derived / f"{person}_desc-QSM_dseg.nii.gz")
    (derived / f"{person}_Chimap.json").write_text(json.dumps({"Units": "ppb"}))
lines = [f"sub-{number:02d},{label}" for number, (_, label) in enumerate(labels, start=1)]
(WORK / "labels.csv").write_text("\n".join([*lines, ""]))

# %% [markdown]
# `mrn check build/examples/bids`: what was found, and every fault before anything is computed.

# %%
print(check(bids))

# %% [markdown]
# ## Training
#
# As on the command line, so that the folder of the run becomes a bundle that predicts.

# %%
run = WORK / "run"
shutil.rmtree(run, ignore_errors=True)
settings = {
    "dataset_dir": cohort,
    "output_dir": run,
    "image_size": 28,
    "epochs": 4,
    "num_workers": 0,
}
options = [str(word) for key, value in settings.items() for word in (f"--{key}", value)]
configs = "['bundles/mrn/configs/train.yaml','bundles/mrn/configs/small.yaml']"
command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "--config_file", configs]
done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
print(done.stderr[-600:] if done.returncode else f"trained: {run}")
assert done.returncode == 0

# %% [markdown]
# ## Prediction
#
# `mrn predict build/examples/bids build/examples/study --bundle build/examples/run --report True`

# %%
study = WORK / "study"
shutil.rmtree(study, ignore_errors=True)
table = predict(bids, study, bundle=str(run), num_workers=0, report=True)
print(table.read_text())

# %% [markdown]
# ## The table
#
# `mrn evaluate build/examples/study build/examples/labels.csv`. Eight subjects leave every
# interval wide; the last lines say how many narrower ones would take.

# %%
folder = evaluate(study, WORK / "labels.csv")
print((folder / "metrics.txt").read_text())
