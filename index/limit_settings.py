"""How much may be asked for, and what HTTP answers carry and to whom."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from index.sections import Section
from policies.limits import Rate, Rates

_ORIGIN = "write https://host or https://host:port, in small letters, never *"


class RateSettings(Section):
    """Such as `60/minute` or `500/2 hours`; several hold at once, an empty list: no limit."""

    person: list[str] = Field(default_factory=list, max_length=8)
    tenant: list[str] = Field(default_factory=list, max_length=8)

    @field_validator("person", "tenant")
    @classmethod
    def _are_rates(cls, value: list[str]) -> list[str]:
        for text in value:
            Rate.of(text)
        return value

    @property
    def rates(self) -> Rates:
        """The same, read."""
        return Rates(tuple(Rate.of(text) for text in self.person), tuple(Rate.of(text) for text in self.tenant))


class LimitSettings(Section):
    """What a request may ask for, and how often.

    The defaults stop a program that has run wild, not a person, nor a load test on a small machine: set them to what
    your people need. `sign_in`: by account (`person`), and by directory or provider (`tenant`). `tokens`: of a model,
    prompt and answer together; an answer that quotes costs none.
    """

    max_question_chars: int = Field(default=8_000, ge=16)
    max_body_bytes: int = Field(default=1_000_000, ge=1_000)
    max_header_bytes: int = Field(
        default=32_768, ge=4_096, description="path, query and headers, without the token, which has a limit of its own"
    )
    max_upload_mb: float = Field(default=100.0, gt=0)
    max_messages: int = Field(default=100, ge=1, le=200, description="of a chat completion")
    max_history_chars: int = Field(default=100_000, ge=0, description="of a chat completion, before the last question")
    request_timeout_s: float = Field(default=120.0, gt=0)
    ask: RateSettings = RateSettings(person=["3000/minute"], tenant=["30000/minute"])
    upload: RateSettings = RateSettings(person=["600/minute"], tenant=["6000/minute"])
    sign_in: RateSettings = RateSettings(person=["20/minute", "200/day"], tenant=["1200/minute"])
    other: RateSettings = RateSettings(person=["6000/minute"], tenant=["60000/minute"])
    tokens: RateSettings = RateSettings(person=["5000000/day"], tenant=["500000000/day"])
    redis_url: str | None = Field(default=None, description="counts for all replicas together; without a password")
    redis_url_env: str | None = None
    redis_url_file: str | None = None

    @model_validator(mode="after")
    def _one_redis(self) -> LimitSettings:
        if len([each for each in (self.redis_url, self.redis_url_env, self.redis_url_file) if each is not None]) > 1:
            raise ValueError("give at most one of redis_url, redis_url_env and redis_url_file")
        if self.redis_url is not None and "@" in self.redis_url:
            raise ValueError("redis_url holds a password: give it by redis_url_env or redis_url_file")
        return self


class HttpSettings(Section):
    """What answers carry, and who may reach them. By default: no other origin, and this machine only."""

    cors_origins: list[str] = Field(
        default_factory=list, description="whose pages may read answers, such as https://wiki.acme.example"
    )
    hsts_s: int = Field(default=0, ge=0, description="Strict-Transport-Security's max-age; 0: none, as without TLS")
    beyond_loopback: bool = Field(
        default=False, description="http_options.host may be an address that other machines reach"
    )

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: list[str]) -> list[str]:
        for text in value:
            parts = urlsplit(text)
            if text == "*" or parts.scheme not in ("http", "https") or f"{parts.scheme}://{parts.netloc}" != text:
                raise ValueError(f"'{text[:80]}' is no origin: {_ORIGIN}")
            if not parts.hostname or parts.username is not None or "*" in text or text != text.lower():
                raise ValueError(f"'{text[:80]}' is no origin: {_ORIGIN}")
        return value
