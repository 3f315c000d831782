"""Numbers of a frozen encoder for a regression: tokens pooled over the nuclei of each ROI."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from mrn_components.app.predict.workflow import inference_workflow
from mrn_components.data import Subject
from mrn_components.data.tokens import TokenDataset
from mrn_components.networks.mrn import MRN
from mrn_components.networks.nucleus_pool import pool_patches
from mrn_components.networks.packing import EncodedVolume, slice_tokens
from mrn_components.regions.transforms import ROIMaskChannelsd
from mrn_components.system.logs import bar

Pooled = Literal["nuclei", "patches", "slices"]

_SEED = 1  # of random weights, so that they are the same each time


def token_features(
    subjects: Sequence[Subject],
    *,
    bundle: str,
    cache_dir: str | Path,
    encoder_weights: str = "hub",
    pooled: Pooled = "nuclei",
    **overrides: Any,
) -> tuple[dict[str, dict[str, float]], dict[str, str], dict[str, str]]:
    """Pool the tokens of a bundle's encoder, as it was pretrained, in every ROI of each subject.

    No network is trained. Tokens are kept in ``cache_dir``, where ``TokenDataset`` finds them. An
    ROI that a subject lacks has no numbers.

    Args:
        subjects: with the paths of their files.
        bundle: folder of a bundle whose network has an RES: its ROIs, preprocessing and encoder.
        cache_dir: folder of the cache.
        encoder_weights: "hub", a file, or "none" for random weights, a control.
        pooled: "nuclei" averages patches by the share of each that is nucleus, "patches" all
            alike, "slices" the slice tokens.
        overrides: further config keys and their values.

    Returns:
        {subject: {column: number}}; the ROI of each column; {subject: why it has no numbers}.

    Raises:
        ValueError: for another network, or another ``pooled``.
    """
    if pooled not in get_args(Pooled):
        raise ValueError(f"pooled must be one of {list(get_args(Pooled))}, got {pooled!r}.")
    options = {"encoder_weights": encoder_weights, **overrides}
    parser = inference_workflow("", str(cache_dir), bundle=bundle, **options).parser
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network: Any = parser.get_parsed_content("network")
    if not isinstance(network, MRN) or network.res is None:
        raise ValueError(f"{bundle} has no RES, whose encoder gives tokens; name bundles/mrn.")
    network.res.encoder.requires_grad_(requires_grad=False)
    rois = parser.get_parsed_content("rois")
    chain = [parser.get_parsed_content("preprocessing"), ROIMaskChannelsd(rois=rois)]
    own = {"network": network, "rois": rois, "num_views": 1, "stored": "float32"}
    dataset = TokenDataset(data=[], transform=chain, cache_dir=cache_dir, **own)
    measured: dict[str, dict[str, float]] = {}
    errors: dict[str, str] = {}
    for subject in bar(subjects, "Tokens"):
        dataset.set_data([subject])
        try:
            measured[subject["subject"]] = _numbers(dataset[0], tuple(rois), pooled)
        except (OSError, RuntimeError, ValueError) as error:
            errors[subject["subject"]] = str(error).removeprefix(f"subject {subject['subject']}: ")
    width = range(network.res.encoder.channels)
    return measured, {_column(roi, pooled, i): roi for roi in rois for i in width}, errors


def _numbers(encoded: Subject, rois: Sequence[str], pooled: Pooled) -> dict[str, float]:
    """The columns of a subject."""
    there = [roi for roi in rois if roi not in encoded["missing_rois"]]
    means = {roi: _mean(encoded[roi], pooled).tolist() for roi in there}
    return {_column(roi, pooled, i): x for roi in there for i, x in enumerate(means[roi])}


def _mean(volume: EncodedVolume, pooled: Pooled) -> Tensor:
    """The mean token (C,) of a volume."""
    if pooled == "slices":
        return slice_tokens(volume.tokens, [volume.grid]).mean(0)
    shares = volume.shares if pooled == "nuclei" else volume.shares.new_ones(volume.shares.shape)
    return pool_patches(volume.tokens, [volume.grid], [shares])[0]


def _column(roi: str, pooled: Pooled, channel: int) -> str:
    return f"{roi}_{pooled}_{channel:03d}"
