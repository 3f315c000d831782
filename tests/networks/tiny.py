"""Sizes of the network that the tests build."""

from types import SimpleNamespace

# LayerScale 1.0, so that no branch hides behind timm's initial 1e-5.
TINY = {"depth": 2, "embed_dim": 32, "num_heads": 2, "init_values": 1.0, "drop_path_rate": 0.0}
ROIS = {"nm": SimpleNamespace(num_classes=2), "qsm1": SimpleNamespace(num_classes=5)}
