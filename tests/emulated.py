"""A device that does not exist: its tensors compute on the CPU, report another device and refuse
tensors of the CPU.

What code makes on the wrong device fails here as it would on a GPU, on any machine.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

DEVICE = torch.device("meta")         # the name alone, which asks for no hardware; torch's meta tensors are not used
aten = torch.ops.aten
COPIES = {aten.copy_.default, aten._to_copy.default}           # the two ways from one device to another


class WrongDevice(RuntimeError):
    """An operation mixes tensors of the CPU and of the emulated device."""


class DeviceTensor(torch.Tensor):
    """The outside of a tensor `inner` of the CPU: the same sizes and strides, another device."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> DeviceTensor:
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=DEVICE)

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    def tolist(self) -> list:
        return self.inner.tolist()

    def __getitem__(self, index):
        return super().__getitem__(torch.tensor(index, device=DEVICE) if isinstance(index, list) else index)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


class Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


def compute(func, args, kwargs):
    """`func` on the CPU; results go to the device of the arguments, or to the one asked for."""
    tensors = [value for value in tree_iter((args, kwargs)) if isinstance(value, torch.Tensor)]
    on_device = any(isinstance(value, DeviceTensor) for value in tensors)
    strangers = [value for value in tensors if not isinstance(value, DeviceTensor) and value.dim() > 0]
    if on_device and strangers and func not in COPIES:
        raise WrongDevice(f"{func}: a tensor {tuple(strangers[0].shape)} of the CPU meets one of the device")
    assert not any(value.is_meta for value in strangers), f"{func} meets a tensor that this emulation does not cover"
    asked = kwargs.get("device")
    if asked is not None:
        on_device = torch.device(asked) == DEVICE
        kwargs = {**kwargs, "device": torch.device("cpu")}
    outside = {id(value.inner): value for value in tensors if isinstance(value, DeviceTensor)}
    args, kwargs = tree_map(lambda value: value.inner if isinstance(value, DeviceTensor) else value, (args, kwargs))

    def wrap(value):
        if not isinstance(value, torch.Tensor) or not on_device:
            return value
        return outside[id(value)] if id(value) in outside else DeviceTensor(value)

    return tree_map(wrap, func(*args, **kwargs))


class HostGenerator(torch.Generator):
    """A generator of the device draws on the CPU, too."""

    def __new__(cls, device: torch.device | str = "cpu") -> HostGenerator:
        return super().__new__(cls)


@contextmanager
def emulation():
    """Within it tensors can be made on `DEVICE`; there is no autocast on it."""
    autocast, enabled, tensor = torch.autocast, torch.is_autocast_enabled, torch.tensor

    def on_host(device: str) -> str:
        return "cpu" if device == DEVICE.type else device

    patched = {
        "Generator": HostGenerator,
        "autocast": lambda device, **options: autocast(on_host(device), **options),
        "is_autocast_enabled": lambda *device: enabled(*map(on_host, device)),
        "tensor": lambda data, device=None, **options: tensor(data, **options).to(device or "cpu"),
    }
    with ExitStack() as stack:
        for name, value in patched.items():
            stack.enter_context(mock.patch(f"torch.{name}", value))
        stack.enter_context(Dispatch())
        yield
