"""On a GPU the step's work is queued; whatever asks for a number waits until all of it is done."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from mrn_components import FFA, MRN, RES, SFA, DPTHead, MRNLoss, MSupMoCoHandler, SliceEncoder
from mrn_components.training.handlers.summary import EpochSummaryHandler

ROIS = {"nm": SimpleNamespace(num_classes=2), "qsm1": SimpleNamespace(num_classes=5)}
SHAPES = {"nm": [(3, 28, 56), (2, 25, 56)], "qsm1": [(4, 56, 42), (1, 56, 56)]}


class Transfers(TorchDispatchMode):
    """Notes what is copied from the GPU, which waits for it."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sources = {a.device.type for a in args if isinstance(a, torch.Tensor)}
        if isinstance(result, torch.Tensor) and "cuda" in sources and result.device.type == "cpu":
            self.found.append(str(func))
        return result


def without_data(module, device):
    """Give a module parameters and buffers without data, on a device that need not be there."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(torch.empty_like(parameter, device=device))
        for name, buffer in part._buffers.items():
            part._buffers[name] = torch.empty_like(buffer, device=device)


@pytest.mark.parametrize(
    ("device", "options"), [("cuda", {"exclude_own": True, "denominator": "supcon"}), ("cpu", {})]
)
def test_a_step_up_to_its_gradients_waits_for_nothing(device, options, monkeypatch):
    """On tensors without data every question for data is an error.

    Without a GPU there is no backward pass on a fake one; that of the fake CPU is the same.
    """
    encoder = SliceEncoder(depth=2, embed_dim=32, num_heads=2)
    parts = {"ffa": FFA(num_layers=1), "sfa": SFA(num_layers=1), "dpt": DPTHead()}
    network = MRN(rois=ROIS, res=RES(encoder=encoder, **parts), precision="bf16")
    loss, contrast = MRNLoss(), MSupMoCoHandler(network=network, min_fill=3, **options)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device(device), Transfers() as transfers:
        for module in (network, contrast.teacher, contrast.projector, contrast.bank):
            without_data(module, device)
        if device == "cpu":  # where the bank looks at the labels, which then costs nothing
            monkeypatch.setattr(contrast.bank, "enqueue", contrast.bank._write)
        summary = EpochSummaryHandler(loss=loss)
        summary.start_epoch(None)
        images = {roi: [torch.rand(1, *s) for s in shapes] for roi, shapes in SHAPES.items()}
        masks = {
            roi: [torch.zeros(s, dtype=torch.int64) for s in shapes]
            for roi, shapes in SHAPES.items()
        }
        target = {"label": torch.tensor([0, 1]), "masks": masks}
        transfers.found.clear()  # of the start
        pred = network(images)
        output = {"image": images, "label": target, "pred": pred, "loss": loss(pred, target)}
        engine = SimpleNamespace(state=SimpleNamespace(output=output, epoch=1))
        contrast.add_loss(engine)
        if device == "cpu":
            output["loss"].backward()
        contrast.update_teacher()
        summary.add_terms(engine)
    assert output["loss"].device.type == device
    if device == "cpu":
        assert all(p.grad is not None for p in network.res.encoder.vit.blocks.parameters())
    assert set(summary.averages) >= {"loss", "contrastive", "segmentation"}
    assert not transfers.found
