"""Folders of runs as training leaves them, with weights that were never trained."""

import csv
import json
import shutil
from pathlib import Path

import torch
from monai.bundle import ConfigParser

CONFIGS = Path(__file__).parent.parent / "bundles" / "mrn" / "configs"
TINY = {
    "image_size": 28,
    "implausible": "flag",  # masks of a network with random weights
    "num_workers": 0,
    "precision": "fp32",
    "network_def#res#encoder": {
        "_target_": "mrn_components.SliceEncoder",
        "name": "vit_small_patch14_reg4_dinov2.lvd142m",
        "depth": 1,
        "embed_dim": 32,
        "num_heads": 2,
        "init_values": 1.0,  # no branch hides behind a small LayerScale
    },
    "network_def#res#ffa": {"_target_": "mrn_components.FFA", "num_layers": 1, "layer_scale": 1.0},
    "network_def#res#sfa": {"_target_": "mrn_components.SFA", "num_layers": 1, "layer_scale": 1.0},
}


def make_run(folder: Path, seed: int, **overrides) -> Path:
    """Write ``configs`` and ``models/model.pt`` of a tiny MRN with random weights."""
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / "inference.yaml"))
    parser.update(TINY | overrides)
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    config = {key: value for key, value in parser.get().items() if key != "_meta_"}
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    for name in ("evaluate.yaml", "metadata.json", "logging.conf"):
        shutil.copyfile(CONFIGS / name, folder / "configs" / name)
    torch.manual_seed(seed)
    network = parser.get_parsed_content("network_def")
    with torch.no_grad():  # scores that differ between subjects
        network.classifier[-1].weight.mul_(3)
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder


def make_datalist(cohort: Path, path: Path, count: int = 4) -> str:
    """Write a datalist of the first subjects of the tests' cohort: fewer are faster."""
    names = {"nm": "NM", "qsm": "QSM", "mask_nm": "NM_mask", "mask_qsm": "QSM_mask"}
    entries = [
        {
            "subject": folder.name,
            "label": number % 2,
            **{key: str(folder / f"{name}.nii.gz") for key, name in names.items()},
        }
        for number, folder in enumerate(sorted(cohort.glob("SUBJ_*"))[:count])
    ]
    path.write_text(json.dumps(entries))
    return str(path)


def read_rows(table: Path) -> list[dict[str, str]]:
    """Read the rows of a csv with a header."""
    with table.open() as file:
        return list(csv.DictReader(file))


def write_predictions(folder, prob, extra=()):
    folder.mkdir(exist_ok=True)
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["subject", "prob_pd"])
        writer.writerows((f"S{i:02d}", f"{value:.6f}") for i, value in enumerate(prob))
        writer.writerows(extra)
    return folder
