"""The one way to ask the network of a bundle."""

from collections.abc import Mapping
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from monai.networks.utils import eval_mode
from monai.utils import ensure_tuple

from mrn_components.app.predict.references import read_references
from mrn_components.app.predict.unlike import Unlike, patients_of
from mrn_components.app.predict.workflow import target_of
from mrn_components.app.report.explanation import Explanation, Pass, explain_subject
from mrn_components.app.roi_game import Spread, masked_values, training_spread
from mrn_components.app.states import States
from mrn_components.data import Subject
from mrn_components.data.crop_sizes import check_crop_sizes
from mrn_components.data.dataset import collate_subjects
from mrn_components.data.predictions import prediction
from mrn_components.data.subjects import needed_images
from mrn_components.images.image import Image
from mrn_components.networks.attention_map import AttentionWatch
from mrn_components.networks.masking import StateMode
from mrn_components.regions.roi import volume_keys

_PARTS = ("checkpoint", "dataset", "inferer", "network", "postprocessing", "prepare_batch")


class Asked(NamedTuple):
    """A subject whom the network was asked about."""

    images: Any  # what the network takes
    labels: Any  # what the postprocessing takes
    answer: Any  # what the inferer gave
    known: Pass | None  # of it, for what else is asked; None of a network without representation


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
        self._references = read_references(self.weights, self._network, self.target)
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

    def ask(self, crops: Mapping[str, Any], *, watched: bool = False) -> Asked:
        """Ask the network about what ``crop`` returns; ``watched`` for an explanation."""
        images, labels = self._prepare_batch(collate_subjects([dict(crops)]), self.device)
        watch = AttentionWatch(self._network) if watched else None
        with eval_mode(self._network), watch or nullcontext():
            answer = self._inferer(images, self._network)
        known = None
        if (patients := patients_of(answer)) is not None:
            known = Pass(list(patients.split(1)), {} if watch is None else watch.maps())
        return Asked(images, labels, answer, known)

    def classify(self, asked: Asked) -> dict[str, Any]:
        """Return what ``prediction`` gives of an answer.

        Raises:
            ValueError: if the network's answer is no finite number.
        """
        output = self._postprocess({"label": asked.labels, "pred": asked.answer})
        return prediction(self.target, output, 0) | self._unlike.score(asked.answer)

    def check_states(self, mask_mode: StateMode) -> None:
        """Raise a ``ValueError`` where the weights do not hold what a mode of masking needs."""
        if mask_mode == "reference" and not self._references:
            raise ValueError(
                "mask_mode 'reference' needs weights with reference subjects of these ROIs, which "
                "a training keeps where num_references is above 0. Train anew, or take "
                "--mask_mode voxels."
            )

    def states(self, asked: Asked, mask_mode: StateMode = "voxels") -> States:
        """Ask the network about a subject again, with every subset of the ROIs masked.

        Returns:
            Of each column, P(PD), or what else is predicted, in every state, in the order of
            ``masked_states``, without mirrored views.

        Raises:
            ValueError: for a network without ROI tokens, one that masks ROIs already, or an answer
                that is no finite number.
        """
        return masked_values(
            self._network,
            asked.images,
            target=self.target,
            mask_mode=mask_mode,
            references=self._references,
            patients=asked.known and asked.known.patients,
        )

    def explain(self, asked: Asked, *, occlusion: bool = True) -> Explanation:
        """Say what each ROI of a subject that was watched, and each part of it, adds.

        Without ``occlusion`` there are no occlusion maps, for which the network is asked often.

        Raises:
            ValueError: for a network without ROI tokens, or one that masks ROIs already.
        """
        explanation = explain_subject(
            self._network,
            asked.images,
            target=self.target,
            references=self._references,
            known=asked.known,
            occlusion=occlusion,
        )
        return explanation | {"spread": self._spread}

    @cached_property
    def _spread(self) -> Spread:
        """How the Shapley values of the references spread; {} without references."""
        if not self._references:
            return {}
        return training_spread(self._network, self._references, target=self.target)
