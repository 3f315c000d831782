"""SERes10: the paper's 3D CNN baseline, an SE-ResNet of ten layers (section 4.2)."""

from collections.abc import Mapping, Sequence
from typing import Any, List  # noqa: UP035  TorchScript knows List

from monai.networks.blocks import ChannelSELayer
from monai.networks.nets import ResNet
from monai.networks.nets.resnet import ResNetBlock
from torch import Tensor, autocast, cat, nn

_KERNEL = 7  # of the first convolution, as in MONAI's ResNet
_REDUCTION = 16  # of the squeeze, as in the squeeze-and-excitation networks,
_LEAST_SQUEEZED = 4  # but to no fewer channels: one alone may give no gradient at all
_GROUPS = 8  # of the channels that are normalised together


class SERes10(nn.Module):
    """3D SE-ResNet of ten layers, with a stem for each ROI and a trunk they share (section 4.2).

    MONAI's ResNet of one basic block a stage, with MONAI's squeeze and excitation before the
    residual sum. Ten layers: the stem's convolution, two in each of the four blocks, and the
    classifier behind.

    Every crop runs alone, as it is. Groups of its channels are normalised by their own statistics
    (Wu and He 2018), in training as in evaluation, so that a batch gives the numbers of its
    subjects alone and several processes those of one. Statistics of a batch would be those of four
    subjects, and running ones those of a mixture of ROIs. CPUs compute in fp32, whatever the
    precision.

    Args:
        widths: channels of the four stages, multiples of 8. Paper: the last has 512 (section 4.2).
        stem_stride: of the first convolution, along slices, rows and columns. The paper is silent;
            crops have some ten slices, which the trunk shrinks enough.

    Attributes:
        channels: features C of an ROI, the last of ``widths``.

    Raises:
        ValueError: for other than four widths, multiples of 8, or three strides.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (64, 128, 256, 512),
        stem_stride: Sequence[int] = (1, 2, 2),
    ) -> None:
        super().__init__()
        if len(widths) != 4 or any(width % _GROUPS for width in widths) or len(stem_stride) != 3:
            raise ValueError(
                f"SERes10 has four widths, multiples of {_GROUPS}, and three numbers of "
                "stem_stride (slices, rows, columns), "
                f"got {list(widths)} and {list(stem_stride)}."
            )
        self.widths = tuple(widths)
        self.channels = self.widths[-1]
        slices, rows, columns = stem_stride
        self.stem_stride = (slices, rows, columns)
        self.trunk = _trunk(self.widths)
        self.stems = nn.ModuleDict()
        self.register_load_state_dict_pre_hook(_refuse_batch_statistics)

    def build(self, num_classes: Mapping[str, int]) -> None:
        """Create the stems; MRN calls this once.

        Args:
            num_classes: classes K of each ROI's mask, background included.
        """
        width = self.widths[0]
        for roi, classes in num_classes.items():
            conv = nn.Conv3d(
                1 + classes, width, _KERNEL, self.stem_stride, padding=_KERNEL // 2, bias=False
            )
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            self.stems[roi] = nn.Sequential(conv, nn.GroupNorm(_GROUPS, width))

    def forward(self, volumes: Sequence[Tensor], rois: Sequence[str]) -> tuple[Tensor, None]:
        """Map volumes to features.

        Args:
            volumes: V volumes (1 + K, D, H, W): image and one-hot mask, K as its ROI has classes.
            rois: ROI of each volume.

        Returns:
            Features (V, C), and None: it segments nothing.
        """
        # In fp32 on CPUs: torch 2.15 corrupts memory in the bf16 gradient of a 7 x 7 x 7
        # convolution there.
        with autocast("cpu", enabled=False):
            crops = zip(volumes, rois, strict=True)
            return cat([self.trunk(self.stems[roi](crop[None])) for crop, roi in crops]), None

    def on_tensors(self, rois: Sequence[str]) -> nn.Module:
        """Itself with one tensor (B, 1 + K, D, H, W) an ROI, for ``TensorNetwork``."""
        return _TensorSERes10(nn.ModuleList(self.stems[roi] for roi in rois), self.trunk)


class _TensorSERes10(nn.Module):
    """Stems and trunk on one tensor an ROI."""

    def __init__(self, stems: nn.ModuleList, trunk: nn.Module) -> None:
        super().__init__()
        self.stems, self.trunk = stems, trunk

    def forward(self, volumes: List[Tensor]) -> List[Tensor]:  # noqa: UP006
        features: List[Tensor] = []  # noqa: UP006
        for i, stem in enumerate(self.stems):
            features.append(self.trunk(stem(volumes[i])))
        return features


def _trunk(widths: Sequence[int]) -> Any:
    """Build the ResNet behind the stems, which take the places of ``conv1`` and ``bn1``."""
    resnet: nn.Module = ResNet(
        _SEBlock, [1, 1, 1, 1], list(widths), feed_forward=False, bias_downsample=False
    )
    resnet.conv1 = resnet.bn1 = nn.Identity()
    return resnet


class _SEBlock(ResNetBlock):
    """MONAI's basic block with squeeze and excitation before the residual sum."""

    def __init__(
        self, in_planes: int, planes: int, downsample: nn.Sequential | None = None, **args: Any
    ) -> None:
        if downsample is not None:  # MONAI's ResNet passes no other norm on to its layers
            downsample[1] = nn.GroupNorm(_GROUPS, planes)
        args["norm"] = ("group", {"num_groups": _GROUPS})
        super().__init__(in_planes, planes, downsample=downsample, **args)
        reduction = min(_REDUCTION, planes // _LEAST_SQUEEZED)
        self.bn2 = nn.Sequential(self.bn2, ChannelSELayer(3, planes, r=reduction))


def _refuse_batch_statistics(
    _module: nn.Module, state: Mapping[str, Any], prefix: str, *_others: Any
) -> None:
    """Name the cause, where the weights are of the network that had batch normalisation."""
    if f"{prefix}trunk.layer1.0.bn1.running_mean" in state:
        raise ValueError(
            "these weights are of a SERes10 before 2026-11-26, which normalised batches; train it "
            "again, or use the version of mrn-components that they were trained with."
        )
