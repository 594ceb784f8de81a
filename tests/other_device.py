"""A device that this machine lacks, played by the CPU: tensors of two devices do not mix, and numbers are real."""

from contextlib import ExitStack, contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")  # the only one, beside the CPU, of which torch has tensors everywhere
MOVES = ("aten._to_copy.default", "aten.copy_.default", "aten._foreach_copy_.default")
TAKES = ("aten.index.Tensor", "aten.index_put_.default", "aten._index_put_impl_.default")  # indices of the CPU, too


class Far(torch.Tensor):
    """Values on the CPU that say they are elsewhere."""

    @staticmethod
    def __new__(cls, values):
        sizes = {"strides": values.stride(), "storage_offset": values.storage_offset()}
        return torch.Tensor._make_wrapper_subclass(cls, values.shape, dtype=values.dtype, device=DEVICE, **sizes)

    def __init__(self, values):
        self.values_here = values

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} of a tensor elsewhere, outside of other_device()")


class _Operations(TorchDispatchMode):
    """Every operation on the values; its result is where its arguments are."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        far = [tensor for tensor in tensors if isinstance(tensor, Far)]
        near = [tensor for tensor in tensors if not isinstance(tensor, Far)]
        name, is_far = str(func), bool(far)
        if kwargs.get("device") is not None:
            is_far = torch.device(kwargs["device"]) == DEVICE
            kwargs["device"] = torch.device("cpu")
        elif name in ("aten.copy_.default", *TAKES):
            is_far = isinstance(args[0], Far)
        allowed = name in MOVES or (name in TAKES and is_far)
        # numbers mix with everything; an optimiser's counts of steps, in lists, are on the CPU
        if far and not allowed and any(tensor.ndim > 0 for tensor in near):
            raise RuntimeError(f"{name}: expected all tensors to be on the same device")
        args, kwargs = tree_map(lambda leaf: leaf.values_here if isinstance(leaf, Far) else leaf, (args, kwargs))
        result = func(*args, **kwargs)
        if not is_far:
            return result
        own = {id(tensor.values_here): tensor for tensor in far}  # changed in place, and given back
        return tree_map(lambda x: own.get(id(x), Far(x)) if isinstance(x, torch.Tensor) else x, result)


class _Constants(TorchFunctionMode):
    """torch.tensor makes its result in one piece, which is no operation; here it is made and then moved."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if func is torch.tensor and device is not None and torch.device(device) == DEVICE:
            return func(*args, **{**kwargs, "device": "cpu"}).to(DEVICE)
        return func(*args, **kwargs)


@contextmanager
def other_device():
    """Until its end DEVICE is a device with values."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # parameters of another class are new ones
    try:
        with ExitStack() as modes:
            modes.enter_context(_Operations())
            modes.enter_context(_Constants())
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
