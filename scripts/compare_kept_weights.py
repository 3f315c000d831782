"""Compare the rules of ``KeptWeights``: one training a seed, every rule's weights scored.

    python scripts/compare_kept_weights.py seres10 TRAINING_DATA TEST_DATA OUTPUT --seeds 1,2,3,4,5

trains fold 0 of the bundle's ``small.yaml`` and prints a table. Finished runs stay as they are.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from mrn_components.app.bundle_run import find_config, train_command

# Rule -> its weights in a run's folder. The first trained run keeps by least_loss.
RULES = {
    "best_metric": "best_metric/model.pt",
    "least_loss": "models/model.pt",
    "last": "models/model_last.pt",
    "mean": "mean/model.pt",
    "teacher": "teacher/model.pt",
}


def main() -> None:
    """Train, score and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", choices=("mrn", "seres10"))
    for name in ("training_data", "test_data", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--seeds", default="1,2,3,4,5")
    args = parser.parse_args()
    output = args.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    (output / "rules.json").write_text(json.dumps({"train#handlers": _further_keepers()}))
    scores = []
    for seed in map(int, args.seeds.split(",")):
        run = output / f"{args.bundle}-seed{seed}"
        if not (run / "trained").is_file():
            train(args.bundle, args.training_data, output, run, seed)
        scores.append({rule: score(run, rule, args.test_data, output) for rule in RULES})
    print(f"{args.bundle}, seeds {args.seeds}: accuracy and ROC AUC on {args.test_data.name}\n")
    print(table(scores))


def train(bundle: str, data: Path, output: Path, run: Path, seed: int) -> None:
    """Train one seed, every rule at work."""
    folder = Path("bundles") / bundle
    configs = [find_config(folder, name) for name in ("train", "small.yaml")]
    overrides = {
        "dataset_dir": str(data.absolute()),
        "seed": seed,
        "output_dir": str(run),
        "run_name": run.name,
        "cache_dir": str(output / "cache"),
        "keep": "least_loss",
    }
    subprocess.run(train_command((*configs, output / "rules.json"), overrides, 1), check=True)
    (run / "trained").touch()


def score(run: Path, rule: str, data: Path, output: Path) -> tuple[float, float]:
    """Accuracy and ROC AUC of the weights of a rule."""
    folder = run / "scores" / rule
    if not (folder / "metrics.json").is_file():
        options = {
            "config_file": run / "configs" / "inference.json",
            "dataset_dir": data.absolute(),
            "require_labels": True,
            "ckpt_path": run / RULES[rule],
            "output_dir": folder,
            "cache_dir": output / "cache",
        }
        words = [str(word) for key, value in options.items() for word in (f"--{key}", value)]
        subprocess.run([sys.executable, "-m", "monai.bundle", "run", *words], check=True)
    metrics = json.loads((folder / "metrics.json").read_text())
    return metrics["accuracy"]["value"], metrics["roc_auc"]["value"]


def table(scores: list[dict[str, tuple[float, float]]]) -> str:
    """A row a rule: the means over the seeds, and the accuracy of every seed."""
    lines = ["| keep | accuracy | ROC AUC | accuracy of each seed |", "|---|---|---|---|"]
    for rule in RULES:
        accuracy, auc = np.array([of_seed[rule] for of_seed in scores]).T
        each = ", ".join(f"{value:.3f}" for value in accuracy)
        lines.append(f"| {rule} | {accuracy.mean():.3f} | {auc.mean():.3f} | {each} |")
    return "\n".join(lines)


def _further_keepers() -> list[dict]:
    """Handlers that save by the rules which the run itself does not keep by."""
    keep = {
        "_target_": "mrn_components.KeptWeights",
        "evaluator": "@validate#evaluator",
        "first_epoch": "@train#checkpoint#keep#first_epoch",
        "num_epochs": "@train#checkpoint#keep#num_epochs",
        "momentum": "@train#checkpoint#keep#momentum",
    }
    return [
        {
            "_target_": "mrn_components.RunCheckpointHandler",
            "directory": f"$@output_dir + '/{rule}'",
            "keep": keep | {"rule": rule},
            "interval": 1000,
            "training_only": "@train#checkpoint#training_only",
            "ledger": "@train#checkpoint#ledger",
        }
        for rule in ("best_metric", "mean", "teacher")
    ]


if __name__ == "__main__":
    main()
