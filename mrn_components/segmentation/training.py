"""nnU-Net v2 as a bundle's trainer: its planning, preprocessing and training, by its Python API."""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from mrn_components.data.folds import select_fold
from mrn_components.data.identities import Identities
from mrn_components.data.ledger import TrainingLedger
from mrn_components.data.tables import Subject
from mrn_components.images.image import Image
from mrn_components.segmentation.dataset import DATASET, write_dataset
from mrn_components.segmentation.plan import CONFIGURATION, export_plan
from mrn_components.system.files import (
    check_digest,
    remove_unfinished,
    replacing,
    replacing_hashed,
    write_json,
    write_text,
)

_logger = logging.getLogger(__name__)
_PLANS = "nnUNetPlans"
# What nnU-Net's checkpoints hold beside tensors: numbers of NumPy in its log.
_NUMBERS = {"_codecs.encode", "numpy._core.multiarray.scalar", "numpy.dtype"}


@dataclass(kw_only=True, eq=False)
class NNUNetTraining:
    """Train nnU-Net v2 on the nuclei of one image, and make the result part of a bundle.

    In ``output_dir``, which several images may share: ``nnunet/IMAGE``, nnU-Net's own folders;
    ``configs/plan_IMAGE.json``; ``models/IMAGE_foldN.pt``, each fold's weights; and ``weights``,
    those of ``NucleiUNet`` with all folds trained so far and the ledger of their subjects. They
    hold nothing but tensors, unlike nnU-Net's checkpoints.

    What is done is not repeated: planning and preprocessing are shared by the folds, a trained fold
    is left as it is.

    Args:
        subjects: what ``load_subjects`` returns, with masks.
        folds: what ``split_folds`` returns.
        identities: what ``identify_subjects`` returns, for the ledger.
        image: image to segment.
        fold_numbers: folds to train, one after the other. Paper: five.
        output_dir: folder of the run.
        weights: file of the finished network's weights.
        trainer_class: class of nnU-Net. Paper: 250 epochs without mirroring (section 4.1.2), which
            left and right labels need.
        max_epochs: epochs a fold. Paper: 250.
        iterations: optimiser steps an epoch. nnU-Net: 250.
        val_iterations: batches of its validation an epoch. nnU-Net: 50.
        adam_lr: learning rate of AdamW, which gets further in few steps; None takes nnU-Net's SGD.
        foreground_share: share of patches that are centred on a nucleus. nnU-Net: 0.33.
        memory_gb: GPU memory that the planner may fill. nnU-Net: 8.
        base_features: channels of the first stage. nnU-Net: 32.
        save_interval: epochs between checkpoints.
        device: where to train.
        num_workers: processes of preprocessing and augmentation; 0 augments in this process.
        resume: go on from the last checkpoint of an unfinished fold.

    Raises:
        ValueError: for a fold that does not exist.
    """

    subjects: Sequence[Subject]
    folds: Mapping[str, Any]
    identities: Identities
    image: Image
    output_dir: str | Path
    weights: str | Path
    fold_numbers: Sequence[int] = (0,)
    trainer_class: str = "nnUNetTrainer_250epochs_NoMirroring"
    max_epochs: int = 250
    iterations: int = 250
    val_iterations: int = 50
    adam_lr: float | None = None
    foreground_share: float = 0.33
    memory_gb: float = 8.0
    base_features: int = 32
    save_interval: int = 5
    device: str | torch.device = "cuda"
    num_workers: int = 2
    resume: bool = False

    def __post_init__(self) -> None:
        """Refuse folds that do not exist."""
        for fold in self.fold_numbers:
            select_fold(self.subjects, self.folds, fold, "training")
        self.root = Path(self.output_dir, "nnunet", self.image.name)

    def run(self) -> None:
        """Prepare the data, train the folds and export the weights.

        Raises:
            FileExistsError: for an unfinished fold, unless ``resume`` is set.
            ValueError: for a volume or a mask that ``ReadVolumesd`` refuses.
        """
        with _environment(self.root, max(1, self.num_workers)):  # its planner needs one
            plans = self._prepare()
        with _environment(self.root, self.num_workers):
            for fold in self.fold_numbers:
                self._train(fold, plans)
        self._export(plans)

    def _prepare(self) -> dict[str, Any]:
        """Write, fingerprint, plan and preprocess the data set, once; nnU-Net's plans."""
        from nnunetv2.experiment_planning import plan_and_preprocess_api as api
        from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
            ExperimentPlanner,
        )

        root = self.root
        path = root / "preprocessed" / DATASET / f"{_PLANS}.json"
        made_of = json.dumps(self._made_of(), indent=1)
        stamp = root / "prepared.json"
        if not stamp.is_file() or stamp.read_text(encoding="utf-8") != made_of:
            # What was trained, to its end or not, is never removed.
            if self._trained_folds() or any(root.rglob("checkpoint_*.pth")):
                raise FileExistsError(
                    f"{self.output_dir} holds networks trained on other subjects, or with other "
                    "settings of nnU-Net; name another run (--run_name NAME)."
                )
            shutil.rmtree(root, ignore_errors=True)
            write_dataset(self.subjects, self.folds, self.image, root / "raw")
            workers = max(1, self.num_workers)
            with (root / "prepare.log").open("w") as log, redirect_stdout(log):
                api.extract_fingerprint_dataset(1, num_processes=workers)
                planner = ExperimentPlanner(
                    1, self.memory_gb, plans_name=_PLANS, suppress_transpose=True
                )
                planner.UNet_base_num_features = self.base_features
                planner.plan_experiment()
                api.preprocess_dataset(1, _PLANS, [CONFIGURATION], [workers])
            write_text(stamp, made_of)
        return json.loads(path.read_text(encoding="utf-8"))

    def _made_of(self) -> dict[str, Any]:
        """What the prepared data depend on."""
        keys = (self.image.name, self.image.mask_name)
        files = {
            subject["subject"]: [Path(subject[key]).stat().st_mtime_ns for key in keys]
            for subject in self.subjects
        }
        settings = {"memory_gb": self.memory_gb, "base_features": self.base_features}
        return {"image": self.image.name, "files": files, "folds": self.folds["folds"], **settings}

    def _train(self, fold: int, plans: dict[str, Any]) -> None:
        """Train a fold, unless it is trained."""
        weights = self._fold_weights(fold)
        if weights.is_file():
            _logger.info("fold %d is trained: %s", fold, weights)
            return
        trainer = self._trainer(fold, plans)
        folder = Path(trainer.output_folder)
        remove_unfinished(folder)
        names = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")
        checkpoints = [folder / name for name in names if (folder / name).is_file()]
        if checkpoints and not self.resume:
            raise FileExistsError(
                f"{folder} holds an unfinished training; go on with --resume True, or name another "
                "run (--run_name NAME)."
            )
        if checkpoints:
            trainer.load_checkpoint(str(checkpoints[0]))
        if not checkpoints or checkpoints[0].name != names[0]:
            trainer.run_training()
        network = getattr(trainer.network, "_orig_mod", trainer.network)  # of a compiled one
        state = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
        with replacing(weights) as temporary:
            torch.save(state, temporary)

    def _trainer(self, fold: int, plans: dict[str, Any]) -> Any:
        """Build nnU-Net's trainer of a fold."""
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

        found = recursive_find_trainer_class_by_name(self.trainer_class)
        # The name stays: nnU-Net names its folders after it.
        trainer_class = type(self.trainer_class, (_Adapted, found), {"adam_lr": self.adam_lr})
        dataset = self.root / "preprocessed" / DATASET / "dataset.json"
        trainer: Any = trainer_class(
            plans={**plans, "continue_training": self.resume},
            configuration=CONFIGURATION,
            fold=fold,
            dataset_json=json.loads(dataset.read_text(encoding="utf-8")),
            device=torch.device(self.device),
        )
        trainer.num_epochs = self.max_epochs
        trainer.num_iterations_per_epoch = self.iterations
        trainer.num_val_iterations_per_epoch = self.val_iterations
        trainer.oversample_foreground_percent = self.foreground_share
        trainer.save_every = self.save_interval
        return trainer

    def _export(self, plans: Mapping[str, Any]) -> None:
        """Write all trained folds as the weights of one ``NucleiUNet``, and its plan."""
        trained = self._trained_folds()
        state: dict[str, Tensor] = {}
        subjects: dict[str, Subject] = {}
        for number, fold in enumerate(trained):
            check_digest(self._fold_weights(fold))
            weights = torch.load(self._fold_weights(fold), map_location="cpu", weights_only=True)
            state |= {f"folds.{number}.{name}": tensor for name, tensor in weights.items()}
            members = select_fold(self.subjects, self.folds, fold, "training")
            subjects |= {subject["subject"]: subject for subject in members}
        plan = export_plan(self.image, plans, num_folds=len(trained))
        path = Path(self.output_dir, "configs", f"plan_{self.image.name}.json")
        write_json(path, plan, indent=1)
        ledger = TrainingLedger(subjects=list(subjects.values()), identities=self.identities)
        with replacing_hashed(Path(self.weights)) as temporary:
            torch.save(state, temporary)
            ledger.append_to(temporary)
        _logger.info("folds %s are in %s (research use only)", trained, self.weights)

    def _fold_weights(self, fold: int) -> Path:
        return Path(self.output_dir, "models", f"{self.image.name}_fold{fold}.pt")

    def _trained_folds(self) -> list[int]:
        return [f for f in range(len(self.folds["folds"])) if self._fold_weights(f).is_file()]


class _Adapted:
    """What differs from nnU-Net's own trainers, whichever it is."""

    adam_lr: float | None

    def configure_optimizers(self) -> tuple[Any, Any]:
        """Make the optimiser and its schedule, nnU-Net's polynomial decay."""
        from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

        this: Any = self
        if self.adam_lr is None:
            return super().configure_optimizers()  # type: ignore[misc]  # the trainer comes after this mixin
        optimizer = torch.optim.AdamW(
            this.network.parameters(), self.adam_lr, weight_decay=this.weight_decay
        )
        return optimizer, PolyLRScheduler(optimizer, self.adam_lr, this.num_epochs)

    def save_checkpoint(self, filename: str) -> None:
        """Replace a checkpoint whole, where nnU-Net would overwrite it."""
        with replacing(Path(filename)) as temporary:
            super().save_checkpoint(str(temporary))  # type: ignore[misc]  # the trainer comes after this mixin

    def load_checkpoint(self, filename: str) -> None:
        """Read a checkpoint, which nnU-Net unpickles, if it names nothing but data."""
        check_digest(Path(filename))
        if found := set(get_unsafe_globals_in_checkpoint(filename)) - _NUMBERS:
            raise ValueError(
                f"{filename} would run {', '.join(sorted(found))}; a checkpoint of nnU-Net's own "
                "does not. Name another run (--run_name NAME)."
            )
        super().load_checkpoint(filename)  # type: ignore[misc]  # the trainer comes after this mixin


@contextmanager
def _environment(folder: Path, num_workers: int) -> Iterator[None]:
    """Tell nnU-Net, which asks the environment, where its folders are."""
    values = {f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")}
    values |= {"nnUNet_def_n_proc": str(max(1, num_workers)), "nnUNet_n_proc_DA": str(num_workers)}
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
