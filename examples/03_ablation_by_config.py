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
# # An ablation by config
#
# What a part of the network adds is one line: `network_def#res#ffa#_disabled_: true` leaves FFA
# out. Both networks are trained on the same phantoms from the same seed. Two epochs on a dozen
# phantoms say nothing about MRN: they show how such a question is asked. `mrn reproduce --table
# 2` asks it with folds and intervals. Run it from the root of the repository.

# %%
import shutil
from pathlib import Path

from monai.bundle import ConfigWorkflow

from mrn_components.phantom import make_cohort

WORK = Path("build/examples")
CONFIGS = [f"bundles/mrn/configs/{name}.yaml" for name in ("train", "small")]
cohort = make_cohort(WORK / "phantoms", subjects=16, seed=1, view="midbrain", workers=2)

# %% [markdown]
# A config is the sum of its files, later ones first, and of the changes that are named here, as
# `--epochs 2` on the command line. Whoever misspells a key is told.

# %%
ROWS = {
    "as in the paper": {},
    "without FFA": {"network_def#res#ffa#_disabled_": True},
    "without mSupMoCo": {"handlers#msupmoco#_disabled_": True, "pretrain_epochs": 0},
}


def train(name, changes):
    """Train a row, and return what it cost and reached."""
    output = WORK / "ablation" / name.replace(" ", "_")
    shutil.rmtree(output, ignore_errors=True)
    workflow = ConfigWorkflow(
        CONFIGS,
        workflow_type="train",
        logging_file=False,
        dataset_dir=str(cohort),
        bundle_root="bundles/mrn",
        output_dir=str(output),
        cache_dir=str(WORK / "cache"),  # the rows have the same crops
        image_size=28,
        epochs=2,
        num_workers=0,
        **changes,
    )
    workflow.initialize()
    workflow.run()
    trainer = workflow.parser.get_parsed_content("train#trainer")
    evaluator = workflow.parser.get_parsed_content("validate#evaluator")
    return {
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "loss": trainer.state.metrics["loss"],
        "roc_auc": evaluator.state.metrics["roc_auc"],
    }


# %%
results = {name: train(name, changes) for name, changes in ROWS.items()}
print(f"{'':18}{'parameters':>12}{'loss':>8}{'ROC AUC of 4':>14}")
for name, row in results.items():
    print(f"{name:18}{row['parameters']:12,}{row['loss']:8.3f}{row['roc_auc']:14.2f}")
assert results["without FFA"]["parameters"] < results["as in the paper"]["parameters"]
