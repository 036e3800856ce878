# ruff: noqa: E501 - one change, or one text, a line
"""Mistakes that somebody could make where rights are decided, each as a change of the source's own words.

A mutant whose words are no longer in the source fails its test, so that the list follows the code.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from deployments import retrieval
from deployments.answering import Answering
from deployments.embedding import Embedding
from deployments.retrieval import Retrieval
from deployments.sync import Sync
from index import access_rules, embedding_cache, vectors
from index.access_rules import AccessRules
from index.documents import Documents
from index.embedding_cache import EmbeddingCache
from index.vectors import VectorStore
from policies.principals import Principal

DEPLOYED: Any = Retrieval.func_or_class
EMBEDDING: Any = Embedding.func_or_class
SYNC: Any = Sync.func_or_class


@dataclass(frozen=True, slots=True)
class Mutant:
    """`owner.name` with `old` replaced by `new` in its source."""

    what: str
    owner: Any
    name: str
    old: str
    new: str

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        """Put it in the place of the original. Raises `LookupError` where the source no longer says `old` once."""
        original = inspect.getattr_static(self.owner, self.name)
        made = _rewritten(original, self.old, self.new)
        patch.setattr(self.owner, self.name, made)


def _rewritten(original: Any, old: str, new: str) -> Any:
    function: Callable[..., Any] = original.fget if isinstance(original, property) else original
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(old) != 1:
        raise LookupError(f"{function.__qualname__} says {source.count(old)} times: {old}")
    names: dict[str, Any] = {}
    source = "from __future__ import annotations\n" + source.replace(old, new)
    exec(compile(source, f"<{function.__qualname__}, changed>", "exec"), function.__globals__, names)  # noqa: S102
    made = names[function.__name__]
    return made if isinstance(original, property) or inspect.isfunction(original) else original


KEY = "caller.clearance, caller.subject, caller.roles, caller.groups"
FILTER = (
    Mutant("no filter at all", vectors, "visibility_filter", "RightsFilter(rights, spread)", 'RightsFilter("")'),
    Mutant("a filter that is always true", vectors, "visibility_filter", "RightsFilter(rights, spread)", 'RightsFilter("version >= 0")'),
    Mutant("no tenant in the filter", vectors, "visibility_filter", "tenant_id == {int(visible.tenant_id)} and ", ""),
    Mutant("any tenant but one's own", vectors, "visibility_filter", "tenant_id ==", "tenant_id !="),
    Mutant("no rules in the filter", vectors, "visibility_filter", " and {_among('access_id', ranges, listed)}", ""),
    Mutant("tenant or rules", vectors, "visibility_filter", "and {_among(", "or {_among("),
    Mutant("the rules that do not permit", vectors, "_among", "{field} in [", "{field} not in ["),
    Mutant("all rules up to the last", vectors, "_among", "{field} >= {int(first)} and ", ""),
    Mutant("all rules from the first", vectors, "_among", " and {field} <= {int(last)}", ""),
    Mutant("only the first rule", vectors, "visibility_filter", "ids = visible.access_ids", "ids = visible.access_ids[:1]"),
    Mutant("documents in place of rights", vectors, "visibility_filter", "{rights} and document_id", "document_id"),
    Mutant("documents beside rights", vectors, "visibility_filter", "{rights} and document_id", "{rights} or document_id"),
    Mutant("asked documents are forgotten", vectors, "visibility_filter", "if document_ids is None:", "if True:"),
    Mutant("the filter is not sent", VectorStore, "_search", "filter=rights.text,", 'filter="",'),
    Mutant("a wide filter is taken for an exact one", VectorStore, "_visible", "if rights.is_exact:", "if True:"),
    Mutant("what a wide filter lets through is not sifted", VectorStore, "_visible", " if visible.holds(candidate.access_id)", ""),
    Mutant("hidden rows take the places of others", VectorStore, "_visible", "len(seen) >= limit or len(found) < asked", "True"),
)  # fmt: skip
RULES = (
    Mutant("denials do not count for the search", AccessRules, "_compute", "set(allowed) - set(denied)", "set(allowed)"),
    Mutant("denied is allowed", AccessRules, "_compute", "set(allowed) - set(denied)", "set(allowed) | set(denied)"),
    Mutant("allowed is denied", AccessRules, "_compute", "(False, True)", "(True, False)"),
    Mutant("rules of all tenants", AccessRules, "_compute", "members.tenant_id == tenant_id,", ""),
    Mutant("names do not count", AccessRules, "_compute", "members.name.in_(self._names(caller)),", ""),
    Mutant("labels do not count for the search", AccessRules, "_compute", "members.label <= int(caller.clearance),", ""),
    Mutant("labels count the other way", AccessRules, "_compute", "members.label <= int", "members.label >= int"),
    Mutant("one's own label is too high", AccessRules, "_compute", "members.label <= int", "members.label < int"),
    Mutant("a person is denied by what allows them", access_rules, "_is_denied", "(access_members.c.deny, 1), else_=0", "(access_members.c.deny, 0), else_=1"),
    Mutant("remembered for a whole tenant", AccessRules, "visible_rules", KEY, "caller.clearance"),
    Mutant("remembered for every clearance", AccessRules, "visible_rules", KEY, "caller.subject, caller.roles, caller.groups"),
    Mutant("remembered whatever the groups", AccessRules, "visible_rules", KEY, "caller.clearance, caller.subject, caller.roles"),
    Mutant("remembered whatever the roles", AccessRules, "visible_rules", KEY, "caller.clearance, caller.subject, caller.groups"),
    Mutant("remembered whoever it is", AccessRules, "visible_rules", KEY, "caller.clearance, caller.roles, caller.groups"),
    Mutant("remembered for ever", AccessRules, "visible_rules", "cached is not None and cached[0] == row.newest", "cached is not None"),
    Mutant("groups are called as people", Principal, "names", 'f"group:{group}"', 'f"user:{group}"'),
    Mutant("roles are called as groups", Principal, "names", 'f"role:{role}"', 'f"group:{role}"'),
    Mutant("nobody is everyone", Principal, "names", "EVERYONE, ", ""),
)  # fmt: skip
GATE = (
    Mutant("no second gate", AccessRules, "gate", ", self.shown_to(caller))", ")"),
    Mutant("any version passes the ledger", AccessRules, "gate", " if document.key in keys", ""),
    Mutant("any tenant passes", AccessRules, "shown_to", "(documents.c.tenant_id == tenant) & ", ""),
    Mutant("what is not live passes", AccessRules, "shown_to", " & live & permitted", " & permitted"),
    Mutant("no rule is asked", AccessRules, "shown_to", " & permitted & cleared", " & cleared"),
    Mutant("no label is asked", AccessRules, "shown_to", " & permitted & cleared", " & permitted"),
    Mutant("labels the other way", AccessRules, "shown_to", "<= int(caller.clearance)", ">= int(caller.clearance)"),
    Mutant("denied is enough", AccessRules, "shown_to", ".scalar_subquery() == 0", ".scalar_subquery() >= 0"),
    Mutant("not named is not denied", AccessRules, "shown_to", "permitted = denied.correlate(documents).scalar_subquery()", "permitted = func.coalesce(denied.correlate(documents).scalar_subquery(), 0)"),
    Mutant("rows pass in any version", retrieval, "_passes", "document is not None and document.key == (candidate.document_id, candidate.version)", "document is not None"),
    Mutant("not asked again after reranking", DEPLOYED, "_search", "now = await self._gate(best, caller) if best else {}", "now = live"),
    Mutant("reranked before the gate", DEPLOYED, "_search", "if _passes(c, live)}", "}"),
    Mutant("what was found may be cited", DEPLOYED, "_confirm", "if hit.document_id in live\n        and live[hit.document_id].key == key\n        and not _is_suppressed(matcher, hit.text, live[hit.document_id])", "if True"),
    Mutant("any version may be cited", DEPLOYED, "_confirm", "and live[hit.document_id].key == key", ""),
    Mutant("a model's reader is not asked for again", Answering, "_may_read", "all(hit.chunk_id in allowed for hit in hits)", "True"),
    Mutant("lists without rights", Documents, "_records", ".where(self._rules.shown_to(caller))", ""),
    Mutant("another tenant's documents can be changed", SYNC, "_managed", " or held.document.tenant_id != tenant_id", ""),
    Mutant("hidden documents can be changed", SYNC, "_managed", "held.document.owner != caller.subject and not readable", "False"),
)  # fmt: skip
CACHES = (
    Mutant("questions of all tenants", EMBEDDING, "question", "self._questions.get((tenant, model_id, text))", 'self._questions.get(("one", model_id, text))'),
    Mutant("questions of all models", EMBEDDING, "question", "self._questions.get((tenant, model_id, text))", "next((v for k, v in self._questions.items() if (k[0], k[2]) == (tenant, text)), None)"),
    Mutant("readers leave a trace", EMBEDDING, "question", "if keep:\n        self._questions[", "if True:\n        self._questions["),
    Mutant("readers move what others asked", EMBEDDING, "question", "if keep:  #", "if True:  #"),
    Mutant("texts by their beginning", embedding_cache, "text_hash", 'normalize("NFC", text)', 'normalize("NFC", text)[:64]'),
    Mutant("texts by their end", embedding_cache, "text_hash", 'normalize("NFC", text)', 'normalize("NFC", text)[-64:]'),
    Mutant("embeddings of all models", EmbeddingCache, "_rows", "embeddings.c.model == self._model", "embeddings.c.model != ''"),
    Mutant("erased texts stay", EmbeddingCache, "drop", "count = self._database.write(work)", "count = 0"),
)  # fmt: skip
ALL = (*FILTER, *RULES, *GATE, *CACHES)
