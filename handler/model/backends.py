"""What computes the feature map: PyTorch, or another runtime with a file that holds the same network.

Each backend is a function from the network's inputs, float32 `[N, 3, I, I]`, to `layer4`'s output, `[N, 512, h, w]`,
on the same device. Runtimes but PyTorch are imported when they are asked for, so none of them has to be installed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from handler.model.checkpoint import Model
from handler.model.network import feature_map

# Made by `python -m export` from the weights, and carried in the archive.
NETWORK_FILES = NETWORK_ONNX, NETWORK_INT8, NETWORK_MNN = "network.onnx", "network_int8.onnx", "network.mnn"
INPUT, OUTPUT = "inputs", "features"
# Instruction sets that add products of bytes in 32 bits, by PyTorch's names.
INT8_SETS = ("avx512_vnni", "avx_vnni", "amx_int8")

Backend = Callable[[Tensor], Tensor]


class BackendError(RuntimeError):
    """A backend is not installed, lacks its file, or does not run on this machine or device."""


def torch_backend(model: Model, folder: Path, device: torch.device) -> Backend:
    """The reference: PyTorch in float32."""
    return lambda inputs: feature_map(model.network, inputs.contiguous(memory_format=torch.channels_last))


def mnn_backend(model: Model, folder: Path, device: torch.device) -> Backend:
    """MNN on the CPU, in float32 with Winograd's convolutions (arXiv 1509.09308): fewer products, and a little more
    rounding."""
    _require_cpu(device, "MNN")
    import MNN.expr
    import MNN.nn

    path = _require_file(folder / NETWORK_MNN)
    # Backend 0 is the CPU; "normal" precision is float32 there.
    config = {"backend": 0, "precision": "normal", "numThread": torch.get_num_threads()}
    manager = MNN.nn.create_runtime_manager((config,))
    module = MNN.nn.load_module_from_file(str(path), [INPUT], [OUTPUT], runtime_manager=manager, shape_mutable=False)

    def run(inputs: Tensor) -> Tensor:
        pixels = MNN.expr.const(inputs.contiguous().numpy(), list(inputs.shape), MNN.expr.NCHW)
        features = MNN.expr.convert(module.forward([pixels])[0], MNN.expr.NCHW)
        # A copy: the array belongs to MNN, which writes the next batch into it.
        return torch.from_numpy(features.read().copy())

    return run


def onnxruntime_backend(model: Model, folder: Path, device: torch.device) -> Backend:
    """ONNX Runtime, with its CPU or CUDA provider after the device."""
    provider = "CUDAExecutionProvider" if device.type == "cuda" else "CPUExecutionProvider"
    return _onnxruntime(model, folder, device, provider)


def tensorrt_backend(model: Model, folder: Path, device: torch.device) -> Backend:
    """ONNX Runtime with its TensorRT provider."""
    return _onnxruntime(model, folder, device, "TensorrtExecutionProvider")


def _onnxruntime(model: Model, folder: Path, device: torch.device, provider: str) -> Backend:
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        raise BackendError(f"this onnxruntime has no {provider}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    index = device.index or 0
    providers = [provider if device.type == "cpu" else (provider, {"device_id": str(index)})]
    session = onnxruntime.InferenceSession(_require_file(folder / NETWORK_ONNX), options, providers=providers)
    channels = model.network.fc.in_features

    def run(inputs: Tensor) -> Tensor:
        # Bound to the tensors' own memory, so that nothing is copied, to or from a GPU least of all.
        inputs = inputs.contiguous()
        features = torch.empty(len(inputs), channels, *feature_size(inputs), device=inputs.device)
        if device.type == "cuda":
            torch.cuda.current_stream(device).synchronize()
        binding = session.io_binding()
        for bind, name, tensor in ((binding.bind_input, INPUT, inputs), (binding.bind_output, OUTPUT, features)):
            bind(name, device.type, index, "float32", tuple(tensor.shape), tensor.data_ptr())
        session.run_with_iobinding(binding)
        return features

    return run


def openvino_backend(model: Model, folder: Path, device: torch.device) -> Backend:
    """OpenVINO on the CPU, in float32."""
    return _openvino(folder / NETWORK_ONNX, device, "f32")


def openvino_bf16_backend(model: Model, folder: Path, device: torch.device) -> Backend:
    """OpenVINO on the CPU, in bfloat16 where the processor has it."""
    if not _has_bfloat16():
        raise BackendError("this processor has no bfloat16")
    return _openvino(folder / NETWORK_ONNX, device, "bf16")


def openvino_int8_backend(model: Model, folder: Path, device: torch.device) -> Backend:
    """OpenVINO on the CPU: the convolutions in int8, the rest in bfloat16 where the processor has it.

    Without VNNI or AMX, x86 adds products of bytes in 16 bits, which overflow.
    """
    capabilities = torch.cpu.get_capabilities()
    if not any(capabilities.get(name) for name in INT8_SETS):
        raise BackendError(f"this processor has none of {', '.join(INT8_SETS)}")
    return _openvino(folder / NETWORK_INT8, device, "bf16" if _has_bfloat16() else "f32")


def _has_bfloat16() -> bool:
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _openvino(path: Path, device: torch.device, precision: str) -> Backend:
    _require_cpu(device, "OpenVINO's backend")
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(_require_file(path), "CPU", settings)

    def run(inputs: Tensor) -> Tensor:
        return torch.from_numpy(compiled({INPUT: inputs.contiguous().numpy()})[OUTPUT].copy())

    return run


BACKENDS: dict[str, Callable[[Model, Path, torch.device], Backend]] = {
    "torch": torch_backend,
    "mnn": mnn_backend,
    "onnxruntime": onnxruntime_backend,
    "tensorrt": tensorrt_backend,
    "openvino": openvino_backend,
    "openvino-bf16": openvino_bf16_backend,
    "openvino-int8": openvino_int8_backend,
}
# Their answers differ from PyTorch's by more than rounding.
REDUCED = {"openvino-bf16", "openvino-int8"}


def load_backend(name: str, model: Model, folder: Path, device: torch.device) -> Backend:
    """The backend of that name, with its file from `folder`. Raises `BackendError` where it cannot be had."""
    if name not in BACKENDS:
        raise BackendError(f"there is no backend {name!r}, but {', '.join(BACKENDS)}")
    try:
        return BACKENDS[name](model, folder, device)
    except ImportError as error:
        raise BackendError(f"{name} is not installed: {error}") from error


def feature_size(inputs: Tensor) -> tuple[int, int]:
    """Height and width of the feature map: five halvings, each rounded up."""
    height, width = (-(-side // 32) for side in inputs.shape[-2:])
    return height, width


def _require_cpu(device: torch.device, what: str) -> None:
    if device.type != "cpu":
        raise BackendError(f"{what} runs on the CPU only")


def _require_file(path: Path) -> Any:
    if not path.is_file():
        raise BackendError(f"{path.name} is not in the archive")
    return path
