"""The embedding models that are loaded in a process: the live one, and while the model changes a second one."""

from __future__ import annotations

from threading import Lock

from cachetools import LRUCache

from index.embedding import Embedder
from index.models import HeldModel
from index.settings import EmbeddingSettings
from policies.errors import ConfigurationError

MOST = 2


class Embedders:
    """Loads each model at its first use and keeps the two used last. Safe to use from many threads."""

    def __init__(self, configured: EmbeddingSettings, streams: int = 1) -> None:
        self._configured = configured
        self._streams = streams
        self._loaded: LRUCache[str, Embedder] = LRUCache(MOST)
        self._lock = Lock()
        self._loading = Lock()

    def get(self, model: HeldModel) -> Embedder:
        """Give a model. Raises `ConfigurationError` where its files are gone or are no longer what the index holds."""
        found = self._find(model.model_id)
        if found is not None:
            return found
        with self._loading:  # one at a time; who asks for a loaded one does not wait
            found = self._find(model.model_id)
            if found is None:
                found = Embedder(model.applied_to(self._configured), streams=self._streams)
                if found.model_id != model.model_id:
                    raise ConfigurationError(
                        f"embedding model {model.name}: its files make it {found.model_id}, the index holds "
                        f"{model.model_id}: put the former files back"
                    )
                with self._lock:
                    self._loaded[model.model_id] = found
        return found

    def _find(self, model_id: str) -> Embedder | None:
        with self._lock:
            return self._loaded.get(model_id)
