"""One subject, from what was prepared to its record: masks, the network's answers, files."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mrn_components.app.predict.classifier import Classifier
from mrn_components.app.predict.preparation import Preparation, Prepared, timed
from mrn_components.app.predict.records import Record, mask_file, subject_folder
from mrn_components.app.predict.segmentation import Segmenters
from mrn_components.app.report.explanation import UNEXPLAINED
from mrn_components.app.report.subject import EXPLANATION
from mrn_components.app.segment import save_mask
from mrn_components.data import Subject
from mrn_components.data.ledger import Ledger
from mrn_components.images.finding import Finding
from mrn_components.images.image import Image
from mrn_components.images.volume import Volume
from mrn_components.networks.masking import MaskMode
from mrn_components.system.files import write_text


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """What turns a prepared subject into its record, in the process that has the networks.

    Args:
        classifier: the network and what is around it.
        segmenters: make the masks that a subject lacks.
        preparation: what is done before.
        abstain: give no probability where an ROI of neuromelanin, without which the paper's
            network loses most (Table 4), or more than one ROI is missing.
        states: also mask every subset of the ROIs, in this way.
        explain: write ``explanation.json`` for the report too.
    """

    classifier: Classifier
    segmenters: Segmenters
    preparation: Preparation
    abstain: bool = True
    states: MaskMode | None = None
    explain: bool = False

    def __call__(self, case: tuple[Subject, Sequence[Finding]]) -> Prepared:
        """Prepare and predict a subject: all that is done with it, in any process.

        Args:
            case: what ``find_subjects`` returns of a subject, and what was found wrong with it.
        """
        return self.predict(self.preparation(case))

    def predict(self, prepared: Prepared) -> Prepared:
        """Predict a subject; what goes wrong with it stands in its record.

        Args:
            prepared: what ``preparation`` returns of it.
        """
        if prepared.record["error"] is None:
            with self.preparation.guard(prepared):
                self._fill(prepared)
        prepared.crops = None
        return prepared

    def _fill(self, prepared: Prepared) -> None:
        record = prepared.record
        if prepared.crops is None:
            self._segment(prepared)
            self.preparation.crop(prepared)
        assert prepared.crops is not None
        record["status"] = "ok"
        if self.abstain and (reason := self._abstention(record)):
            record["flags"].append(reason)
            record["status"] = "abstained"
            return
        with timed(record, "classify"):
            record |= self.classifier.classify(prepared.crops)
        if self.states is not None:
            with timed(record, "states"):
                values = self.classifier.states(prepared.crops, self.states)
            lead = self.classifier.target.lead
            record["states"] = {"mask_mode": self.states, lead: values}
        if self.explain:
            with timed(record, "explain"):
                self._explain(record, prepared.crops)

    def _segment(self, prepared: Prepared) -> None:
        """Make and write the masks that a subject lacks."""
        record, subject = prepared.record, prepared.subject
        images = [image for image in self.classifier.masked_images if image.name in subject]
        for image in self.preparation.lacking(prepared):
            path = mask_file(self.preparation.output_dir, record["subject"], image)
            with timed(record, f"segment_{image.name}"):
                segment = self.segmenters.load(image)
                masks = {i.name: subject[i.mask_name] for i in images if i.mask_name in subject}
                mask = segment(subject[image.name], find_near(image, images, masks))
            with timed(record, "write"):
                save_mask(path, mask, like=subject[image.name])
            subject[image.mask_name] = subject[image.name].with_voxels(mask, path)
        with timed(record, "read"):
            self.preparation.mark(prepared, list(self._ledgers_of_segmenters(record)))

    def _ledgers_of_segmenters(self, record: Record) -> Iterator[Ledger]:
        """Of those whose masks the subject has: a network knows the nuclei that it learned from."""
        for image, source in record["mask_source"].items():
            if source == "segmented":
                yield from self.segmenters.load(self.classifier.images[image]).ledgers

    def _explain(self, record: Record, crops: Mapping[str, Any]) -> None:
        try:
            explanation = self.classifier.explain(crops)
        except ValueError as error:
            record["flags"].append(f"{UNEXPLAINED}: {error}")
        else:
            folder = subject_folder(self.preparation.output_dir, record["subject"])
            write_text(folder / EXPLANATION, json.dumps(explanation) + "\n")

    def _abstention(self, record: Record) -> str | None:
        """Why no probability is given; None if one is."""
        missing = record["missing_rois"]
        images = [self.classifier.rois[name].image for name in missing]
        vital = [image.title for image in images if image.quantity == "neuromelanin"]
        if not vital and len(missing) < min(2, len(self.classifier.rois)):
            return None
        what = f"the {vital[0]} region is" if vital else f"{len(missing)} regions are"
        return (
            f"no probability, because {what} missing ({', '.join(missing)}); add what is missing, "
            "or force one by --abstain False"
        )


def find_near(
    image: Image, others: Sequence[Image], masks: Mapping[str, Volume]
) -> tuple[Volume, list[int]] | None:
    """Find a mask that holds all nuclei of an image, and their ids in it: there they are in both.

    The SN of QSM tells where to look in NM.
    """
    for other in others:
        if other.name in masks and image.nuclei.keys() <= other.nuclei.keys():
            return masks[other.name], [i for name in image.nuclei for i in other.nuclei[name]]
    return None
