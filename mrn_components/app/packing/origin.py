"""What the training of packed weights began with: its licence is theirs too."""

from typing import NamedTuple

from mrn_components.app.inspect.vocabulary import ENCODER_WEIGHTS
from mrn_components.app.sheet.study import Study

_OF_OTHERS = "of the weights that the training began with{}, *for the authors*"
_OF_DINOV2 = "of the encoder's first weights (DINOv2 and its copy by timm), Apache-2.0"
_OF_NOBODY = "the training began with random numbers, so that no one else's weights are in it"


class Origin(NamedTuple):
    """What a training began with."""

    words: str
    license: str  # whose it is, and what they allow, in Markdown


def origin_of(study: Study) -> Origin:
    """Say what the training of a study's weights began with, as far as its config is known."""
    if "train" not in study.contents:
        return Origin("weights of which no record was found", _OF_OTHERS.format(""))
    weights = study.value("train", ENCODER_WEIGHTS)
    if weights in (None, "none"):
        return Origin("random numbers", _OF_NOBODY)
    if weights != "hub":
        return Origin(f"pretrained weights, {weights}", _OF_OTHERS.format(f" (`{weights}`)"))
    name = str(study.value("train", "network_def#res#encoder#name"))
    words = f"pretrained weights, {name} of timm"
    return Origin(words, _OF_DINOV2 if "dinov2" in name else _OF_OTHERS.format(f" (`{name}`)"))
