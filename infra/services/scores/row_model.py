"""a version → the model that scores rows which are no events: by hand from a file, or by schedule. One way for both."""

from contextlib import closing
from copy import copy

from headrace.infra.feature_store import RedisFeatureStore
from headrace.infra.names import Names
from headrace.infra.replay import feature_store
from headrace.infra.services.scores.scoring import Scoring
from headrace.infra.settings import Settings
from headrace.models.errors import ServerMissing
from headrace.models.features import Topic
from headrace.models.pipeline import Pipeline
from headrace.models.registry import Versions
from headrace.streams.model import LiveModel, live_model


def with_rows(pipeline: Pipeline, rows: Topic) -> Pipeline:
    """The same, and its events are decoded as `rows` says.

    Not declared anew: that would expect one format of a topic that carries side rows or labels, too.
    """
    found = copy(pipeline)
    object.__setattr__(found, "events", rows)
    return found


def row_model(settings: Settings, names: Names, versions: Versions, number: int, rows: Topic) -> LiveModel:
    """Tried in a sandbox first, as workers do; `rows` says how they are decoded. Raises BadInput, RegistryRefused."""
    with closing(Scoring(settings, names, versions)) as scoring:
        found = scoring.version(number)
    return live_model(
        with_rows(names.pipeline, rows),
        found.predictor,
        version=number,
        features=found.manifest.features if found.manifest else (),
    )


def row_store(settings: Settings, names: Names) -> RedisFeatureStore | None:
    """Where the pipeline's stored features are, if it has any. Raises ServerMissing where nobody says."""
    store = feature_store(settings, names)
    if store is None and names.pipeline.stored:
        raise ServerMissing("this pipeline has Lookup or Aggregate features, which live in Redis: set REDIS_URL.")
    return store
