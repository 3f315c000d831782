"""The parts and words that may stand in a foreign config without being code.

None of the parts reads, writes or runs what its arguments name. A name is added only after reading
the part for files, imports and ``eval``. Besides these, a bundle may use the parts of our own
configs, with the arguments that they have there.
"""

import re
import reprlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from monai.bundle import ReferenceResolver

from mrn_components.system.plain_data import items

# A file, or a download: a bundle's weights are where its ckpt_path says.
ENCODER_WEIGHTS = "encoder_weights"
# Arguments that name files: a bundle may only have them as the installed config has them.
_FILE_ARGUMENTS = frozenset(["plan", "weights"])

_OURS = (
    *("Image", "ROI", "Classes", "Score"),
    *("MRN", "RES", "FFA", "SFA", "AttentionPool", "NucleusPool", "DPTHead", "LoRA"),
    *("SERes10", "VolumeViT"),
    *("CheckVolumesd", "ScaleImagesd", "ROICropd", "MergeSidesd", "ROIMaskChannelsd"),
)
_MONAI = (
    *("Compose", "EnsureChannelFirstd", "EnsureTyped", "NormalizeIntensityd"),
    *("ScaleIntensityd", "ScaleIntensityRanged", "ScaleIntensityRangePercentilesd"),
)
# Of timm's model, which takes others that download and unpickle.
_SLICE_ENCODER = {
    *("name", "weights", "drop_path_rate", "keep_registers", "attention", "frozen", "lora"),
    *("depth", "embed_dim", "num_heads"),
    *("mlp_ratio", "init_values", "weight_init", "img_size", "patch_size", "reg_tokens"),
    *("qkv_bias", "qk_norm", "drop_rate", "attn_drop_rate", "proj_drop_rate", "pos_drop_rate"),
}
# {_target_: the arguments that it may have; None for all of its own}
_PARTS: dict[str, set[str] | None] = {
    **{f"mrn_components.{name}": None for name in _OURS},
    **{f"{module}{name}": None for name in _MONAI for module in ("", "monai.transforms.")},
    "mrn_components.SliceEncoder": _SLICE_ENCODER,
}

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80

_KEY = re.compile(r"\+?\w[\w:#.-]*")  # MONAI writes keys into expressions
_REFERENCE = re.compile(r"@(\w+)(?:(?:#|::)\w+)*")
_WORD = re.compile(r"(?![./-])[\w .,+*?\[\]()^/°-]*")  # a path that leads elsewhere is none


def is_literal(node: Any) -> bool:
    """Whether a value is a number, a switch, null or a word, or a list of these."""
    if isinstance(node, list):
        return all(map(is_literal, node))
    if isinstance(node, str):
        return bool(_WORD.fullmatch(node)) and ".." not in node
    return node is None or (isinstance(node, int | float) and abs(node) < 1e300)


def shown(value: Any) -> str:
    """Return a value in one short line, without characters that move a terminal's cursor."""
    return _short.repr(value)


class Vocabulary:
    """What may stand in a config.

    Args:
        ours: configs, or parts of them, whose expressions, parts and arguments are known.
        references: ids that may be referred to; None for any.
        parts: ``_target_`` that may have any arguments.
        paths: whether any text may stand there, and files may be named.
    """

    def __init__(
        self,
        *ours: Any,
        references: Collection[str] | None = None,
        parts: Collection[str] = (),
        paths: bool = False,
    ) -> None:
        self.references = references
        self.paths = paths
        self.texts: set[str] = set()  # expressions and references
        self.switches: set[tuple[str, str]] = set()  # _mode_ and the like, with their values
        self.files = {"none", f"@{ENCODER_WEIGHTS}"}  # what arguments that name files may be
        self.parts: dict[str, set[str] | None] = {}
        for node in ours:
            self._learn(node)
        self.parts |= _PARTS | dict.fromkeys(parts)

    def _learn(self, node: Any) -> None:
        if isinstance(node, str) and node.startswith(("$", "@", "%")):
            self.texts.add(node)
        if isinstance(node, Mapping):
            self.files |= {node[key] for key in _FILE_ARGUMENTS & node.keys()}
            self.switches |= {(_last(k), repr(v)) for k, v in node.items() if _last(k)[:1] == "_"}
            if isinstance(target := node.get("_target_"), str):
                self.parts[target] = (self.parts.get(target) or set()) | set(node)
        for _, value in items(node):
            self._learn(value)

    def strange(self, node: Any, where: str = "") -> Iterator[tuple[str, str]]:
        """Yield what is unknown in a config, or a part of it: its id, and what it is."""
        if isinstance(node, Mapping):
            yield from self._strange_in_mapping(node, where)
        elif isinstance(node, list):
            for number, value in enumerate(node):
                yield from self.strange(value, f"{where}#{number}")
        elif not self._knows_value(node):
            yield where, f"{shown(node)}: no number, no word, and nothing that ours has"

    def _knows_value(self, value: Any) -> bool:
        if not isinstance(value, str):
            return is_literal(value)
        if value.startswith("@"):
            reference = _REFERENCE.fullmatch(value)
            allowed = reference and (self.references is None or reference[1] in self.references)
            return bool(allowed) or value in self.texts
        if value.startswith(("$", "%")):
            return value in self.texts
        return self.paths or is_literal(value)

    def _strange_in_mapping(self, node: Mapping[Any, Any], where: str) -> Iterator[tuple[str, str]]:
        target = node.get("_target_")
        arguments = self.parts.get(target) if isinstance(target, str) else None
        for key, value in node.items():
            inner, name = f"{where}#{key}".lstrip("#"), _last(key)
            on_or_off = name == "_disabled_" and isinstance(value, bool)
            if on_or_off or (name, repr(value)) in self.switches:
                continue
            if name == "_target_":
                if not isinstance(value, str) or value not in self.parts:
                    yield inner, f"{shown(value)}: no part that a bundle may bring"
            elif name.startswith("_") or not _KEY.fullmatch(str(key)):
                yield inner if _KEY.fullmatch(inner) else shown(inner), "no key of ours"
            elif not self._knows_argument(key, value, arguments):
                yield inner, f"{shown(value)}: {target} may not have it in a bundle"
            else:
                yield from self.strange(value, inner)

    def _knows_argument(self, key: Any, value: Any, arguments: Collection[str] | None) -> bool:
        if arguments is not None and key not in arguments:
            return False
        is_file = _last(key) in _FILE_ARGUMENTS and not self.paths
        return not is_file or value is None or (isinstance(value, str) and value in self.files)


def _last(key: Any) -> str:
    """Return the last name of a key, which may be an overlay's: ``+network_def#res#ffa``."""
    return ReferenceResolver.split_id(str(key).lstrip("+"))[-1]
