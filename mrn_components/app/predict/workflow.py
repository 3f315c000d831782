"""A bundle's inference workflow."""

from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

from mrn_components.app.inspect import open_bundle
from mrn_components.data.nuclei import nuclei_settings
from mrn_components.data.target import HC_PD, Target
from mrn_components.system.keys import check_device


def inference_workflow(
    input_dir: str,
    output_dir: str,
    *,
    bundle: str,
    nuclei: str | Path | None = None,
    trust_bundle: bool = False,
    **overrides: Any,
) -> ConfigWorkflow:
    """Make the inference workflow of a bundle, ready to run.

    It is that of the installed bundle, with the weights, the networks and the settings of this one.

    Args:
        input_dir: ``dataset_dir`` of the config.
        output_dir: folder of the results.
        bundle: folder of a bundle, or of a training run.
        nuclei: csv of the ids in given masks, if they are not those of the bundle's images.
        trust_bundle: run the bundle's own config, in spite of what ``mrn inspect`` finds.
        overrides: config keys and their values.

    Raises:
        FileNotFoundError: if ``bundle`` is no bundle, or ``nuclei`` no file.
        ValueError: for an override that the config does not know, or a faulty table of nuclei.
        UntrustedBundleError: if more than the bundle's data differ from the installed one.
    """
    check_device(overrides)
    places = {"dataset_dir": input_dir, "output_dir": output_dir}
    config_file, settings = open_bundle(bundle, overrides | places, trust_bundle)
    settings |= {"config_file": str(config_file), "logging_file": False}  # the process has its logs
    workflow = ConfigWorkflow(workflow_type="infer", **settings)
    if nuclei is not None:
        images = workflow.parser.get_parsed_content("images")
        workflow.parser.update(nuclei_settings(nuclei, images))
    workflow.initialize()
    return workflow


def target_of(parser: ConfigParser) -> Target:
    """Return what a bundle predicts; those of earlier versions do not say, and have HC and PD."""
    return parser.get_parsed_content("target") if "target" in parser.get() else HC_PD
