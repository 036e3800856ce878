"""vLLM as a deployment of this application, through `ray.serve.llm`."""

from __future__ import annotations

from typing import Any

from ray.serve import Application

from index.settings import GenerationSettings


def llm_server(settings: GenerationSettings) -> Application:
    """Bind an LLMServer that runs `settings.model` as `settings.served_name`.

    Its scaling stands in `serve_config.yaml` under the deployment `LLMServer:<served_name>`; the limits here replace
    defaults that switch load control off.
    """
    from ray.serve.llm import LLMConfig, ModelLoadingConfig, build_llm_deployment

    options: dict[str, Any] = {
        "max_ongoing_requests": 64,
        "max_queued_requests": 128,
        "autoscaling_config": {"min_replicas": 1, "max_replicas": 1, "target_ongoing_requests": 32},
    }
    if settings.placement is not None:
        options["ray_actor_options"] = {"num_cpus": 0}
    config = LLMConfig(
        model_loading_config=ModelLoadingConfig(model_id=settings.served_name, model_source=settings.model),
        engine_kwargs=settings.engine,
        accelerator_type=settings.accelerator,
        deployment_config=options,
        placement_group_config={"bundles": settings.placement, "strategy": "PACK"} if settings.placement else None,
        runtime_env={"env_vars": settings.environment} if settings.environment else None,
    )
    return build_llm_deployment(config)
