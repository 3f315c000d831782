"""Adapters merged into the encoder that they need: weights that run without its file."""

import shutil
from pathlib import Path

import torch
from monai.bundle import ConfigParser

from mrn_components.bundle import bundle_config, run_encoder, unfrozen_config
from mrn_components.data.weight_records import copy_records
from mrn_components.networks.lora import merge_adapters
from mrn_components.system.files import check_digest


def copy_weights(source: Path, target: Path, run: Path) -> None:
    """Copy weights of a run, merged with its frozen encoder if it has one.

    They are those of ``unfrozen_config``, and carry the records of ``source``.

    Args:
        source: file of weights.
        target: file to write.
        run: folder of the run that trained them; its config says where the encoder is.

    Raises:
        DamagedFileError: if ``source`` is not the file that was written.
        FileNotFoundError: if the encoder is there no more.
        ValueError: if it is not the one that the run was trained with.
    """
    check_digest(source)
    config = ConfigParser.load_config_file(str(bundle_config(run, "inference")))
    if config == unfrozen_config(config):
        shutil.copyfile(source, target)
        return
    parser = ConfigParser({**config, "bundle_root": str(run), **run_encoder(run)})
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(source, map_location="cpu", weights_only=True))
    merge_adapters(network)
    torch.save(network.state_dict(), target)
    copy_records(source, target)
