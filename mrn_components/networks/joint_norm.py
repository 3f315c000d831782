"""Batch normalisation over the batches of all processes, on any device."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ReduceOp, all_reduce, get_world_size, is_available, is_initialized


def join_batch_norms(network: nn.Module) -> nn.Module:
    """Let the batch normalisations of a network see the batches of all processes as one.

    Like torch's ``SyncBatchNorm.convert_sync_batchnorm``, which runs on GPUs alone. Weights, their
    names, evaluation and a single process stay as they are.

    Args:
        network: with any number of ``BatchNorm3d``, or none. It is changed, and returned.
    """
    for module in network.modules():
        if type(module) is nn.BatchNorm3d:
            module.__class__ = _JointBatchNorm3d
    return network


def largest_of_all(sides: Sequence[int], device: torch.device) -> list[int]:
    """The largest of each of the numbers among the processes that train together."""
    if not _several_processes():
        return list(sides)
    largest = torch.tensor(sides, device=device)
    all_reduce(largest, ReduceOp.MAX)
    return largest.tolist()


class _JointBatchNorm3d(nn.BatchNorm3d):
    def forward(self: Any, volumes: Tensor) -> Tensor:
        if not (self.training and _several_processes()):
            return nn.BatchNorm3d.forward(self, volumes)
        values = volumes.float().transpose(0, 1).flatten(1)  # (C, voxels)
        voxels = _SumOfAll.apply(values.new_tensor(values.shape[1]))
        mean = _SumOfAll.apply(values.sum(1)) / voxels
        variance = _SumOfAll.apply((values - mean[:, None]).square().sum(1)) / voxels
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * voxels / (voxels - 1), self.momentum)
            self.num_batches_tracked.add_(1)
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        scaled = volumes * scale[:, None, None, None] + shift[:, None, None, None]
        return scaled.to(volumes.dtype)


class _SumOfAll(torch.autograd.Function):
    """The sum over the processes; the gradient of its share is the sum of their gradients."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        return _SumOfAll.forward(None, gradient.contiguous())


def _several_processes() -> bool:
    return is_available() and is_initialized() and get_world_size() > 1
