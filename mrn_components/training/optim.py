"""Parameter groups: which module trains at which learning rate and weight decay (section 4.1.2)."""

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from timm.models import group_parameters
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def param_groups(
    *, network: nn.Module, groups: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Sort the network's trainable parameters into groups for an optimiser.

    Args:
        network: the network, wrapped in ``DistributedDataParallel`` or not.
        groups: by name: "modules", a list of dotted names of modules or parameters, and options of
            the optimiser, such as "lr" and "weight_decay". A module that is None (switched off) is
            skipped. "layer_decay", in (0, 1], divides a group by the layers of the encoders in it
            (modules with timm's ``group_matcher``): each layer trains at this share of the
            learning rate of the layer behind it.

    Returns:
        One dict a group: "name", "params" and the options; one a layer where they are divided.

    Raises:
        ValueError: for a name that the network does not have, for a trainable parameter in no
            group or in two, and for a "layer_decay" that is none.
    """
    network = unwrap(network)
    names = {id(p): name for name, p in network.named_parameters() if p.requires_grad}
    group_of: dict[int, str] = {}  # id of a parameter -> its group
    result = []
    for name, group in groups.items():
        options = dict(group)
        params = []
        for module in options.pop("modules"):
            for parameter in _trainable(network, module):
                if id(parameter) in group_of:
                    raise ValueError(
                        f"groups {group_of[id(parameter)]!r} and {name!r} both hold the parameter "
                        f"{names[id(parameter)]!r}; name every module once."
                    )
                group_of[id(parameter)] = name
                params.append(parameter)
        decay = options.pop("layer_decay", None)
        if decay is not None and not 0 < decay <= 1:
            raise ValueError(f"layer_decay of group {name!r} must be in (0, 1], got {decay}.")
        whole = {"name": name, "params": params, **options}
        result += [whole] if decay is None else _by_layer(network, whole, decay)
    if left := [name for key, name in names.items() if key not in group_of]:
        raise ValueError(
            f"groups {list(groups)} leave out {len(left)} trainable parameters, first {left[0]!r}; "
            "add its module to the 'modules' of a group."
        )
    return result


def _by_layer(network: nn.Module, group: dict[str, Any], decay: float) -> list[dict[str, Any]]:
    """Divide a group by the layers of the encoders in it (as in BEiT), the first layer first."""
    above: dict[int, int] = {}  # id of a parameter -> layers behind its own
    for module in network.modules():  # an encoder comes before the model of timm in it, and counts
        if (matcher := getattr(module, "group_matcher", None)) is not None:
            layers = group_parameters(module, matcher(), reverse=True)
            last = max(layers.values())
            found = {id(module.get_parameter(name)): last - at for name, at in layers.items()}
            above = found | above
    by_layer: dict[int, list[nn.Parameter]] = {}
    for parameter in group["params"]:
        by_layer.setdefault(above.get(id(parameter), 0), []).append(parameter)
    return [
        group | {"name": f"{group['name']}-{at}", "params": params, "lr": group["lr"] * decay**at}
        for at, params in sorted(by_layer.items(), reverse=True)
    ]


def unwrap(network: nn.Module) -> nn.Module:
    """The network itself, when a distributed run has wrapped it."""
    return network.module if isinstance(network, DistributedDataParallel) else network


def _trainable(network: nn.Module, name: str) -> list[nn.Parameter]:
    try:
        found = attrgetter(name)(network)
    except AttributeError:
        children = [child for child, _ in network.named_children()]
        raise ValueError(
            f"groups name the module {name!r}, which {type(network).__name__} does not have; "
            f"its children are {children}."
        ) from None
    if found is None:
        return []
    params = [found] if isinstance(found, nn.Parameter) else list(found.parameters())
    return [parameter for parameter in params if parameter.requires_grad]
