"""A bundle's inference workflow, and its parts as one classifier of subjects."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from monai.networks.utils import eval_mode
from monai.utils import ensure_tuple

from mrn_components.app.inspect import open_bundle
from mrn_components.app.report.explanation import Explanation, explain_subject
from mrn_components.data import Subject
from mrn_components.data.dataset import collate_subjects
from mrn_components.data.predictions import prediction
from mrn_components.data.target import HC_PD, Target
from mrn_components.images.image import Image
from mrn_components.regions.roi import ROI, images_of, volume_keys
from mrn_components.system.keys import check_device

_PARTS = ("checkpoint", "dataset", "inferer", "network", "postprocessing", "prepare_batch")


def inference_workflow(
    input_dir: str,
    output_dir: str,
    *,
    bundle: str,
    trust_bundle: bool = False,
    **overrides: Any,
) -> ConfigWorkflow:
    """Make the inference workflow of a bundle, ready to run.

    It is that of the installed bundle, with the weights, the networks and the settings of this one.

    Args:
        input_dir: folder of subjects in the challenge's layout, with masks; or a JSON datalist.
        output_dir: folder of the results.
        bundle: folder of a bundle, or of a training run.
        trust_bundle: run the bundle's own config, in spite of what ``mrn inspect`` finds.
        overrides: config keys and their values.

    Raises:
        FileNotFoundError: if ``bundle`` is no bundle.
        ValueError: for an override that the config does not know.
        UntrustedBundleError: if more than the bundle's data differ from the installed one.
    """
    check_device(overrides)
    places = {"dataset_dir": input_dir, "output_dir": output_dir}
    config_file, settings = open_bundle(bundle, overrides | places, trust_bundle)
    workflow = ConfigWorkflow(config_file=str(config_file), workflow_type="infer", **settings)
    workflow.initialize()
    return workflow


def bundle_rois(bundle: str) -> dict[str, ROI]:
    """Return the regions of a bundle, whose images a verb without a network may want.

    Args:
        bundle: folder of a bundle, or of a training run.

    Raises:
        FileNotFoundError: if it is none.
        UntrustedBundleError: if more than the bundle's data differ from the installed one.
    """
    parser = inference_workflow(".", ".", bundle=bundle).parser
    return dict(parser.get_parsed_content("rois"))


class Classifier:
    """The network of a bundle with all that its inference config puts around it.

    The parts are used as the config has them, so that a subject gets the numbers of
    ``monai.bundle run``.

    Args:
        workflow: what ``inference_workflow`` returns.

    Attributes:
        images: what the ROIs are taken from, by name.
        keys: of the files that the ROIs need of a subject: images, and masks of nuclei.

    Raises:
        ValueError: if the config lacks a part.
        FileNotFoundError: if the weights are missing.
    """

    def __init__(self, workflow: ConfigWorkflow) -> None:
        parser = workflow.parser
        if missing := [part for part in _PARTS if part not in parser.get()]:
            raise ValueError(
                f"the inference config has no {missing}, of which `mrn predict` is made; add what "
                "the bundle mrn has in configs/inference.yaml."
            )
        known = "target" in parser.get()  # runs of earlier versions name none
        self.target: Target = parser.get_parsed_content("target") if known else HC_PD
        self.rois = dict(parser.get_parsed_content("rois"))
        self.images = dict(sorted(images_of(self.rois).items()))
        self.keys = volume_keys(self.rois)
        self.device = torch.device(parser.get_parsed_content("device"))
        self.weights = [Path(file) for file in ensure_tuple(parser.get_parsed_content("ckpt_path"))]
        # First, because it fails where there are no weights, and the network takes long.
        checkpoint = parser.get_parsed_content("checkpoint")
        self._network = parser.get_parsed_content("network")
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
        """Read a subject's files and crop its ROIs.

        Args:
            subject: ``subject`` and the paths that there are, by ``keys``.
        """
        return dict(self._preprocess(dict(subject)))

    def classify(self, crops: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the network.

        Args:
            crops: what ``crop`` returns.

        Returns:
            What ``prediction`` gives.

        Raises:
            ValueError: if the network's answer is no finite number.
        """
        images, targets = self._inputs(crops)
        with eval_mode(self._network):
            output = {"label": targets, "pred": self._inferer(images, self._network)}
            return prediction(self.target, self._postprocess(output), 0)

    def explain(self, crops: Mapping[str, Any]) -> Explanation:
        """Say what each ROI, and each part of it, adds to the probability.

        Args:
            crops: what ``crop`` returns.

        Raises:
            ValueError: for a network without ROI tokens, or one that masks ROIs already.
        """
        return explain_subject(self._network, self._inputs(crops)[0], target=self.target)

    def _inputs(self, crops: Mapping[str, Any]) -> tuple[Any, Any]:
        return self._prepare_batch(collate_subjects([dict(crops)]), self.device)
