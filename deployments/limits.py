"""From the configuration's limits to what counts them."""

from __future__ import annotations

from deployments.metrics import Metrics
from index.settings import LimitSettings, read_secret
from policies.limits import Allowance, Limits, Work


def limits(settings: LimitSettings, metrics: Metrics) -> Limits:
    """Build what counts requests and tokens, shared with the other replicas where there is a Redis.

    Raises `ConfigurationError` for a Redis address that is none; one that does not answer degrades `limits`.
    """
    kinds = {Work.ASK: settings.ask, Work.UPLOAD: settings.upload, Work.SIGN_IN: settings.sign_in}
    allowance = Allowance(
        {work: each.rates for work, each in {**kinds, Work.OTHER: settings.other}.items()}, settings.tokens.rates
    )
    url = settings.redis_url or read_secret(settings.redis_url_file, settings.redis_url_env, "limits.redis_url_file")
    return Limits(allowance, url, alone=lambda: metrics.degraded("limits"))
