"""VolumeViT: a 3D vision transformer as encoder, the M3D-CLIP baseline of Table 9."""

from collections.abc import Mapping, Sequence
from typing import Any, List  # noqa: UP035  TorchScript knows List

from monai.networks.nets import ViT
from torch import Tensor, cat, nn
from torch.nn.functional import interpolate

from mrn_components.networks.weights import read_weights

_PREFIX = "vision_encoder."  # of these weights in the whole M3D-CLIP
_WHAT_TO_TYPE = (
    "Pass M3D-CLIP's weights, or those of its vision encoder alone, with --encoder_weights PATH, "
    "or train from random weights with --encoder_weights none."
)


class VolumeViT(nn.Module):
    """MONAI's 3D vision transformer, of the size of M3D-CLIP's vision encoder (Table 9).

    Every crop's image, without the mask's channels, is resized trilinearly to ``img_size``; the
    feature of an ROI is its class token. Intensities in [0, 1] are what M3D-CLIP was trained on.

    Args:
        weights: "none" starts from random weights; a path reads the checkpoint of M3D-CLIP, or of
            its vision encoder alone.
        img_size: slices, rows and columns that a crop is resized to.
        patch_size: slices, rows and columns of a patch.
        hidden_size: token width.
        mlp_dim: hidden width of a block's MLP.
        num_layers: blocks.
        num_heads: attention heads of a block.

    Attributes:
        channels: features C of an ROI, ``hidden_size``.

    Raises:
        FileNotFoundError: if ``weights`` names no file.
        RuntimeError: if the weights do not fit the network.
    """

    vit: Any  # MONAI's class says nothing of its parts

    def __init__(
        self,
        *,
        weights: str | None = "none",
        img_size: Sequence[int] = (32, 256, 256),
        patch_size: Sequence[int] = (4, 16, 16),
        hidden_size: int = 768,
        mlp_dim: int = 3072,
        num_layers: int = 12,
        num_heads: int = 12,
    ) -> None:
        super().__init__()
        self.channels = hidden_size
        self.img_size = tuple(img_size)
        self.vit = ViT(
            in_channels=1,
            img_size=self.img_size,
            patch_size=tuple(patch_size),
            hidden_size=hidden_size,
            mlp_dim=mlp_dim,
            num_layers=num_layers,
            num_heads=num_heads,
            proj_type="perceptron",
            classification=True,
        )
        self.vit.classification_head = nn.Identity()  # MRN has the head
        for block in self.vit.blocks:
            block.norm_cross_attn = nn.Identity()  # never used: it would get no gradient
            block.attn.use_flash_attention = True  # ViT has no such argument; 2049 tokens need it
        if weights not in (None, "none"):  # a word too, because MONAI ignores None as an override
            self._load(str(weights))

    def build(self, num_classes: Mapping[str, int]) -> None:
        """Do nothing: the encoder is the same for all ROIs."""

    def forward(self, volumes: Sequence[Tensor], rois: Sequence[str]) -> tuple[Tensor, None]:  # noqa: ARG002
        """Map V volumes (1 or more channels, D, H, W), the image first, to features (V, C).

        They are the same for all ROIs; None stands for the masks, which it does not segment.
        """
        images = [volume[None, :1].float() for volume in volumes]
        resized = [interpolate(image, self.img_size, mode="trilinear") for image in images]
        return self.vit(cat(resized))[0], None

    def on_tensors(self, rois: Sequence[str]) -> nn.Module:  # noqa: ARG002  the Protocol's
        """Itself with one tensor (B, 1 or more channels, D, H, W) an ROI, for ``TensorNetwork``."""
        return _TensorVolumeViT(self.vit, self.img_size)

    def _load(self, path: str) -> None:
        state = read_weights(path, _WHAT_TO_TYPE)
        prefix = _PREFIX if any(name.startswith(_PREFIX) for name in state) else ""
        # Some versions of MONAI saved a cross attention that they never used.
        state = {
            name.removeprefix(prefix): value
            for name, value in state.items()
            if name.startswith(prefix) and "cross_attn" not in name
        }
        try:
            self.vit.load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split()[:24])  # one of perhaps hundreds of tensors
            raise RuntimeError(
                f"encoder weights {path!r} do not fit VolumeViT ({reason} ...). {_WHAT_TO_TYPE}"
            ) from error


class _TensorVolumeViT(nn.Module):
    def __init__(self, vit: nn.Module, img_size: Sequence[int]) -> None:
        super().__init__()
        self.vit, self.img_size = vit, list(img_size)

    def forward(self, volumes: List[Tensor]) -> List[Tensor]:  # noqa: UP006
        features: List[Tensor] = []  # noqa: UP006
        for volume in volumes:
            resized = interpolate(volume[:, :1], self.img_size, mode="trilinear")
            features.append(self.vit(resized)[0])
        return features
