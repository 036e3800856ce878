"""Rights through a life: whatever happens to documents, rules, groups and people, the next question is answered by it.

A machine does to the service what administrators, sources and crashes do, in any order, and to a model of dictionaries.
After every step somebody asks, and sees exactly what the model says.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import hypothesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from deployments.retrieval import Search
from index.document import DocumentRef
from index.ledger_records import NewVersion
from index.revocations import RevocationList
from ingest.stages import change_rights, repoint, sweep
from policies.access import AccessRule
from policies.groups import Membership
from policies.labels import Label
from tests.leaks.service import Service
from tests.leaks.sizes import seed, sizes

PEOPLE = ("ann", "bob", "cleo")
GROUPS = ("a", "b", "c")
NAMES = ("everyone", *(f"user:{p}" for p in PEOPLE), *(f"group:{g}" for g in GROUPS), "role:user")
DOCUMENTS = tuple(f"d{n}" for n in range(5))
QUESTION = "what is the password?"
names = st.sampled_from(NAMES)
documents = st.sampled_from(DOCUMENTS)
people = st.sampled_from(PEOPLE)
groups = st.sampled_from(GROUPS)
labels = st.sampled_from(list(Label))
rules = st.builds(
    AccessRule, st.frozensets(names, max_size=3), st.frozensets(names, max_size=1), st.sampled_from(list(Label))
)
numbers = itertools.count()


@dataclass
class Known:
    """A document in the model. `pending`: its rows do not follow its rule yet; the ledger does."""

    rule: AccessRule
    text: str
    pending: bool = False


class Histories(RuleBasedStateMachine):
    service: ClassVar[Service]
    steps: ClassVar[int] = 0
    runs: ClassVar[int] = 0

    @initialize()
    def begin(self) -> None:
        type(self).runs += 1
        self.tenant = f"life{next(numbers)}"
        self.known: dict[str, Known] = {}
        self.members: set[tuple[str, str]] = set()
        self.subjects = {person: person for person in PEOPLE}
        self.disabled: set[str] = set()
        self.former: dict[str, float] = {}

    # ---- documents

    @rule(name=documents, given=rules, asker=people)
    def put(self, name: str, given: AccessRule, asker: str) -> None:
        """New, or changed, with the rights that its source gives it now."""
        text = f"The password number {next(numbers)} is in here."
        self.former[name] = self._write(name, given, text).seen_at
        self.known[name] = Known(given, text)
        self._ask(asker)

    @rule(name=documents, asker=people)
    def come_again(self, name: str, asker: str) -> None:
        """The same text under the same rule, as a listing of everything brings it."""
        known = self.known.get(name)
        if known is not None and not known.pending:
            self._write(name, known.rule, known.text)
        self._ask(asker)

    @rule(name=documents, given=rules, asker=people)
    def come_late(self, name: str, given: AccessRule, asker: str) -> None:
        """What a source said before the last change, and a slow run brings only now: it changes nothing."""
        if name in self.former and name in self.known:
            self._write(name, given, "The password of long ago.", seen_at=self.former[name] - 1_000)
        self._ask(asker)

    @rule(name=documents, asker=people)
    def delete(self, name: str, asker: str) -> None:
        if self.known.pop(name, None) is not None:
            document = self._ref(name, AccessRule()).document_id
            self.service.ledger.delete([document])
            sweep(self.service.ledger, self.service.store, [document])
        self._ask(asker)

    @rule(name=documents, asker=people)
    def die_while_deleting(self, name: str, asker: str) -> None:
        """The ledger says that it is gone, and the rows are still there."""
        if self.known.pop(name, None) is not None:
            self.service.ledger.delete([self._ref(name, AccessRule()).document_id])
        self._restart(asker)

    @rule(name=documents, given=rules, asker=people)
    def die_while_writing(self, name: str, given: AccessRule, asker: str) -> None:
        """Rows of a version that never became live."""
        ref = self._ref(name, given)
        known = self.known.get(name)
        if known is None:
            return
        (version,) = self.service.ledger.begin_versions([NewVersion(replace(ref, rule=known.rule), "hash", 1)], "run")
        self.service.write_rows(ref, version, "The password that was never published.")
        self._restart(asker)

    # ---- rights

    @rule(name=documents, given=rules, asker=people)
    def change(self, name: str, given: AccessRule, asker: str) -> None:
        if name in self.known:
            self._change(name, given)
        self._ask(asker)

    @rule(name=documents, who=names, asker=people)
    def grant(self, name: str, who: str, asker: str) -> None:
        if name in self.known:
            held = self.known[name].rule
            self._change(name, replace(held, allow=held.allow | {who}, deny=held.deny - {who}))
        self._ask(asker)

    @rule(name=documents, who=names)
    def revoke(self, name: str, who: str) -> None:
        if name in self.known:
            held = self.known[name].rule
            self._change(name, replace(held, allow=held.allow - {who}))
        for asker in PEOPLE:
            self._ask(asker)

    @rule(name=documents, who=names)
    def deny(self, name: str, who: str) -> None:
        if name in self.known:
            held = self.known[name].rule
            self._change(name, replace(held, deny=held.deny | {who}))
        for asker in PEOPLE:
            self._ask(asker)

    @rule(name=documents, label=labels, asker=people)
    def relabel(self, name: str, label: Label, asker: str) -> None:
        if name in self.known:
            self._change(name, replace(self.known[name].rule, label=label))
        self._ask(asker)

    @rule(name=documents, given=rules, asker=people)
    def die_while_changing(self, name: str, given: AccessRule, asker: str) -> None:
        """The ledger has the new rule, the rows carry the old one."""
        if name in self.known:
            self.service.ledger.set_rule(self._ref(name, given).document_id, given)
            self.known[name] = replace(self.known[name], rule=given, pending=True)
        self._restart(asker)

    @rule(asker=people)
    def repair(self, asker: str) -> None:
        """What the next listing does first."""
        source = self.service.ledger.source_id(self.tenant, "life", "mem:")
        for rows in self.service.ledger.unwritten_rules(source):
            repoint(rows, self.service.ledger, self.service.store)
        self.known = {name: replace(known, pending=False) for name, known in self.known.items()}
        sweep(self.service.ledger, self.service.store)
        self._ask(asker)

    # ---- people

    @rule(group=groups, member=st.sampled_from([*(f"user:{p}" for p in PEOPLE), *(f"group:{g}" for g in GROUPS)]))
    def join(self, group: str, member: str) -> None:
        if member != f"group:{group}":
            self._set_members(self.members | {(member, group)})
        for asker in PEOPLE:
            self._ask(asker)

    @rule(group=groups, member=st.sampled_from([*(f"user:{p}" for p in PEOPLE), *(f"group:{g}" for g in GROUPS)]))
    def leave(self, group: str, member: str) -> None:
        self._set_members(self.members - {(member, group)})
        for asker in PEOPLE:
            self._ask(asker)

    @rule(person=people)
    def rename(self, person: str) -> None:
        """Another name, or the first one again: rights go by the name that the token says."""
        self.subjects[person] = person if self.subjects[person] != person else f"{person}-married"
        self._ask(person)

    @rule(person=people)
    def disable(self, person: str) -> None:
        subject = self.subjects[person]
        self.service.ledger.revocations.disable(self.tenant, subject, "test")
        self.disabled.add(subject)
        self.service.forget_revocations()
        self._ask(person)

    @rule(person=people)
    def enable(self, person: str) -> None:
        subject = self.subjects[person]
        # A minute ago, since what was issued up to that moment, give or take the leeway, stays revoked.
        RevocationList(self.service.ledger._database, lambda: time.time() - 60).enable(self.tenant, subject, "test")
        self.disabled.discard(subject)
        self.service.forget_revocations()
        self._ask(person)

    # ---- processes

    @rule(asker=people)
    def restart(self, asker: str) -> None:
        self._restart(asker)

    @rule(asker=people, mode=st.sampled_from(["hybrid", "dense", "keyword", "auto"]))
    def ask(self, asker: str, mode: str) -> None:
        self._ask(asker, mode)

    @rule(asker=people)
    def whole_answer(self, asker: str) -> None:
        """An answer by a model that tells all it was shown."""
        self.service.writes(obedient=True)
        token = self._token(asker, Label.RESTRICTED)
        answer = self.service.call("POST", "/v1/query", token, json={"question": QUESTION})
        if self.subjects[asker] in self.disabled:
            assert answer.status_code == 401
            return
        assert answer.status_code == 200
        for name, known in self.known.items():
            assert self._may(asker, known, Label.RESTRICTED) or known.text not in answer.text, name

    # ---- the middle

    def _ask(self, asker: str, mode: str = "dense") -> None:
        type(self).steps += 1
        for clearance in (Label.RESTRICTED, Label.INTERNAL):
            token = self._token(asker, clearance)
            if self.subjects[asker] in self.disabled:
                answer = self.service.call("POST", "/v1/retrieve", token, json={"question": QUESTION})
                assert answer.status_code == 401
                return
            caller = self.service.principal(token)
            hits = self.service.run(self.service.retrieval.search(caller, Search(QUESTION, 50, mode))).hits
            shown = {hit.external_id: hit.text for hit in hits}
            may = {name: known for name, known in self.known.items() if self._may(asker, known, clearance)}
            assert len(shown) == len(hits), "two versions at once"
            assert shown.items() <= {name: known.text for name, known in may.items()}.items()
            assert shown.keys() >= {name for name, known in may.items() if not known.pending}
            listed = {record.external_id for record in self.service.ledger.list(caller, 100)}
            assert listed == may.keys()

    def _may(self, asker: str, known: Known, clearance: Label) -> bool:
        held, waiting = set[str](), [f"user:{self.subjects[asker]}"]
        while waiting:
            member = waiting.pop()
            above = {f"group:{group}" for one, group in self.members if one == member} - held
            held |= above
            waiting += above
        mine = held | {"everyone", f"user:{self.subjects[asker]}", "role:user"}
        return bool(mine & known.rule.allow) and not mine & known.rule.deny and known.rule.label <= clearance

    def _change(self, name: str, given: AccessRule) -> None:
        document = self._ref(name, given).document_id
        known = self.known[name]
        change_rights(document, given, self.service.ledger, self.service.store)
        # A rule that is the ledger's already moves no row: one that was left behind still is.
        pending = known.pending and given == known.rule
        self.known[name] = replace(known, rule=given, pending=pending)

    def _write(self, name: str, given: AccessRule, text: str, **changed: Any) -> DocumentRef:
        ref = replace(self._ref(name, given), **changed)
        self.service.write([ref], [text])
        return ref

    def _ref(self, name: str, given: AccessRule) -> DocumentRef:
        return DocumentRef(self.tenant, "life", name, f"mem:{name}", name, "1", given)

    def _set_members(self, members: set[tuple[str, str]]) -> None:
        self.members = members
        edges = [Membership(member, group) for member, group in members]
        self.service.ledger.groups.replace(self.tenant, "test", edges)

    def _token(self, asker: str, clearance: Label) -> str:
        return self.service.token(self.subjects[asker], self.tenant, ["user", f"cleared-{clearance.word}"])

    def _restart(self, asker: str) -> None:
        """Another process: nothing is remembered, and new connections to the ledger and to the store."""
        self.service.restart()
        self._ask(asker)


def test_the_next_question_after_any_change_is_answered_by_it(
    service: Service, count: Callable[[str, int, int], None]
) -> None:
    Histories.service, Histories.steps, Histories.runs = service, 0, 0
    wanted = settings(
        max_examples=sizes().runs,
        stateful_step_count=sizes().steps,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    hypothesis.seed(seed())(Histories)
    try:
        run_state_machine_as_test(Histories, settings=wanted)
    except BaseException:
        count("histories: questions after a change", Histories.steps, 1)
        raise
    count("histories: questions after a change", Histories.steps, 0)
    count("histories: runs", Histories.runs, 0)
    assert Histories.runs >= sizes().runs
