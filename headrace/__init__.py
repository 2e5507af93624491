"""headrace keeps machine-learning models fresh on a stream: the names that a pipeline file uses.

They are loaded on first use (PEP 562), so that `import headrace` costs nothing and a process reads a pipeline file
without torch, Kafka or Redis clients.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# ONNX Runtime's own builds report to their maker, with a thread and a file of their own, unless told not to before they
# are imported. Who wants that sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from headrace.models.checks import Checks as Checks
    from headrace.models.errors import BadInput as BadInput
    from headrace.models.errors import DeclarationError as DeclarationError
    from headrace.models.errors import HeadraceError as HeadraceError
    from headrace.models.features import Aggregate as Aggregate
    from headrace.models.features import Category as Category
    from headrace.models.features import Datetime as Datetime
    from headrace.models.features import Function as Function
    from headrace.models.features import Lookup as Lookup
    from headrace.models.features import Number as Number
    from headrace.models.features import Tensor as Tensor
    from headrace.models.features import Topic as Topic
    from headrace.models.labels import Binary as Binary
    from headrace.models.labels import Multiclass as Multiclass
    from headrace.models.labels import Regression as Regression
    from headrace.models.limits import RunLimits as RunLimits
    from headrace.models.pipeline import Pipeline as Pipeline
    from headrace.models.protocols import Reason as Reason
    from headrace.models.protocols import Trained as Trained
    from headrace.models.protocols import Verdict as Verdict
    from headrace.models.reweighting import Balance as Balance
    from headrace.models.reweighting import LabelDelay as LabelDelay
    from headrace.models.scoring import Score as Score
    from headrace.models.windows import Anchor as Anchor
    from headrace.models.windows import Everything as Everything
    from headrace.models.windows import Last as Last
    from headrace.models.windows import LastRows as LastRows
    from headrace.models.windows import Rehearsal as Rehearsal
    from headrace.scheduler.combined import AllOf as AllOf
    from headrace.scheduler.combined import AnyOf as AnyOf
    from headrace.scheduler.combined import AtLeast as AtLeast
    from headrace.scheduler.rollback import Rollback as Rollback
    from headrace.scheduler.rollback import Shadow as Shadow
    from headrace.scheduler.triggers import Always as Always
    from headrace.scheduler.triggers import Cron as Cron
    from headrace.scheduler.triggers import Degraded as Degraded
    from headrace.scheduler.triggers import Drift as Drift
    from headrace.scheduler.triggers import Every as Every
    from headrace.scheduler.triggers import Never as Never
    from headrace.scheduler.triggers import NewLabels as NewLabels
    from headrace.trainer.gate import Gate as Gate
    from headrace.trainer.learners import Online as Online
    from headrace.trainer.learners import Torch as Torch

    __version__: str

_PLACES = {
    "headrace.models.checks": ("Checks",),
    "headrace.models.errors": ("BadInput", "DeclarationError", "HeadraceError"),
    "headrace.models.features": (
        "Aggregate",
        "Category",
        "Datetime",
        "Function",
        "Lookup",
        "Number",
        "Tensor",
        "Topic",
    ),
    "headrace.models.labels": ("Binary", "Multiclass", "Regression"),
    "headrace.models.limits": ("RunLimits",),
    "headrace.models.pipeline": ("Pipeline",),
    "headrace.models.protocols": ("Reason", "Trained", "Verdict"),  # what users' own triggers, learners, gates return
    "headrace.models.reweighting": ("Balance", "LabelDelay"),
    "headrace.models.scoring": ("Score",),
    "headrace.models.windows": ("Anchor", "Everything", "Last", "LastRows", "Rehearsal"),
    "headrace.scheduler.combined": ("AllOf", "AnyOf", "AtLeast"),
    "headrace.scheduler.rollback": ("Rollback", "Shadow"),
    "headrace.scheduler.triggers": ("Always", "Cron", "Degraded", "Drift", "Every", "Never", "NewLabels"),
    "headrace.trainer.gate": ("Gate",),
    "headrace.trainer.learners": ("Online", "Torch"),
}
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [  # noqa: PLE0604  the names are text
    "__version__",
    *sorted(_MODULE_OF),
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415  read only when asked for

        value: Any = version("headrace")
    elif name in _MODULE_OF:
        value = getattr(import_module(_MODULE_OF[name]), name)
    else:
        raise AttributeError(f"module 'headrace' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
