"""``mrn predict``: a bundle's inference workflow on a folder of subjects."""

from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

from mrn_components.app.inspect import require_trusted
from mrn_components.bundle import bundle_config, check_key


def predict(input_dir: str, output_dir: str, *, bundle: str, **overrides: Any) -> Path:
    """Run ``configs/inference`` of a bundle.

    Args:
        input_dir: folder of subjects in the challenge's layout, with masks; or a JSON datalist.
        output_dir: folder of the results.
        bundle: folder of a bundle, or of a training run.
        overrides: config keys and their values.

    Returns:
        The path of ``predictions.csv``.

    Raises:
        FileNotFoundError: if a path is missing or ``bundle`` is no bundle.
        ValueError: for an override that the config does not know.
    """
    workflow = inference_workflow(input_dir, output_dir, bundle=bundle, **overrides)
    workflow.run()
    workflow.finalize()
    return Path(output_dir) / "predictions.csv"


def inference_workflow(
    input_dir: str,
    output_dir: str,
    *,
    bundle: str,
    trust_bundle: bool = False,
    **overrides: Any,
) -> ConfigWorkflow:
    """Make the inference workflow of a bundle, ready to run.

    Args:
        input_dir: as of ``predict``.
        output_dir: as of ``predict``.
        bundle: as of ``predict``.
        trust_bundle: run the bundle in spite of what ``mrn inspect`` finds in it.
        overrides: as of ``predict``.

    Raises:
        FileNotFoundError: if ``bundle`` is no bundle.
        UntrustedBundleError: if the bundle could run code of its own, or was changed.
        ValueError: for an override that the config does not know.
    """
    config_file = bundle_config(Path(bundle), "inference")
    config = ConfigParser.load_config_file(str(config_file))
    for key in overrides:
        check_key(key, config, source="--")
    require_trusted(bundle, overrides, trust_bundle)
    workflow = ConfigWorkflow(
        config_file=str(config_file),
        workflow_type="infer",
        bundle_root=bundle,
        dataset_dir=input_dir,
        output_dir=output_dir,
        **overrides,
    )
    workflow.initialize()
    return workflow
