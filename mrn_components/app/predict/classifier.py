"""The one way to ask the network of a bundle."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from monai.networks.utils import eval_mode
from monai.utils import ensure_tuple

from mrn_components.app.predict.references import read_references
from mrn_components.app.predict.unlike import Unlike
from mrn_components.app.predict.workflow import target_of
from mrn_components.app.report.explanation import (
    Explanation,
    Spread,
    explain_subject,
    masked_values,
    training_spread,
)
from mrn_components.data import Subject
from mrn_components.data.dataset import collate_subjects
from mrn_components.data.ledger import check_crop_sizes
from mrn_components.data.predictions import prediction
from mrn_components.data.subjects import needed_images
from mrn_components.images.image import Image
from mrn_components.networks.masking import StateMode
from mrn_components.regions.roi import volume_keys

_PARTS = ("checkpoint", "dataset", "inferer", "network", "postprocessing", "prepare_batch")


class Classifier:
    """The network of a bundle with all that its inference config puts around it.

    The parts of an ``inference_workflow`` are used as its config has them, so that a subject gets
    the numbers of ``monai.bundle run``.

    Raises:
        ValueError: if the config lacks a part, or makes crops of another size than in training.
        FileNotFoundError: if the weights are missing.
    """

    def __init__(self, workflow: ConfigWorkflow) -> None:
        parser = workflow.parser
        if missing := [part for part in _PARTS if part not in parser.get()]:
            raise ValueError(
                f"the inference config has no {missing}, of which `mrn predict` is made; add what "
                "the bundle mrn has in configs/inference.yaml."
            )
        self.target = target_of(parser)
        self.rois = dict(parser.get_parsed_content("rois"))
        self.images = dict(sorted(needed_images(self.rois).items()))
        self.keys = volume_keys(self.rois)  # of the files that the ROIs need: images, and masks
        self.device = torch.device(parser.get_parsed_content("device"))
        self.num_workers = int(parser.get_parsed_content("num_workers", default=0))
        self.weights = [Path(file) for file in ensure_tuple(parser.get_parsed_content("ckpt_path"))]
        # First, because it fails where there are no weights, and the network takes long.
        checkpoint = parser.get_parsed_content("checkpoint")
        check_crop_sizes(rois=self.rois, ckpt_paths=self.weights)
        self._unlike = Unlike.of(self.weights)
        self._network = parser.get_parsed_content("network")
        self._references = read_references(self.weights, self._network)
        self._inferer = parser.get_parsed_content("inferer")
        self._prepare_batch = parser.get_parsed_content("prepare_batch")
        self._postprocess = parser.get_parsed_content("postprocessing")
        self._preprocess = parser.get_parsed_content("dataset#transform")
        loader = Engine(lambda _engine, _batch: None)
        checkpoint.attach(loader)  # MONAI's loaders read at this event
        loader.fire_event(Events.STARTED)

    @property
    def masked_images(self) -> list[Image]:
        """Return the images whose masks the ROIs need, those with most nuclei first."""
        masked = [image for image in self.images.values() if image.mask_name in self.keys]
        return sorted(masked, key=lambda image: -len(image.nuclei))

    def crop(self, subject: Subject) -> dict[str, Any]:
        """Crop the ROIs of the volumes that a subject has, by ``keys``; paths are read."""
        return dict(self._preprocess(dict(subject)))

    def classify(self, crops: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the network about what ``crop`` returns, and return what ``prediction`` gives.

        Raises:
            ValueError: if the network's answer is no finite number.
        """
        images, targets = self._inputs(crops)
        with eval_mode(self._network):
            answer = self._inferer(images, self._network)
            output = self._postprocess({"label": targets, "pred": answer})
            return prediction(self.target, output, 0) | self._unlike.score(answer)

    def check_states(self, mask_mode: StateMode) -> None:
        """Raise a ``ValueError`` where the weights do not hold what a mode of masking needs."""
        if mask_mode == "reference" and not self._references:
            raise ValueError(
                "mask_mode 'reference' needs weights with reference subjects of these ROIs, which "
                "training keeps since 2026-11-26; train anew, or take --mask_mode voxels."
            )

    def states(self, crops: Mapping[str, Any], mask_mode: StateMode = "voxels") -> list[float]:
        """Ask the network about what ``crop`` returns with every subset of the ROIs masked.

        Returns:
            P(PD), or what else is predicted, in every state, in the order of ``masked_states``,
            without mirrored views.

        Raises:
            ValueError: for a network without ROI tokens, one that masks ROIs already, or an answer
                that is no finite number.
        """
        images, _ = self._inputs(crops)
        return masked_values(
            self._network,
            images,
            target=self.target,
            mask_mode=mask_mode,
            references=self._references,
        )

    def explain(self, crops: Mapping[str, Any]) -> Explanation:
        """Say what each ROI of what ``crop`` returns, and each part of it, adds.

        Raises:
            ValueError: for a network without ROI tokens, or one that masks ROIs already.
        """
        images, _ = self._inputs(crops)
        explanation = explain_subject(
            self._network, images, target=self.target, references=self._references
        )
        return explanation | {"spread": self._spread}

    @cached_property
    def _spread(self) -> Spread:
        """How the Shapley values of the references spread; {} without references."""
        if not self._references:
            return {}
        return training_spread(self._network, self._references, target=self.target)

    def _inputs(self, crops: Mapping[str, Any]) -> tuple[Any, Any]:
        return self._prepare_batch(collate_subjects([dict(crops)]), self.device)
