import pytest
from feature_store_suite import FeatureStoreSuite

from headrace.streams.memory_store import MemoryFeatureStore


class TestMemoryFeatureStore(FeatureStoreSuite):
    @pytest.fixture
    def store(self):
        return MemoryFeatureStore()
