"""The served OpenAPI document agrees with the contract's routes; the graph imports no model library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
ROUTES = {
    ("post", "/v1/query"),
    ("post", "/v1/retrieve"),
    ("post", "/v1/chat/completions"),
    ("get", "/v1/models"),
    ("post", "/v1/documents"),
    ("get", "/v1/documents"),
    ("get", "/v1/documents/{document_id}"),
    ("delete", "/v1/documents/{document_id}"),
    ("put", "/v1/documents/{document_id}/acl"),
    ("get", "/v1/sources"),
    ("post", "/v1/webhooks/{source}"),
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
    ("get", "/v1/audit"),
    ("get", "/v1/audit/verify"),
    ("post", "/v1/privacy/requests"),
    ("get", "/v1/privacy/requests/{privacy_request_id}"),
    ("get", "/v1/privacy/requests/{privacy_request_id}/export"),
    ("get", "/v1/auth"),
    ("get", "/v1/auth/me"),
    ("post", "/v1/auth/refresh"),
    ("post", "/v1/auth/logout"),
    ("post", "/v1/auth/revoke"),
    ("post", "/v1/auth/ldap/{name}"),
    ("get", "/v1/auth/oidc/{name}/login"),
    ("get", "/v1/auth/oidc/{name}/callback"),
    ("get", "/v1/auth/saml/{name}/metadata"),
    ("get", "/v1/auth/saml/{name}/login"),
    ("post", "/v1/auth/saml/{name}/acs"),
}
PROBES = {"/healthz", "/readyz"}
LEADS_TO_A_TOKEN = {
    "/v1/auth",
    "/v1/auth/refresh",
    "/v1/auth/ldap/{name}",
    "/v1/auth/oidc/{name}/login",
    "/v1/auth/oidc/{name}/callback",
    "/v1/auth/saml/{name}/metadata",
    "/v1/auth/saml/{name}/login",
    "/v1/auth/saml/{name}/acs",
}
CITATION = ["n", "document_id", "chunk_id", "external_id", "title", "uri", "page", "quote", "start", "end", "score"]
ANSWER = ["request_id", "answer", "abstained", "citations", "degraded", "generator", "timings_ms", "as_of"]
HIT = ["document_id", "chunk_id", "external_id", "title", "uri", "text", "score", "start", "end", "page"]


def openapi():
    from deployments.ingress import api

    return api.openapi()


def test_the_routes_are_those_of_the_contract():
    served = {(method, path) for path, methods in openapi()["paths"].items() for method in methods}
    assert served == ROUTES


def test_every_route_needs_a_bearer_token_or_a_signature_but_the_probes_and_what_leads_to_a_token():
    proofs = {path: set() for path in PROBES | LEADS_TO_A_TOKEN} | {"/v1/webhooks/{source}": {"StandardWebhooks"}}
    for path, methods in openapi()["paths"].items():
        for method, operation in methods.items():
            asked = {scheme for each in operation.get("security", []) for scheme in each}
            assert asked == proofs.get(path, {"HTTPBearer"}), (method, path)


def test_the_bodies_have_the_contracts_fields():
    schemas = openapi()["components"]["schemas"]
    assert list(schemas["CitationBody"]["properties"]) == CITATION
    assert list(schemas["QueryResponse"]["properties"]) == ANSWER
    assert list(schemas["HitBody"]["properties"]) == HIT
    top_k = schemas["QueryRequest"]["properties"]["top_k"]
    assert (top_k["default"], top_k["minimum"], top_k["maximum"]) == (8, 1, 50)


def test_importing_the_graph_loads_no_model_library():
    code = "import deployments.app, sys; print([m for m in ('torch', 'vllm', 'openvino', 'xberg') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert shown.stdout.strip() == "[]"
