"""A GPU for a machine without one: tensors that say ``cuda:0``, hold host memory, and refuse what CUDA would refuse.

``install()`` once, before anything else, in a process of its own. From then on ``torch.cuda.is_available()`` is true,
and

- an operation on tensors of two devices raises, as do a generator of the wrong device, ``numpy()``, and a matrix
  product or a convolution of whole numbers;
- ``STALLS`` counts by place in the package where the host waits for the device (a number read, a mask as index, a copy
  to the host), ``UPLOADS`` where something is copied to the device, ``PAGEABLE`` the uploads from memory that is not
  pinned, for which the host waits too;
- the device has its own random stream, whose state has 16 bytes (seed and offset), unlike a CPU's;
- autocast keeps in float32 what CUDA's list keeps there, and refuses what CUDA refuses;
- with ``float64=False`` no double can exist on the device, as on Apple's.

Not rehearsed: speed, memory, and the numbers of cuDNN. The tensors are CPU tensors to PyTorch's C++ side, so that its
autograd engine asks no driver for anything: what knows of the device are two interception layers. `_Front` sees what
Python calls, `_dispatch` what reaches a kernel.
"""

from __future__ import annotations

import copy
import struct
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map

STALLS: Counter[str] = Counter()
UPLOADS: Counter[str] = Counter()
PAGEABLE: Counter[str] = Counter()
DEVICE = torch.device("cuda", 0)
HostGenerator = torch.Generator
OPTIONS = {"float64": True}
PACKAGE = str(Path(__file__).parents[1] / "xai_course")

# Kernels whose result the host needs, to return it or to know its size.
READ_BACK = {"_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "_unique2", "unique_dim"}
READ_BACK |= {"unique_consecutive", "bincount", "repeat_interleave", "_linalg_check_errors"}
INDEX = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
# Beside pointwise kernels these take a number in a CPU tensor without dimensions.
NUMBERS = {
    "where",
    "masked_fill",
    "masked_fill_",
    "fill",
    "fill_",
    "index_fill",
    "index_fill_",
    "copy_",
    "clamp",
    "lerp",
}
FLOATS_ONLY = {
    "mm",
    "bmm",
    "addmm",
    "baddbmm",
    "convolution",
    "avg_pool2d",
    "upsample_bilinear2d",
    "dot",
    "mv",
    "im2col",
}
FLOATS_ONLY |= {"max_pool2d_with_indices", "_adaptive_avg_pool2d", "native_batch_norm"}
# PyTorch's manual, "CUDA Ops that can autocast to float32" and "... promote to the widest input type".
FLOAT32 = """
__pow__ __rdiv__ __rpow__ __rtruediv__ acos asin binary_cross_entropy_with_logits cosh cosine_embedding_loss cdist
cosine_similarity cross_entropy cumprod cumsum dist erfinv exp expm1 group_norm hinge_embedding_loss kl_div l1_loss
layer_norm log log10 log_softmax log1p log2 margin_ranking_loss mse_loss multilabel_margin_loss multi_margin_loss
nll_loss norm normalize pdist poisson_nll_loss pow prod reciprocal rsqrt sinh smooth_l1_loss soft_margin_loss softmax
softmin softplus sum renorm tan triplet_margin_loss vector_norm linalg_vector_norm
"""
WIDEST = "addcdiv addcmul atan2 bilinear cross dot grid_sample index_put scatter_add tensordot"


def place() -> str:
    """The innermost line of the package on the stack."""
    frame = sys._getframe(1)
    while frame:
        if frame.f_code.co_filename.startswith(PACKAGE):
            return f"{frame.f_code.co_filename.removeprefix(PACKAGE)[1:]}:{frame.f_lineno}"
        frame = frame.f_back
    return "outside the package"


def is_cuda(device) -> bool:
    return device is not None and torch.device(device).type == "cuda"


# --- tensors ----------------------------------------------------------------------------------------------------------


class CudaTensor(torch.Tensor):
    """Says that it lies on the device; ``host`` is the tensor that does the work."""

    @staticmethod
    def __new__(cls, host, requires_grad=False):
        if host.dtype == torch.float64 and not OPTIONS["float64"]:
            raise TypeError(f"this device has no float64, at {place()}")
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            host.shape,
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            requires_grad=requires_grad,
        )
        made.host = host
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: DEVICE)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _dispatch(func, args, kwargs or {})

    def to(self, *args, copy=False, **kwargs):
        device, kwargs = _destination(args, kwargs)
        if device is not None and not is_cuda(device):
            STALLS[f"to host {place()}"] += 1
            moved = _Down.apply(self)
            return moved.to(**kwargs) if kwargs else moved
        if not kwargs and not copy:
            return self
        return torch.Tensor.to(self, **kwargs, copy=copy)

    def cpu(self, **_):
        return self.to("cpu")

    def cuda(self, *_, **__):
        return self

    def get_device(self):
        return 0

    def numpy(self, *, force=False):
        if not force:
            raise TypeError(f"can't convert a cuda:0 tensor to numpy, copy it to the host first, at {place()}")
        return self.detach().cpu().numpy()

    def __array__(self, *_, **__):
        return self.numpy()

    def tolist(self):
        STALLS[f"tolist {place()}"] += 1
        return self.detach().host.tolist()

    def untyped_storage(self):
        return self.host.untyped_storage()

    def data_ptr(self):
        return self.host.data_ptr()

    def new_tensor(self, data, *, dtype=None, device=DEVICE, requires_grad=False):
        return torch.tensor(data, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad)

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            twin = CudaTensor(self.host.detach().clone(), self.requires_grad)
            twin.__dict__.update({k: copy.deepcopy(v, memo) for k, v in self.__dict__.items() if k != "host"})
            twin.grad = None if self.grad is None else copy.deepcopy(self.grad, memo)
            memo[id(self)] = twin
        return memo[id(self)]

    def __reduce_ex__(self, protocol):
        STALLS[f"save {place()}"] += 1
        return self.detach().host.__reduce_ex__(protocol)

    def __repr__(self, **_):
        return f"cuda:0 {self.host!r}"


class _Down(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.host.detach().clone()

    @staticmethod
    def backward(ctx, grad):
        return CudaTensor(grad.detach().clone())


class _Up(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return CudaTensor(x.detach().clone())

    @staticmethod
    def backward(ctx, grad):
        return grad.host.detach().clone()


def _destination(args, kwargs):
    """What ``Tensor.to`` was given: the device, and everything else by name."""
    if args and isinstance(args[0], torch.Tensor):
        return args[0].device, {"dtype": args[0].dtype}
    args = args[:3]  # the fourth is ``copy``
    device, dtype, wait, layout = torch._C._nn._parse_to(*args, **{k: v for k, v in kwargs.items() if k != "copy"})
    named = {"dtype": dtype, "non_blocking": wait or None, "memory_format": layout}
    return device, {k: v for k, v in named.items() if v is not None}


# --- what a kernel sees -----------------------------------------------------------------------------------------------


def _flat(func, args, kwargs):
    """Every tensor argument: the tensor, its argument's name, and whether it is written to."""
    named = [*zip(func._schema.arguments, args)]
    named += [(spec, kwargs[spec.name]) for spec in func._schema.arguments if spec.name in kwargs]
    for spec, value in named:
        written = spec.alias_info is not None and spec.alias_info.is_write
        for each in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(each, torch.Tensor):
                yield each, spec.name, written


def _refuse_mixed(func, name, found) -> None:
    """Raise where tensors of two devices meet and no kernel would take them."""
    pointwise = torch.Tag.pointwise in func.tags
    takes_number = pointwise or (name in NUMBERS | INDEX and isinstance(found[0][0], CudaTensor))
    for tensor, argument, written in found:
        if isinstance(tensor, CudaTensor):
            continue
        if name in INDEX and argument == "indices" and isinstance(found[0][0], CudaTensor):
            UPLOADS[f"index {place()}"] += 1
        elif written or tensor.ndim or not takes_number:
            what = f"{name}: argument {argument} {tuple(tensor.shape)} at {place()}"
            raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu ({what})")


def _dispatch(func, args, kwargs):
    name = func._schema.name.split("::")[1]
    found = list(_flat(func, args, kwargs))
    cuda = any(isinstance(tensor, CudaTensor) for tensor, _, _ in found)
    if name == "copy_":
        return _copy(func, args, kwargs)
    if cuda and not all(isinstance(tensor, CudaTensor) for tensor, _, _ in found):
        _refuse_mixed(func, name, found)
    if cuda and name in FLOATS_ONLY and not found[0][0].is_floating_point():
        raise RuntimeError(f"{name} is not implemented for {found[0][0].dtype} on CUDA, at {place()}")
    masks = name in INDEX and any(t.dtype in (torch.bool, torch.uint8) for t, at, _ in found if at == "indices")
    if cuda and (name in READ_BACK or masks):
        STALLS[f"{name} {place()}"] += 1
    wanted = kwargs.get("device")
    if not found or wanted is not None:
        cuda = is_cuda(wanted) or (_Front.inside and not _Front.host_asked)
        kwargs = {**kwargs, "device": torch.device("cpu")} if wanted is not None else kwargs
    kwargs = {k: v for k, v in kwargs.items() if k != "pin_memory"}
    back = {}

    def bare(x):
        if isinstance(x, CudaTensor):
            back[id(x.host)] = x
            return x.host
        return x

    def dressed(x):
        if not isinstance(x, torch.Tensor) or isinstance(x, CudaTensor):
            return x
        return back[id(x)] if id(x) in back else CudaTensor(x)

    inner_args, inner_kwargs = tree_map(bare, args), tree_map(bare, kwargs)
    drawn = torch.Tag.nondeterministic_seeded in func.tags and not any(
        isinstance(x, HostGenerator) for x in (*args, *kwargs.values())
    )
    with _disable_current_modes():
        if cuda and drawn:
            host = torch.get_rng_state()
            torch.default_generator.manual_seed(STREAM.next_seed())
            out = func(*inner_args, **inner_kwargs)
            torch.set_rng_state(host)
        else:
            out = func(*inner_args, **inner_kwargs)
    return tree_map(dressed, out) if cuda else out


def _copy(func, args, kwargs):
    """``copy_`` may cross from one device to the other."""
    target, source = args[:2]
    if isinstance(target, CudaTensor) and not isinstance(source, CudaTensor):
        UPLOADS[f"copy_ {place()}"] += 1
    elif isinstance(source, CudaTensor) and not isinstance(target, CudaTensor):
        STALLS[f"copy_ {place()}"] += 1
    hosts = [x.host if isinstance(x, CudaTensor) else x for x in (target, source)]
    with _disable_current_modes():
        func(*hosts, *args[2:], **kwargs)
    return target


class _Kernels(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls):
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _dispatch(func, args, kwargs or {})


# --- what Python calls ------------------------------------------------------------------------------------------------


def _any_cuda(values) -> bool:
    return any(
        isinstance(v, CudaTensor) or (isinstance(v, (list, tuple)) and any(isinstance(x, CudaTensor) for x in v))
        for v in values
    )


class _Front(TorchFunctionMode):
    """Copies to the device, generators, autocast; and that what a kernel makes for device tensors lies there too."""

    inside = False  # within a call that was given a tensor of the device
    host_asked = False  # ... and asked for a result on the host

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if func in (torch.tensor, torch.as_tensor, torch.asarray) and not isinstance(args[0], CudaTensor):
            device, grad = kwargs.pop("device", None), kwargs.pop("requires_grad", False)
            made = func(*args, **kwargs)
            made = self.up(made) if is_cuda(device) else made
            return made.requires_grad_() if grad else made
        if args and isinstance(args[0], torch.Tensor) and not isinstance(args[0], CudaTensor):
            if func is torch.Tensor.cuda:
                return self.up(args[0])
            if func is torch.Tensor.pin_memory:
                pinned = args[0].clone()
                pinned.pinned = True
                return pinned
            if func is torch.Tensor.to:
                device, rest = _destination(args[1:], kwargs)
                if is_cuda(device):
                    return self.up(args[0].to(**rest) if rest else args[0])
        cuda = _any_cuda(args) or _any_cuda(kwargs.values())
        self.exchange_generator(args, kwargs, cuda or is_cuda(kwargs.get("device")), name)
        if cuda and torch.is_autocast_cpu_enabled():
            args, kwargs = _cast(name, args, kwargs)
        before = _Front.inside, _Front.host_asked
        asked = kwargs.get("device") is not None and not is_cuda(kwargs["device"])
        _Front.inside, _Front.host_asked = before[0] or cuda, asked or before[1]
        try:
            return func(*args, **kwargs)
        finally:
            _Front.inside, _Front.host_asked = before

    @staticmethod
    def up(tensor):
        UPLOADS[place()] += 1
        PAGEABLE[place()] += not getattr(tensor, "pinned", False)
        return _Up.apply(tensor)

    @staticmethod
    def exchange_generator(args, kwargs, cuda, name) -> None:
        generator = kwargs.get("generator") or next((a for a in args if isinstance(a, HostGenerator)), None)
        if not isinstance(generator, HostGenerator):
            return
        if (generator.device.type == "cuda") != cuda:
            kind = "cuda" if cuda else "cpu"
            raise RuntimeError(f"Expected a {kind!r} device type for generator ({name} at {place()})")
        if cuda:
            kwargs["generator"] = HostGenerator().manual_seed(generator.next_seed())


def _cast(name, args, kwargs):
    """CUDA's autocast where it differs from a CPU's, which casts matrix products and convolutions as CUDA does."""
    low = (torch.float16, torch.bfloat16)

    def wide(x):
        return x.float() if isinstance(x, torch.Tensor) and x.dtype in low else x

    if name == "binary_cross_entropy":
        raise RuntimeError(f"binary_cross_entropy is unsafe to autocast (at {place()})")
    widen = name in FLOAT32.split() and kwargs.get("dtype") is None
    if name in WIDEST.split():
        widen = torch.float32 in {x.dtype for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)}
    return (tree_map(wide, args), tree_map(wide, kwargs)) if widen else (args, kwargs)


class Autocast(torch.autocast):
    """``torch.autocast("cuda")``, carried out by a CPU's; what CUDA casts otherwise is `_cast`."""

    def __init__(self, device_type, dtype=None, enabled=True, cache_enabled=None):
        dtype = dtype or (torch.float16 if device_type == "cuda" else None)
        super().__init__("cpu", dtype, enabled, cache_enabled)


# --- random numbers ---------------------------------------------------------------------------------------------------


class Generator(HostGenerator):
    """``torch.Generator``; on the device it counts, and its state has 16 bytes."""

    def __new__(cls, device="cpu"):
        made = HostGenerator.__new__(cls)
        made.kind, made.seed_, made.offset = torch.device(device).type, 67280421310721, 0
        return made

    device = property(lambda self: DEVICE if self.kind == "cuda" else torch.device("cpu"))

    def manual_seed(self, seed):
        super().manual_seed(seed)
        self.seed_, self.offset = seed, 0
        return self

    def next_seed(self) -> int:
        self.offset += 1
        return hash((self.seed_, self.offset)) % 2**63

    def get_state(self):
        if self.kind != "cuda":
            return super().get_state()
        return torch.frombuffer(bytearray(struct.pack("<QQ", self.seed_, self.offset)), dtype=torch.uint8).clone()

    def set_state(self, state):
        if self.kind != "cuda":
            return super().set_state(state)
        if state.numel() != 16:
            raise RuntimeError("RNG state is wrong size")
        self.seed_, self.offset = struct.unpack("<QQ", bytes(state.tolist()))
        return self


STREAM = Generator("cuda")  # what is drawn on the device without a generator


def install(*, capability=(7, 5), memory=15 * 2**30, float64=True) -> None:
    """One device from now on, for the rest of the process."""
    import torch._dynamo  # optimisers import it; it must see the real torch.cuda

    OPTIONS["float64"] = float64
    torch.__future__.set_swap_module_params_on_conversion(True)
    torch.is_autocast_enabled = lambda kind="cuda": torch.is_autocast_cpu_enabled()
    torch.Generator, torch.autocast, torch.amp.autocast = Generator, Autocast, Autocast
    name = f"Stand-in {capability[0]}.{capability[1]}"
    properties = SimpleNamespace(name=name, total_memory=memory, major=capability[0], minor=capability[1])
    answers = {
        "is_available": True,
        "is_initialized": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_name": name,
        "get_device_capability": capability,
        "get_device_properties": properties,
        "is_bf16_supported": True,
        "max_memory_allocated": 2**20,
        "mem_get_info": (memory, memory),
        "_is_in_bad_fork": False,
        **dict.fromkeys(["set_device", "_lazy_init", "init", "empty_cache", "reset_peak_memory_stats"]),
    }
    for attribute, answer in answers.items():
        setattr(torch.cuda, attribute, lambda *_, answer=answer, **__: answer)
    torch.cuda.is_current_stream_capturing = lambda: False
    torch.accelerator.current_stream = lambda *_: SimpleNamespace(is_capturing=lambda: False)
    torch.cuda.synchronize = lambda *_: STALLS.update([f"synchronize {place()}"])
    torch.cuda.get_rng_state = lambda *_: STREAM.get_state()
    torch.cuda.get_rng_state_all = lambda: [STREAM.get_state()]
    torch.cuda.set_rng_state = lambda state, *_: STREAM.set_state(state)
    torch.cuda.set_rng_state_all = lambda states: STREAM.set_state(states[0])
    torch.cuda.manual_seed = torch.cuda.manual_seed_all = STREAM.manual_seed
    grouped = torch._C._group_tensors_by_device_and_dtype  # asks C++ for the device

    def group(tensors, with_indices=False):
        groups = grouped(tensors, with_indices)
        return {(next(t.device for t in v[0][0] if t is not None), k[1]): v for k, v in groups.items()}

    torch._C._group_tensors_by_device_and_dtype = group
    _Kernels().__enter__()
    _Front().__enter__()
