"""Reading weight files, which only ever hold tensors."""

from pathlib import Path

from timm.models import load_state_dict
from torch import Tensor

from mrn_components.system.files import check_digest


def read_weights(path: str, advice: str) -> dict[str, Tensor]:
    """Read a .pth, .bin or .safetensors file; messages end with an ``advice`` what to type.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: if it is not what was written.
        RuntimeError: if it is no checkpoint of tensors.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"encoder weights {path!r}: no such file. {advice}")
    check_digest(file)
    try:
        return load_state_dict(str(file), weights_only=True)
    except Exception as error:
        raise RuntimeError(
            f"encoder weights {path!r} are no checkpoint of tensors "
            f"({type(error).__name__}). {advice}"
        ) from error
