import pytest
import torch
from stand_in import StandIn
from torch import nn

from mrn_components import param_groups


def groups(encoder=("encoder",), heads=("dpt", "classifier")):
    return {
        "encoder": {"modules": list(encoder), "lr": 1e-5, "weight_decay": 0.1},
        "heads": {"modules": list(heads), "lr": 1e-4, "weight_decay": 0.05},
    }


def test_every_parameter_is_in_one_group_with_its_options():
    network = StandIn()
    result = param_groups(network=network, groups=groups())
    optimizer = torch.optim.AdamW(result)
    encoder, heads = optimizer.param_groups
    assert (encoder["name"], encoder["lr"], encoder["weight_decay"]) == ("encoder", 1e-5, 0.1)
    assert (heads["name"], heads["lr"], heads["weight_decay"]) == ("heads", 1e-4, 0.05)
    assert encoder["params"] == list(network.encoder.parameters())
    assert len(encoder["params"]) + len(heads["params"]) == len(list(network.parameters()))


def test_a_module_that_is_switched_off_is_skipped():
    network = StandIn()
    network.dpt = None
    heads = param_groups(network=network, groups=groups())[1]
    assert heads["params"] == list(network.classifier.parameters())


def test_parameters_dotted_names_and_frozen_ones():
    network = StandIn()
    network.token = nn.Parameter(torch.zeros(2))
    network.encoder[0].requires_grad_(False)
    encoder, heads = param_groups(
        network=network,
        groups=groups(encoder=["encoder", "token"], heads=["dpt.nm", "dpt.qsm", "classifier"]),
    )
    assert len(encoder["params"]) == 3  # two of the norm, the token
    assert encoder["params"][-1] is network.token
    assert len(heads["params"]) == 6


def test_an_unknown_name_is_an_error():
    with pytest.raises(
        ValueError, match=r"groups name the module 'res.ffa', which StandIn does not have"
    ):
        param_groups(network=StandIn(), groups=groups(encoder=["encoder", "res.ffa"]))


def test_a_parameter_left_out_is_named():
    with pytest.raises(
        ValueError, match=r"leave out 2 trainable parameters, first 'classifier.weight'"
    ):
        param_groups(network=StandIn(), groups=groups(heads=["dpt"]))


def test_a_parameter_in_two_groups_is_named():
    with pytest.raises(
        ValueError, match=r"'encoder' and 'heads' both hold the parameter 'encoder.1.weight'"
    ):
        param_groups(network=StandIn(), groups=groups(heads=["encoder.1", "dpt", "classifier"]))
