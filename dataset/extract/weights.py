"""Weights into a network: published ones, from a local file or by the library's own download, or
random ones for a dry run.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dataset.files import refuse_special
from dataset.types import DataError

RANDOM = "random"
Source = Path | Literal["random"] | None


def load_weights(network: nn.Module, path: Source, url: str) -> nn.Module:
    """`path`: a state dict (only tensors are unpickled); None: `url`, downloaded once; RANDOM: the
    same random weights every time.

    Every weight of the network must be there with its shape, finite; what the file holds beyond
    that is ignored.
    """
    if path == RANDOM:
        return with_random_weights(network)
    state = read_state(path, url)
    state = state if isinstance(state, dict) else {}
    wanted = {k: v for k, v in network.state_dict().items() if v.is_floating_point()}       # counters are for training
    bad = [k for k, v in wanted.items() if not is_dense(state.get(k), v.shape)]
    if bad:
        raise DataError(f"weights file {path or url} does not fit: {len(bad)} of {len(wanted)} entries are missing, of "
                        f"another shape or no floats, first '{bad[0]}' (expected {list(wanted[bad[0]].shape)}); "
                        f"expected those of {url}")
    bad = [k for k in wanted if not bool(state[k].float().isfinite().all())]
    if bad:
        raise DataError(f"weights file {path or url} is damaged: '{bad[0]}' holds NaN or infinity; download {url}")
    network.load_state_dict({k: state[k] for k in wanted}, strict=False)
    return network


def with_random_weights(network: nn.Module) -> nn.Module:
    """He et al.'s start, with which the output still depends on the input after many layers."""
    generator = torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


def read_state(path: Path | None, url: str) -> Any:
    """What the file holds; DataError where it cannot be read."""
    if path is not None:
        refuse_special(path)
    try:
        with warnings.catch_warnings(action="ignore"):       # on how the file was written, which the user cannot change
            if path is None:
                return torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True, progress=True)
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"weights file {path} does not exist; download {url} or leave the option out") from error
    except OSError as error:
        raise DataError(f"weights {path or url} cannot be read ({error}); download {url} and give its path") from error
    except Exception as error:      # of a damaged file or one of another kind torch and pickle raise nearly anything
        raise DataError(f"weights {path or url} cannot be loaded, they are damaged or no state dict of PyTorch "
                        f"({type(error).__name__}); download {url} and give its path") from error


def is_dense(value: object, shape: torch.Size) -> bool:
    """Whether `value` is an ordinary tensor of floats in memory of that shape."""
    return (isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
            and value.is_floating_point() and value.shape == shape)
