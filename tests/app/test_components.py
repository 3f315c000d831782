import inspect
import re

import pytest
import yaml

import mrn_components
from mrn_components.app.components import components


@pytest.mark.parametrize("name", mrn_components.__all__)
def test_every_component_is_explained_with_an_example_that_builds_on_its_signature(name):
    told = components(name)
    head, *_ = told.splitlines()
    part = getattr(mrn_components, name)
    assert head == f"mrn_components.{name}, in {part.__module__.replace('.', '/')}.py"
    arguments = inspect.signature(part).parameters
    for argument in arguments:
        assert re.search(rf"^  \**{argument}\b", told, flags=re.MULTILINE), argument
    text = told.split("In a config")[1].partition("\n\n")[2]
    example = yaml.safe_load(inspect.cleandoc("\n" + text))
    if isinstance(example, list):
        (built,) = example
    else:
        built = example if "_target_" in example else next(iter(example.values()))
    explained = told.split("In a config")[0].split("\n", 2)[2].partition("\n\n  ")[2]
    assert not re.search(r"\S {2,}\S", explained)
    assert "'-'" not in text
    assert built["_target_"] == f"mrn_components.{name}"
    keys = {key for key in built if not re.fullmatch("_.*_", key)}
    free = any(one.kind is one.VAR_KEYWORD for one in arguments.values())
    assert free or keys <= arguments.keys()
    if "_mode_" not in built:  # a function that is handed on gets its arguments later
        needed = {k for k, one in arguments.items() if one.default is one.empty}
        assert free or needed <= keys


def test_a_config_of_the_bundles_is_the_example():
    told = components("ROI")
    assert "In a config, as in mrn/configs/train.yaml:" in told
    assert components("mrn_components.ROI") == told
    assert "image: '@images#nm'" in told
    assert "\n  nuclei: Sequence[str]\n" in told
    assert "\n  margin_mm: float = 4.0\n      tissue kept around the nuclei" in told


def test_an_unknown_name_is_refused_with_the_nearest():
    for wrong, meant in {"MNR": "MRN", "mrn": "MRN", "rois": "ROI"}.items():
        with pytest.raises(ValueError, match=f"no component '{wrong}'. Did you mean {meant}"):
            components(wrong)


def test_sections_come_in_the_order_of_use():
    told = components("SliceEncoder")
    assert "\n  **model_args: Any\n      further arguments of the timm model" in told
    assert told.index("**model_args") < told.index("\n  raises ValueError\n      if `name`")
    told = components("FiniteLossHandler")
    assert told.index("\n  raises FloatingPointError\n") > told.index("Belongs after")
    assert "\n  returns\n      The labels as a tensor" in components("collate_subjects")
    assert "\n  - _target_: mrn_components.tell_run\n" in components("tell_run")
