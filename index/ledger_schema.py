"""The ledger's tables. Times are Unix seconds; booleans and counts are never null."""

from __future__ import annotations

import re

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from index.database import Database

VERSION = 4
UPGRADES = {
    1: (
        "ALTER TABLE documents ADD COLUMN seen_at DOUBLE PRECISION NOT NULL DEFAULT 0",
        "ALTER TABLE sources ADD COLUMN gone_at DOUBLE PRECISION",
    ),
    # 1: what every rule meant before there were labels.
    2: (
        "ALTER TABLE access_rules ADD COLUMN label SMALLINT NOT NULL DEFAULT 1 CHECK (label BETWEEN 0 AND 3)",
        "ALTER TABLE access_members ADD COLUMN label SMALLINT NOT NULL DEFAULT 1",
        "DROP INDEX access_members_by_name",
        "CREATE INDEX access_members_by_name ON access_members (tenant_id, name, access_id, deny, label)",
    ),
    3: (),  # holds, consents, classifications and what goes with them are new tables
}
"""What brings a ledger of the version before to the next; missing tables are created anyway."""
WRITING, LIVE, RETIRED = "writing", "live", "retired"
# FULL: an acknowledged document must outlive a power cut. WAL: readers never wait for a writer.
PRAGMAS = {"journal_mode": "WAL", "synchronous": "FULL", "foreign_keys": "ON"}

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

metadata = MetaData()

tenants = Table(
    "tenants",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
)

sources = Table(
    "sources",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("uri", Text, nullable=False),
    Column("gone_at", Double),  # when it was removed: what was listed before does not become live any more
    UniqueConstraint("tenant_id", "name"),
)

cursors = Table(
    "cursors",
    metadata,
    Column("source_id", ForeignKey("sources.id"), primary_key=True),
    Column("value", Text, nullable=False),
)

source_settings = Table(
    "source_settings",
    metadata,
    Column("source_id", ForeignKey("sources.id"), primary_key=True),
    Column("name", Text, nullable=False, unique=True),  # an operator's name for it: one for all tenants
    Column("config", Text, nullable=False),
    Column("paused", Boolean, nullable=False),
)

source_runs = Table(
    "source_runs",
    metadata,
    Column("source_id", ForeignKey("sources.id"), primary_key=True),
    Column("began_at", Double, nullable=False),  # of the run that goes on, or went last
    Column("ended_at", Double),
    Column("as_of", Double),  # the index holds what the source said then, or later
    Column("full_at", Double),  # the last listing of everything
    Column("failures", Integer, nullable=False),  # in a row
    Column("error", Text),
    Column("retry_at", Double),
    Column("report", Text),  # of the last listing that ended well
)

source_hints = Table(
    "source_hints",
    metadata,
    Column("source_id", ForeignKey("sources.id"), primary_key=True),
    Column("external_id", Text, primary_key=True),  # empty: list
    Column("at", Double, nullable=False),
)

access_rules = Table(
    "access_rules",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("key_hash", String(64), nullable=False),
    Column("label", SmallInteger, CheckConstraint("label BETWEEN 0 AND 3"), nullable=False, server_default="1"),
    UniqueConstraint("tenant_id", "key_hash"),
    Index("access_rules_newest", "tenant_id", "id"),
    sqlite_autoincrement=True,  # an id that chunks may still carry is never given to another rule
)

access_members = Table(
    "access_members",
    metadata,
    Column("access_id", ForeignKey("access_rules.id"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("deny", Boolean, primary_key=True),
    # The rule's own, beside each name: one index then answers which rules permit a caller.
    Column("tenant_id", Integer, nullable=False),
    Column("label", SmallInteger, nullable=False, server_default="1"),
    Index("access_members_by_name", "tenant_id", "name", "access_id", "deny", "label"),
    sqlite_with_rowid=False,
)

group_members = Table(
    "group_members",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("member", Text, primary_key=True),  # `user:NAME` or `group:NAME`
    Column("group_name", Text, primary_key=True),
    Column("origin", Text, primary_key=True),
    Index("group_members_by_group", "tenant", "group_name"),
    sqlite_with_rowid=False,
)

group_versions = Table(
    "group_versions",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("version", Integer, nullable=False),  # only ever rises: what was worked out under it is not stale
)

documents = Table(
    "documents",
    metadata,
    Column("document_id", String(32), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("source_id", ForeignKey("sources.id"), nullable=False),
    Column("external_id", Text, nullable=False),
    Column("uri", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("owner", Text),
    Column("fingerprint", Text, nullable=False),
    Column("content_hash", Text, nullable=False),
    Column("version", Integer),  # the live one; null: nothing of this document is visible
    Column("last_version", Integer, nullable=False),  # ever given out: a number is never used twice
    Column("chunk_count", Integer, nullable=False),
    Column("access_id", ForeignKey("access_rules.id"), nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    # When its source was last heard on its rule, or on its being gone: what was heard earlier does not undo it.
    Column("seen_at", Double, nullable=False, server_default="0"),
    Index("documents_by_source", "source_id", "document_id"),
    Index("documents_by_tenant", "tenant_id", "document_id"),
    Index("documents_by_rule", "access_id", "document_id"),
)

versions = Table(
    "versions",
    metadata,
    Column("document_id", ForeignKey("documents.document_id"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("state", String(8), nullable=False),
    Column("content_hash", Text, nullable=False),
    Column("chunk_count", Integer, nullable=False),
    # The rule that the version's rows carry; while it is being written, the document's when the writing began.
    Column("rows_access_id", Integer, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("started_at", Double, nullable=False),
    Index("versions_by_state", "state"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("document_id", String(32), primary_key=True),  # may not be in documents yet
    Column("fingerprint", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Column("last_at", Double, nullable=False),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("document_id", String(32), primary_key=True),
    Column("source_id", ForeignKey("sources.id"), nullable=False),
    Column("external_id", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("uri", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("at", Double, nullable=False),
)

revocations = Table(
    "revocations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(8), nullable=False),  # token, person or tenant
    Column("tenant", Text, nullable=False),  # empty, for a token: whichever
    Column("name", Text, nullable=False),  # a token's id, a person's subject
    Column("before", Double),  # what was issued by then; null: whenever
    Column("until", Double),  # no such token can be alive after that; null: no end
    Column("at", Double, nullable=False),
    Column("by", Text, nullable=False),
    Index("revocations_by_name", "name"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("session_id", String(32), primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("roles", Text, nullable=False),  # JSON, as at the last refresh
    Column("groups", Text, nullable=False),
    Column("way", Text, nullable=False),
    Column("handle", Text, nullable=False),  # what the directory is asked for again
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("ended_at", Double),
    Index("sessions_by_person", "tenant", "subject"),
    Index("sessions_by_end", "expires_at"),
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("session_id", ForeignKey("sessions.session_id", ondelete="CASCADE"), nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("used_at", Double),
    # The session token that came with it: what ends the session revokes it.
    Column("session_token_id", Text),
    Column("session_token_expires_at", Double),
    Index("refresh_tokens_by_session", "session_id"),
    Index("refresh_tokens_by_session_token", "session_token_id"),
)

spent_sign_ins = Table(
    "spent_sign_ins",
    metadata,
    Column("key_hash", String(64), primary_key=True),  # of what may be used once, such as an assertion's id
    Column("until", Double, nullable=False),
)

holds = Table(
    "holds",
    metadata,
    Column("hold_id", String(32), primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("kind", String(8), nullable=False),  # document, source or subject
    Column("target", Text, nullable=False),  # an id, a name, a keyed hash
    Column("reason", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("until", Double),
    Column("immutable", Boolean, nullable=False),
    Column("released_at", Double),
    Column("released_by", Text),
    Index("holds_by_target", "tenant", "kind", "target"),
)

consents = Table(
    "consents",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("purpose", Text, primary_key=True),
    Column("scope", Text, primary_key=True),  # `*`, `source:NAME`, `subject:KEYED-HASH`
    Column("granted", Boolean, nullable=False),
    Column("at", Double, nullable=False),
    Column("until", Double),
    Column("by", Text, nullable=False),
)

classifications = Table(
    "classifications",
    metadata,
    Column("document_id", String(32), primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("label", SmallInteger, nullable=False),
    Column("minimum", SmallInteger),  # the lowest label that a rule lets the document have; null: none does
    Column("categories", Text, nullable=False),  # JSON: category to reasons, never a value that was found
    Column("policy_version", Text, nullable=False),
    Column("outcome", String(12), nullable=False),  # screened, quarantined or dropped
    Column("content_hash", String(64), nullable=False, server_default=""),  # of the text and title that were read
    Column("expires_at", Double),
    Column("at", Double, nullable=False),
    Index("classifications_by_source", "tenant", "source"),
    Index("classifications_by_expiry", "expires_at"),
)

screening_actions = Table(
    "screening_actions",
    metadata,
    Column("document_id", String(32), primary_key=True),
    Column("regime", Text, primary_key=True),
    Column("rule", Text, primary_key=True),
    Column("entity", Text, primary_key=True),
    Column("action", Text, primary_key=True),
    Column("article", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Index("screening_actions_by_regime", "regime"),
)

reviews = Table(
    "reviews",
    metadata,
    Column("document_id", String(32), primary_key=True),  # released: by a person, this content of it
    Column("content_hash", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("at", Double, nullable=False),
)

index_state = Table(
    "index_state",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)


def open_database(url: str) -> Database:
    """Open the ledger's database and create what is missing. Raises as `Database` does."""
    return Database(url, metadata, "ledger", VERSION, PRAGMAS, UPGRADES)


def is_storable(text: str) -> bool:
    """Say whether a text column can hold it as it is."""
    return _UNSTORABLE.search(text) is None


def storable(text: str) -> str:
    """Replace what a text column cannot hold: NUL (PostgreSQL) and lone surrogates (file names that are no UTF-8)."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
