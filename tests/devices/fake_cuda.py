"""A world in which CUDA seems to be there: it computes nothing, but waits and launches are seen.

`FakeTensorMode` propagates devices, shapes and types of "cuda" tensors on a machine without CUDA,
and raises where tensors of two devices meet. `Watch`, a dispatch mode above it, leaves the CPU's
tensors real, refuses generators of the wrong device, counts what launches a kernel, and notes what
makes the host wait for the device (`.item()`, boolean masks, `nonzero`, copies that are not
`non_blocking`), which it answers with a dummy.

Before a backward pass, a torch built with CUDA asks the driver whether a device has a context
(`GraphTask::stash_current_streams`), and fails where there is no driver. So Python has to be
started in `environment`, which preloads a library whose three lines answer in the driver's place.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

import advprop

DEVICE = torch.device("cuda", 0)
_SOURCE = str(Path(advprop.__file__).parent)
_SHIM_NAME = "libcuda.so.1"
_SHIM = """
signed char fake_cuda_devices = 0;
signed char _ZN3c104cuda12device_countEv(void) { return fake_cuda_devices; } /* device_count() */
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    return *flags = *active = 0;
}
"""
_NO_KERNEL = {"_unsafe_view", "_reshape_alias", "unsafe_split", "set_", "lift_fresh"}


class NoCompilerError(RuntimeError):
    """The library that backward passes need here cannot be made."""


def environment(folder: Path) -> dict[str, str]:
    """Variables for a new Python, with the library that it preloads, made in `folder`.

    A torch built without CUDA needs none. Raises NoCompilerError where there is no C compiler.
    """
    if torch.version.cuda is None:
        return {**os.environ}
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NoCompilerError("no C compiler (cc, gcc), which a backward pass without CUDA needs")
    source, library = folder / "shim.c", folder / _SHIM_NAME
    source.write_text(_SHIM)
    options = ["-shared", "-fPIC", f"-Wl,-soname,{_SHIM_NAME}", "-o", str(library), str(source)]
    subprocess.run([compiler, *options], check=True)
    return {**os.environ, "LD_PRELOAD": str(library)}


def is_prepared() -> bool:
    """Whether this Python was started with the variables of `environment`."""
    return torch.version.cuda is None or hasattr(ctypes.CDLL(None), "fake_cuda_devices")


@dataclass
class Findings:
    """What was asked of the device: waits by (kind, function), and launches of kernels.

    `outside` are, by line, the launches outside of the forward and backward passes of a model that
    is watched, `sent` how many numbers of each type the device was sent. `number` is what numbers
    read as; booleans are true.
    """

    waits: Counter[tuple[str, str]] = field(default_factory=Counter)
    outside: Counter[str] = field(default_factory=Counter)
    sent: Counter[torch.dtype] = field(default_factory=Counter)
    launches: int = 0
    number: int = 1
    passes: int = 0

    def clear(self) -> None:
        """Begin to count anew."""
        self.waits.clear()
        self.outside.clear()
        self.sent.clear()
        self.launches = 0

    def watch(self, model: nn.Module) -> None:
        """Take calls of `model` for forward passes."""

        def enter(*_: object) -> None:
            self.passes += 1

        def leave(*_: object) -> None:
            self.passes -= 1

        model.register_forward_pre_hook(enter)
        model.register_forward_hook(leave, always_call=True)


class Devices:
    """How many devices torch is told of: none, but while its autograd engine looks at them."""

    def __init__(self) -> None:
        shim = torch.version.cuda and ctypes.CDLL(_SHIM_NAME)
        self._told = ctypes.c_int8.in_dll(shim, "fake_cuda_devices") if shim else ctypes.c_int8()

    def told(self, count: int, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` where torch is told of `count` devices."""

        def call(*args: Any, **kwargs: Any) -> Any:
            before, self._told.value = self._told.value, count
            try:
                return function(*args, **kwargs)
            finally:
                self._told.value = before

        return call


class Watch(TorchDispatchMode):
    """Notes in `found` what waits for the device and what launches a kernel."""

    def __init__(self, found: Findings, devices: Devices) -> None:
        super().__init__()
        self.found = found
        self._answer_alone = devices.told(0, self._answer)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._answer_alone(func, args, kwargs or {})

    def _answer(self, func: Any, args: Any, kwargs: Any) -> Any:
        target = torch.device(kwargs.get("device") or "cpu").type
        if target != "cuda" and not any(map(_is_cuda, _tensors(args, kwargs))):
            _check_generator("cpu", args, kwargs)
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if func.namespace == "prim":  # asks for the device
            return func(*args, **kwargs)
        _check_generator("cuda", args, kwargs)
        answer = _ANSWERS.get(func.overloadpacket.__name__, Watch._launch)
        return answer(self, func, args, kwargs)

    def _launch(self, func: Any, args: Any, kwargs: Any) -> Any:
        name = func.overloadpacket.__name__
        if not (func.is_view or name in _NO_KERNEL or "empty" in name):
            self.found.launches += 1
            if not self.found.passes:
                self.found.outside[_asking_line()] += 1
        return func(*args, **kwargs)

    def _wait(self, kind: str) -> None:
        self.found.waits[kind, _asking_line().rpartition(":")[0]] += 1

    def _read(self, func: Any, args: Any, kwargs: Any) -> float:
        self._wait("item")
        dtype = args[0].dtype
        number = self.found.number
        return float(number) if dtype.is_floating_point else dtype == torch.bool or number

    def _nonzero(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        self._wait("nonzero")
        return args[0].new_empty(args[0].numel(), args[0].ndim, dtype=torch.int64)

    def _copy(self, func: Any, args: Any, kwargs: Any) -> Any:
        is_new = func.overloadpacket.__name__ == "_to_copy"
        source = args[0 if is_new else 1]
        target = torch.device((kwargs.get("device") or source.device) if is_new else args[0].device)
        non_blocking = kwargs.get("non_blocking", len(args) > 2 and args[2])
        if source.device.type != target.type and not non_blocking:
            self._wait(f"copy to {target.type}")
        if source.device.type == "cpu" and target.type == "cuda":
            self.found.sent[source.dtype] += source.numel()
        if target.type == "cuda":
            return self._launch(func, args, kwargs)
        with unset_fake_temporarily():  # what arrives is ones
            dtype = kwargs.get("dtype") or source.dtype
            return torch.ones(source.shape, dtype=dtype) if is_new else args[0].fill_(1)

    def _index(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A boolean mask is taken for as many indices as it has values."""
        indices: list[Tensor | None] = []
        for index in args[1]:
            if index is not None and index.dtype in (torch.bool, torch.uint8):
                self._wait("boolean mask")
                indices += [index.new_zeros(index.numel(), dtype=torch.int64)] * index.ndim
            else:
                if index is not None and index.ndim and not _is_cuda(index):
                    self._wait("index on the CPU")
                indices.append(index)
        return self._launch(func, (args[0], indices, *args[2:]), kwargs)


_ANSWERS: dict[str, Callable[[Watch, Any, Any, Any], Any]] = {
    "_local_scalar_dense": Watch._read,
    "nonzero": Watch._nonzero,
    **dict.fromkeys(("_to_copy", "copy_"), Watch._copy),
    **dict.fromkeys(("index", "index_put", "index_put_", "_index_put_impl_"), Watch._index),
}


def _asking_line() -> str:
    """The innermost line of advprop on the stack, else of who is neither torch nor this file."""
    other, frame = "torch:backward:0", sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(_SOURCE):
            return f"{code.co_filename[len(_SOURCE) + 1 :]}:{code.co_name}:{frame.f_lineno}"
        is_own = code.co_filename == __file__ or "/torch/" in code.co_filename
        if other.startswith("torch:") and not is_own:
            other = f"{Path(code.co_filename).name}:{code.co_name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return other


def _tensors(*values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(*value)
        elif isinstance(value, dict):
            yield from _tensors(*value.values())


def _is_cuda(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda"


_Generator = torch.Generator


class FakeGenerator(torch.Generator):
    """One of the CPU that says it is of another device."""

    devices: ClassVar[dict[int, tuple[str, torch.Generator]]] = {}  # operators see other wrappers

    def __new__(cls, device: Any = "cpu") -> FakeGenerator:
        self = super().__new__(cls, "cpu")
        cls.devices[self._cdata] = torch.device(device).type, self
        return self


def _check_generator(wanted: str, args: Any, kwargs: Any) -> None:
    for value in (*args, *kwargs.values()):
        if isinstance(value, _Generator):
            found, _ = FakeGenerator.devices.get(value._cdata, ("cpu", None))
            if found != wanted:
                raise RuntimeError(f"a generator on {found} for a tensor on {wanted}")


@contextmanager
def fake_cuda() -> Iterator[Findings]:
    """Inside, "cuda" is there, and the findings tell what is asked of it."""
    found, devices = Findings(), Devices()
    torch._C._ensureCUDADeviceGuardSet()
    # as many devices as the guard says that stands in for CUDA's
    run_engine = devices.told(127, torch.autograd._engine_run_backward)

    def engine(*args: Any, **kwargs: Any) -> Any:
        found.passes += 1
        try:
            return run_engine(*args, **kwargs)
        finally:
            found.passes -= 1

    # it chooses a kernel by the device's kind, also where a backward pass runs layers again
    attention = devices.told(0, nn.functional.scaled_dot_product_attention)
    foreach, optim = torch.utils._foreach_utils, sys.modules["torch.optim.optimizer"]
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")  # deepcopy
        stack.callback(FakeGenerator.devices.clear)
        for owner, name, value in (
            (torch, "Generator", FakeGenerator),
            (torch, "Event", lambda device: mock.MagicMock()),
            (torch.Tensor, "pin_memory", lambda tensor: tensor),
            (FakeTensor, "__format__", lambda tensor, form: format(tensor.item(), form)),
            (FakeTensor, "tolist", lambda tensor: tensor.cpu().tolist()),
            (torch.autograd, "_engine_run_backward", engine),
            (nn.functional, "scaled_dot_product_attention", attention),
            (torch.cuda, "get_rng_state", lambda *device: None),
            (torch.cuda, "set_rng_state", lambda *state: None),
            (torch.cuda, "is_bf16_supported", lambda *including: True),
            # timm's optimisers ask for the size of a cache
            (torch.cuda, "get_device_properties", lambda *of: SimpleNamespace(L2_cache_size=2**25)),
            (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
            # tensors that foreach kernels take, by type
            (foreach, "_foreach_supported_types", [*foreach._foreach_supported_types, FakeTensor]),
            (optim, "_foreach_supported_types", [*optim._foreach_supported_types, FakeTensor]),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(Watch(found, devices))
        yield found
