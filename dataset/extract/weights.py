"""Published weights into a network: from a local file, or by the library's own download."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import nn

from dataset.types import DataError


def load_weights(network: nn.Module, path: Path | None, url: str) -> nn.Module:
    """`path`: a state dict (never unpickled beyond tensors); None downloads `url` once into torch's cache.

    Every entry of the network must be there with its shape; what the file holds beyond that is ignored.
    """
    try:
        if path is None:
            state = torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True, progress=True)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"weights file {path} does not exist; download {url} or leave the option out") from error
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        source = path or url
        raise DataError(f"weights {source} cannot be loaded ({str(error).splitlines()[0][:200]}); download {url} and give "
                        "its path") from error
    wanted = network.state_dict()
    state = state if isinstance(state, dict) else {}
    bad = [k for k, v in wanted.items() if getattr(state.get(k), "shape", None) != v.shape]
    if bad:
        raise DataError(f"weights file {path or url} does not fit: {len(bad)} of {len(wanted)} entries are missing or of "
                        f"another shape, first '{bad[0]}' (expected {list(wanted[bad[0]].shape)}); expected those of {url}")
    network.load_state_dict({k: state[k] for k in wanted})
    return network
