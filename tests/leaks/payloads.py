# ruff: noqa: E501 - one change, or one text, a line
"""Texts that have broken filters, statements, templates, parsers and encoders elsewhere; and combinations of them."""

from __future__ import annotations

import random
from collections.abc import Iterator

NUMBER = 2_000
QUOTES = ("'", '"', "`", "\u2019", "\u201c", "\u00b4", "\uff07", "\uff02", "\\'", '\\"', "''", '""', "\\", "\\\\")
ENDS = ("", " --", "#", "/*", "//", ";", "\x00", "\n", "\r\n", "]", ")", "}", "%00", "\u2028")
MILVUS = (
    "or tenant_id >= 0", "or access_id in [1,2,3,4,5]", "|| true", "or 1 == 1", "or document_id like \"%\"",
    "and not (access_id == 1)", "or array_contains_any(acl, [1])", "or json_contains(meta, 1)", "or exists(meta)",
    "or version >= 0 or document_id in [\"", "or chunk_id != \"", "== \"\" or \"\" == \"", "{access_id}", "$meta",
)  # fmt: skip
SQL = (
    "OR 1=1", "UNION SELECT name FROM access_members", "; DROP TABLE documents", "OR tenant_id IS NOT NULL",
    "); DELETE FROM versions", "AND (SELECT 1)=1", "' || (SELECT text FROM embeddings) || '", "LIKE '%'", "%' OR '1'='1",
    "pg_sleep(5)", "'::jsonb @> '{}", "COLLATE NOCASE", "ESCAPE '\\'",
)  # fmt: skip
OTHER = (
    "$..*", "$[?(@.acl)]", "$.*~", "{{7*7}}", "{% raw %}", "${jndi:ldap://x}", "#{7*7}", "<%= 7 %>", "%s%s%n", "{0.__class__}",
    "__import__('os')", "../../etc/passwd", "..\\..\\x", "file:///etc/passwd", "javascript:alert(1)", "<script>", "<!--",
    "]]>", "&lt;!ENTITY", "$where", "{$ne: null}", "[$gt]=", "*)(uid=*))(|(uid=*", "(cn=*)", "everyone", "user:everyone",
    "group:*", "user:%", "role:_", "group:a,group:b", "user:ann\nuser:bob", "true", "null", "NaN", "-0", "1e999", "0x1f",
)  # fmt: skip
SPECIAL = (
    "", " ", "\x00", "a\x00b", "\ud800", "\udfff\ud800", "\ufeff", "\u200b", "\u202e", "\u2066", "\x1b[31m", "\x7f", "\U000e0041",
    "\u0301", "\ufdfa", "\U0001f9d1\u200d\U0001f692", "A" * 10_000, "(" * 3_000, "[" * 3_000, "{" * 3_000, "not " * 2_000, "\\" * 5_000,
    '"' * 5_000, "%" * 5_000, "\n" * 5_000, "\u0130" * 100, "\u00df", "ﬁ", "\r", "\t", "\x0b", "\x85",
)  # fmt: skip


def payloads(seed: int, number: int = NUMBER) -> list[str]:
    """Give `number` different texts: all of the special ones, and combinations drawn by `seed`."""
    source = random.Random(f"payloads {seed}")
    found = dict.fromkeys((*SPECIAL, *MILVUS, *SQL, *OTHER))
    made = _combined(source)
    while len(found) < number:
        found[next(made)] = None
    return list(found)[:number]


def _combined(source: random.Random) -> Iterator[str]:
    while True:
        quote, body = source.choice(QUOTES), source.choice((*MILVUS, *SQL, *OTHER))
        word = source.choice(("", "x", "cnryt", "0" * 32, "everyone", "password", "1", "\u0430nn"))
        closed = source.choice(("", " ", ")", "])", '"]', "\n"))
        text = f"{word}{quote}{closed}{body}{source.choice(ENDS)}"
        if source.random() < 0.1:
            text = text * source.randint(2, 40)
        if source.random() < 0.1:
            text = text + source.choice(SPECIAL)[:50]
        yield text
