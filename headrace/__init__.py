"""headrace: keeps machine-learning models fresh on a stream."""
from headrace.models.features import *  # noqa
from headrace.models.labels import Binary, Regression  # noqa
from headrace.models.pipeline import Last, Pipeline  # noqa
from headrace.scheduler.triggers import Cron  # noqa
from headrace.trainer.gate import Gate  # noqa
from headrace.trainer.learners import Torch  # noqa
