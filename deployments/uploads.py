"""From an upload's HTTP body to documents, and from what became of them to the answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request

from deployments.contract import DocumentStatus, DocumentUpload, RuleBody, UploadResponse
from deployments.sync import Upload
from ingest.acl_file import parse_acl
from ingest.cleaning import cleaned, given_title, shown_uri
from ingest.connector import InlineDocument
from ingest.report import Outcome
from policies.access import NOBODY, AccessRule
from policies.errors import ConfigurationError, DocumentRejected, InvalidRequest, TooLarge, UnsupportedType
from policies.labels import Label

MAX_FILES = 20


async def read_uploads(request: Request, max_bytes: int) -> list[Upload]:
    """Read a JSON document or the files of a form (`file`, any number; `acl`, `label`, `id`, `title` apply to them).

    Raises `InvalidRequest`, `TooLarge`, or `UnsupportedType` for another content type.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return [_from_json(await request.body())]
    if kind != "multipart/form-data":
        raise UnsupportedType("send application/json or multipart/form-data")
    async with request.form(max_files=MAX_FILES, max_fields=20, max_part_size=100_000) as form:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
        if not files:
            raise InvalidRequest("file: the form has no file")
        if "id" in fields and len(files) > 1:
            raise InvalidRequest("id: give an id for one file, or none for several")
        rule = _form_rule(fields.get("acl", ""))
        label = Label.of(fields["label"]) if "label" in fields else None
        return [await _from_file(file, fields, rule, label, max_bytes) for file in files]


def upload_response(outcomes: Sequence[Outcome]) -> UploadResponse:
    """Tell what became of each. Raises the failure of a single document that cannot be indexed."""
    first = outcomes[0]
    if len(outcomes) == 1 and first.status == "quarantined":
        raise (first.failure or DocumentRejected)(first.reason or "the document cannot be indexed")
    documents = [
        DocumentStatus(
            document_id=o.document_id, version=o.version, status=o.status, reason=o.reason, warning=o.warning
        )
        for o in outcomes
    ]
    return UploadResponse(
        document_id=first.document_id,
        version=first.version,
        status=first.status,
        reason=first.reason,
        warning=first.warning,
        documents=documents if len(documents) > 1 else [],
    )


def _from_json(body: bytes) -> Upload:
    try:
        row = DocumentUpload.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors()[0]
        path = ".".join(str(part) for part in problem["loc"])
        said = str(problem["msg"]).removeprefix("Value error, ")
        raise InvalidRequest(f"{path}: {said}" if path else said) from error
    title, (text, unseen) = given_title(row.title), cleaned(row.text)
    if not text.strip():
        raise InvalidRequest("text: it is empty")
    uri = shown_uri(row.uri) if row.uri else f"upload:{row.id}"
    inline = InlineDocument(title=title, text=text, metadata=row.metadata, unseen=unseen)
    return Upload(row.id, uri, _rule(row.acl), title, inline, label=row.label)


def _form_rule(text: str) -> AccessRule:
    try:
        return parse_acl(text) if text else NOBODY
    except ConfigurationError as error:
        raise InvalidRequest(error.detail) from error


def _rule(acl: list[str] | RuleBody | None) -> AccessRule:
    if acl is None:
        return NOBODY
    return AccessRule.of(acl) if isinstance(acl, list) else AccessRule.of(acl.allow, acl.deny)


async def _from_file(
    file: UploadFile, fields: dict[str, str], rule: AccessRule, label: Label | None, max_bytes: int
) -> Upload:
    name = PurePosixPath((file.filename or "").replace("\\", "/")).name
    if not name:
        raise InvalidRequest("file: it has no name")
    data = await file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise TooLarge(f"{name[:128]}: over {max_bytes} bytes")
    external_id = fields.get("id") or name
    if len(external_id) > 512:
        raise InvalidRequest("id: at most 512 characters")
    return Upload(external_id, f"upload:{name}", rule, given_title(fields.get("title")), data=data, label=label)
