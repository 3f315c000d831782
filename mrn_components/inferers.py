"""How a network is asked: once, or several times with the answers averaged (section 4.1.2)."""

from collections.abc import Callable
from typing import Any

from monai.inferers import Inferer

from mrn_components.networks.ensemble import merge_logits


class TTAInferer(Inferer):
    """Test-time augmentation: also diagnose the mirrored crops, and average the probabilities.

    Args:
        mirror: also flip left and right; False asks once, as MONAI's ``SimpleInferer`` does.
            Paper: on in the final submission only; its views are not given.
    """

    def __init__(self, *, mirror: bool = False) -> None:
        super().__init__()
        self.mirror = mirror

    def __call__(
        self,
        inputs: Any,  # MONAI says Tensor
        network: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Diagnose a batch of B subjects.

        Args:
            inputs: B crops (..., D, H, W) of each ROI; columns W run from right to left.
            network: maps them to "logits" (B, 2), an ensemble also to "fold_logits" (B, F, 2).
            args: further arguments of the network.
            kwargs: further arguments of the network.

        Returns:
            The network's output. With ``mirror``, logits are those of the mean probabilities of
            both views, and "view_logits" (B, 2, 2) holds the views'.
        """
        plain = network(inputs, *args, **kwargs)
        if not self.mirror:
            return plain
        flipped = {roi: [crop.flip(-1) for crop in crops] for roi, crops in inputs.items()}
        mirrored = network(flipped, *args, **kwargs)
        output = {**plain, **merge_logits([plain["logits"], mirrored["logits"]], "view_logits")}
        if "fold_logits" in plain:
            folds = merge_logits([plain["fold_logits"], mirrored["fold_logits"]], "views")
            output["fold_logits"] = folds["logits"]
        return output
