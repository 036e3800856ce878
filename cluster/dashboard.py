"""The REST API of Ray's dashboard: deploy, and say how far it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2

from cluster.state import State
from policies.errors import ConfigurationError, Unavailable

APPLICATIONS = "/api/serve/applications/"
DEPLOY_S = 120.0
ASK_S = 20.0
FAILED = frozenset({"DEPLOY_FAILED"})


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """A deployment: `running` of `wanted` replicas, and what Serve says where it is not healthy."""

    name: str
    status: str
    running: int
    wanted: int
    message: str


@dataclass(frozen=True, slots=True)
class ApplicationStatus:
    """An application and its deployments."""

    name: str
    status: str
    message: str
    deployments: tuple[DeploymentStatus, ...]

    @property
    def failed(self) -> bool:
        """Serve gave up."""
        return self.status in FAILED

    @property
    def progress(self) -> str:
        """One line: which deployments run how many of their replicas."""
        parts = [f"{each.name} {each.running}/{each.wanted}" for each in self.deployments]
        return ", ".join(parts) or self.status.lower().replace("_", " ")


def ray_headers(state: State) -> dict[str, str]:
    """Give the header that Ray's API asks for. Raises `ConfigurationError` where the token cannot be read."""
    try:
        token = state.ray_token_file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigurationError(
            f"{state.ray_token_file}: {error.strerror}: run rayrag down, then rayrag up."
        ) from error
    return {"Authorization": f"Bearer {token}"}


def deploy(state: State, document: dict[str, Any]) -> None:
    """Hand the Serve configuration over; returns before anything runs. Raises `Unavailable` when it is refused."""
    try:
        answer = httpx2.put(
            state.dashboard + APPLICATIONS, json=document, headers=ray_headers(state), timeout=DEPLOY_S, trust_env=False
        )
    except httpx2.HTTPError as error:
        raise Unavailable(f"Ray's dashboard at {state.dashboard} does not take the deployment: {error}.") from error
    if answer.status_code != 200:
        raise Unavailable(f"Ray Serve refused the configuration: {last_line(answer.text)}")


def applications(state: State) -> list[ApplicationStatus]:
    """Ask what runs. Raises `Unavailable` when the dashboard does not say."""
    try:
        answer = httpx2.get(state.dashboard + APPLICATIONS, headers=ray_headers(state), timeout=ASK_S, trust_env=False)
        answer.raise_for_status()
        found = answer.json().get("applications") or {}
    except (httpx2.HTTPError, ValueError) as error:
        raise Unavailable(f"Ray's dashboard at {state.dashboard} does not answer: {error}.") from error
    return [_application(name, values) for name, values in found.items()]


def failure(application: ApplicationStatus) -> str:
    """Say in one sentence why an application failed: the deployment's own message where there is one."""
    for deployment in application.deployments:
        if deployment.status in ("DEPLOY_FAILED", "UNHEALTHY") and deployment.message:
            return f"{deployment.name} did not start: {last_line(deployment.message)}"
    return f"{application.name} did not start: {last_line(application.message)}"


def last_line(text: str) -> str:
    """Find what matters in a message that may hold a traceback: the exception's line, at most 400 characters."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    named = [line for line in lines if _is_exception(line)]
    return " ".join((named or lines or ["no reason was given"])[-1].split())[:400]


def _is_exception(line: str) -> bool:
    name, colon, _ = line.partition(": ")
    last = name.rsplit(".", 1)[-1]
    return bool(colon) and " " not in name and last.endswith(("Error", "Exception", "Unavailable", "Rejected"))


def _application(name: str, values: dict[str, Any]) -> ApplicationStatus:
    deployments = tuple(_deployments(values.get("deployments") or {}))
    return ApplicationStatus(name, str(values.get("status", "")), str(values.get("message") or ""), deployments)


def _deployments(values: dict[str, Any]) -> Iterator[DeploymentStatus]:
    for name, deployment in values.items():
        replicas = deployment.get("replicas") or []
        running = sum(replica.get("state") == "RUNNING" for replica in replicas)
        wanted = deployment.get("target_num_replicas")
        if wanted is None:
            wanted = len(replicas)
        status, message = str(deployment.get("status", "")), str(deployment.get("message") or "")
        yield DeploymentStatus(name, status, running, int(wanted), message)
