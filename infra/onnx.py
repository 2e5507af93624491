"""settings → how ONNX Runtime runs the models of this process."""

import onnxruntime as ort

from headrace.infra.settings import Settings
from headrace.models.errors import SettingsError
from headrace.models.session import CPU, Runtime


def onnx_runtime(settings: Settings) -> Runtime:
    """Raises SettingsError for an execution provider that is not installed."""
    there = ort.get_available_providers()
    for name in settings.onnx_providers:
        if name not in there:
            raise SettingsError(
                f"onnx_providers: expected some of {', '.join(there)}, got {name!r}."
                " Install the build of onnxruntime that has it (onnxruntime-gpu, -openvino), or leave it out."
            )
    providers = (*(name for name in settings.onnx_providers if name != CPU), CPU)
    return Runtime(threads=settings.onnx_threads or 1, providers=providers, seconds=settings.onnx_timeout_s)
