"""Frozen parts of a network: weight files name them by their hash and do not hold them."""

import hashlib
from copy import deepcopy
from typing import Any, Self

import torch
from torch import Tensor, nn

_KEY = "frozen_sha256"  # in a state dict, in the place of the frozen weights


class Freezable(nn.Module):
    """A pretrained part that can be frozen.

    Nothing trains a frozen weight: no gradient, no state of the optimiser, no decay. Where the
    frozen weights come from a file or a download, a state dict has their SHA-256 as
    ``frozen_sha256`` and not the weights, and ``load_state_dict`` refuses another hash; copies of
    the module (teachers, moving averages, folds) share them. Random weights have no other place and
    stay in the state dict.

    Attributes:
        frozen_names: names of the frozen parameters.
        frozen_sha256: SHA-256 of their names, types, shapes and values, as 32 bytes; None where
            they are in the state dict.
    """

    frozen_names: tuple[str, ...] = ()
    frozen_sha256: Tensor | None = None

    def freeze(self, *, found_elsewhere: bool) -> None:
        """Freeze all that is there now; ``found_elsewhere`` tells of weights with another place."""
        self.requires_grad_(False)
        self.frozen_names = tuple(name for name, _ in self.named_parameters())
        self.frozen_sha256 = _sha256(self) if found_elsewhere else None
        self.register_state_dict_post_hook(_leave_out)
        self.register_load_state_dict_pre_hook(_put_in)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy all but the frozen weights that are found elsewhere."""
        if self.frozen_sha256 is not None:
            shared = (self.get_parameter(name) for name in self.frozen_names)
            memo.update({id(parameter): parameter for parameter in shared})
        memo[id(self)] = copy = self.__new__(type(self))
        copy.__dict__.update(deepcopy(self.__dict__, memo))
        return copy


def _sha256(module: nn.Module) -> Tensor:
    digest = hashlib.sha256()
    for name, parameter in sorted(module.named_parameters()):
        digest.update(f"{name} {parameter.dtype} {list(parameter.shape)}".encode())
        values = parameter.detach().cpu().contiguous()
        digest.update(values.flatten().view(torch.uint8).numpy().data)
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)


def _leave_out(module: Any, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    """Put the hash into a state dict in the place of the frozen weights."""
    if module.frozen_sha256 is not None:
        for name in module.frozen_names:
            del state[prefix + name]
        state[prefix + _KEY] = module.frozen_sha256


def _put_in(module: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Put the module's own frozen weights into a state dict that names them by hash.

    Raises:
        ValueError: if they are others, or are in the state dict although they are found elsewhere.
    """
    theirs, own = state.pop(prefix + _KEY, None), module.frozen_sha256
    if theirs is None and own is not None and prefix + module.frozen_names[0] in state:
        raise ValueError(
            "the weights hold their frozen encoder: leave --encoder_weights out, or type none."
        )
    if theirs is None:
        return
    if own is None or not torch.equal(own, theirs.cpu()):
        this = "none is named" if own is None else f"this one's is {_shown(own)}"
        raise ValueError(
            f"the weights need the frozen encoder of SHA-256 {_shown(theirs)}, and {this}: name "
            "its file, or hub, by --encoder_weights FILE, as configs/train.json of the run has it."
        )
    state.update(
        {prefix + name: module.get_parameter(name).detach() for name in module.frozen_names}
    )


def _shown(sha256: Tensor) -> str:
    return bytes(sha256.tolist()).hex()[:16]
