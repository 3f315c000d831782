import pytest
import torch
from stand_in import StandIn
from torch import nn

from mrn_components import SliceEncoder, param_groups


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


@pytest.mark.parametrize("decay", [0, -0.5, 1.5, float("nan")])
def test_a_decay_by_layer_that_is_none_is_refused(decay):
    wrong = groups()
    wrong["encoder"]["layer_decay"] = decay
    with pytest.raises(ValueError, match=r"layer_decay of group .encoder. must be in"):
        param_groups(network=StandIn(), groups=wrong)


def test_layers_of_a_transformer_train_the_slower_the_earlier_they_are():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            name = "vit_small_patch14_reg4_dinov2.lvd142m"
            self.encoder = SliceEncoder(name=name, depth=3, embed_dim=16, num_heads=2)
            self.other, self.head = nn.Linear(2, 2), nn.Linear(2, 2)

    network = Network()
    options = {"lr": 1e-3, "weight_decay": 0.1, "layer_decay": 0.5}
    of = {
        "features": {"modules": ["encoder", "other"], **options},
        "heads": {"modules": ["head"], "lr": 1e-4},
    }
    result = param_groups(network=network, groups=of)
    rate = {id(p): group["lr"] for group in result for p in group["params"]}
    vit = network.encoder.vit
    stem = [vit.patch_embed.proj.weight, vit.pos_embed, vit.cls_token, vit.reg_token]
    assert [rate[id(parameter)] for parameter in stem] == [1e-3 / 8] * 4
    assert [rate[id(block.attn.qkv.weight)] for block in vit.blocks] == [1e-3 / 4, 1e-3 / 2, 1e-3]
    assert rate[id(vit.norm.weight)] == rate[id(network.other.weight)] == 1e-3
    assert result[-1] == {"name": "heads", "params": list(network.head.parameters()), "lr": 1e-4}
    assert len(rate) == len(list(network.parameters()))
    assert all(group["weight_decay"] == 0.1 for group in result[:-1])
