"""How a run's subjects lie in the patient representation: what tells later that one is unlike."""

import copy
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite import distributed as idist
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from torch import nn

from mrn_components.checks.groups import tell_groups
from mrn_components.data import Subject
from mrn_components.data.tables import GROUP, people_of
from mrn_components.data.target import HC_PD, Score, Target
from mrn_components.data.weight_records import REFERENCES, REPRESENTATION, append_record
from mrn_components.metrics.spread import LEAST, Spread
from mrn_components.system.files import replacing_hashed
from mrn_components.training.optim import unwrap

logger = logging.getLogger(__name__)
_PARTS = 4  # of a score's range, among which groups are shuffled


class RepresentationHandler:
    """Write into ``model.pt`` how the training subjects spread in the patient representation.

    At the end of a run the kept network looks at every subject once, without augmentation. Mean and
    shrunk covariance of the training's representations stand in the file, and how far subjects lie
    that the network was not trained on: those of the validation, or, where these are few or of
    another site, parts of the training from the others. Where subjects have a group, such as a
    site, it is also tested whether the representation tells it.

    The file also gets the representations of a few training subjects, without names and in an order
    of their own: explanations put their ROI tokens in the place of a subject's.

    Args:
        directory: folder of the run's weights.
        evaluator: the validation engine, whose data set and batches are used.
        training: the training subjects.
        subjects: all subjects, with their groups.
        target: what the labels are.
        num_references: representations kept of each class, or of a score at all; 0 keeps none.
    """

    def __init__(
        self,
        *,
        directory: str | Path,
        evaluator: Evaluator,
        training: Sequence[Subject],
        subjects: Sequence[Subject],
        target: Target = HC_PD,
        num_references: int = 16,
    ) -> None:
        self.directory = Path(directory)
        self.evaluator = evaluator
        by_name: dict[str, Subject] = {}
        for subject in training:  # once each, by the masks that held-out subjects have too
            by_name.setdefault(subject["subject"], subject)
        self.training = list(by_name.values())
        self.groups = {s["subject"]: s[GROUP] for s in subjects if GROUP in s}
        self.target = target
        self.num_references = num_references

    def attach(self, engine: Engine) -> None:
        """Subscribe to the trainer."""
        engine.add_event_handler(Events.COMPLETED, self.describe)

    def describe(self, engine: Any) -> None:
        """Measure the spread, and append it to the weights."""
        weights = self.directory / "model.pt"
        ended_early = engine.state.epoch < engine.state.max_epochs
        if idist.get_rank() != 0 or ended_early or not weights.is_file():
            return
        if len(self.training) < LEAST:
            logger.warning("Too few training subjects: nothing will tell what is unlike them.")
            return
        network = copy.deepcopy(unwrap(engine.network))
        kept = torch.load(weights, map_location="cpu", weights_only=True)
        network.load_state_dict(kept, strict=False)  # without what inference does without
        loader: Any = self.evaluator.data_loader
        seen = self._represent(network, self.training)
        if seen is None:
            return
        held_out = None if self.groups else self._represent(network, loader.dataset.data)
        spread = Spread.fit(seen, held_out)
        if spread is None:
            logger.warning("All representations are equal: nothing will tell what is unlike them.")
            return
        record = spread.to_record() | self._group_test(seen, spread)
        with replacing_hashed(weights) as unfinished:
            shutil.copyfile(weights, unfinished)
            append_record(unfinished, REPRESENTATION, record)
            if self.num_references > 0:
                append_record(unfinished, REFERENCES, self._references(network, seen))

    @torch.no_grad()
    def _represent(self, network: nn.Module, subjects: Sequence[Subject]) -> np.ndarray | None:
        """Return the representations (N, P) of subjects; None of a network without."""
        loader: Any = self.evaluator.data_loader
        dataset = copy.copy(loader.dataset)
        dataset.set_data(subjects)
        network.eval()
        vectors = []
        for index in range(len(subjects)):
            batch = loader.collate_fn([dataset[index]])
            images, _ = self.evaluator.prepare_batch(batch, self.evaluator.state.device, False)
            output = network(images)
            if "patient" not in output:
                return None
            vectors.append(output["patient"][0].float().cpu().numpy())
        return np.array(vectors, float).reshape(len(vectors), -1)

    def _references(self, network: Any, seen: np.ndarray) -> dict[str, Any]:
        """Choose some of the training's representations (N, P) by class."""
        labels = [subject["label"] for subject in self.training]
        names, classes = self.target.groups(labels, 1)
        if isinstance(self.target, Score):
            names = ("all",)
        order = np.random.default_rng(1).permutation(len(seen))  # of its own: training has drawn
        chosen = {
            name: seen[order[classes[order] == number][: self.num_references]]
            for number, name in enumerate(names)
        }
        subjects = {
            name: [[float(f"{number:.7g}") for number in vector] for vector in vectors]
            for name, vectors in chosen.items()
            if len(vectors)
        }
        return {"rois": list(getattr(network, "rois", ())), "subjects": subjects}

    def _group_test(self, seen: np.ndarray, spread: Spread) -> dict[str, Any]:
        """Say whether the groups of the training subjects can be told."""
        if not self.groups:
            return {}
        names = [subject["subject"] for subject in self.training]
        people = people_of(self.training)
        labels = [subject["label"] for subject in self.training]
        _, strata = self.target.groups(labels, _PARTS)
        along = (seen - spread.mean) @ spread.axes.T
        found = tell_groups(along, [self.groups[n] for n in names], strata.tolist(), people)
        return {"groups": str(found)}
