"""The whole graph on one screen.

Ingress ─▶ Retrieval ─▶ Embedding
│           └──────▶ Reranking
├────▶ Generation ─▶ Embedding, LLMServer (vLLM)
├────▶ Sync ───────▶ Embedding
└────▶ Freshness ──▶ Embedding
"""

# No postponed annotations here: Ray reads `build`'s to turn the file's `args` into the checked model.
from typing import Any

from ray.serve import Application

from deployments.closed import require_closed_cluster
from deployments.embedding import Embedding
from deployments.freshness import Freshness
from deployments.generation import Generation
from deployments.ingress import Ingress
from deployments.llm import llm_server
from deployments.reranking import Reranking
from deployments.retrieval import Retrieval
from deployments.sync import Sync
from index.settings import AppArgs


def build(args: AppArgs) -> Application:
    """Bind every deployment with the configuration and the handles it calls. Imports no model library.

    Raises `ConfigurationError` on a cluster that is open to whoever reaches it.
    """
    require_closed_cluster()
    embedding = _bind(Embedding, args)
    reranking = _bind(Reranking, args)
    retrieval = _bind(Retrieval, args, embedding, reranking)
    llm = llm_server(args.generation) if args.generation.kind == "vllm" else None
    generation = _bind(Generation, args, embedding, llm)
    sync = _bind(Sync, args, embedding)
    freshness = _bind(Freshness, args, embedding)
    return _bind(Ingress, args, retrieval, generation, sync, freshness)


def _bind(deployment: Any, *arguments: Any) -> Application:
    bound: Application = deployment.bind(*arguments)
    return bound
