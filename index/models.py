"""Which embedding models the index holds: a fact of the ledger's database, and of no file.

    (first start) ──▶ live ◀──promote── filling ◀──begin── (a reindex)
                        │ ▲                │
            promote,    ▼ │ rollback       │ abandon
            rollback  previous ──drop──▶ dropping ──▶ (gone)

Questions are answered by the live model alone. Whatever is written is written for every model that is held, so that a
promotion shows all and a rollback loses nothing.

A model's rows can be rewritten into another collection, its next generation, so that nothing of what was deleted stays
on the disk (`ingest.purge`): both are held and written for meanwhile, as if they were two models.

That nothing can slip between rests on one order. A writer reads `held` after its version is begun in the ledger (after
its rule, its deletion is recorded there), and before it touches a row. So a writer that did not see a model had begun
before `begin` was committed: what it made live is there to be copied, or its version is among those that were being
written then (`index.live_versions`), and filling waits for these.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Column, Double, Integer, MetaData, String, Table, Text, select
from sqlalchemy.engine import Connection

from index.database import Database
from index.embedding import identify
from index.ledger_schema import PRAGMAS
from index.settings import AppArgs, EmbeddingSettings
from index.vectors import SCHEMA_VERSION
from policies.errors import ConfigurationError, Conflict, NotFound

State = Literal["live", "filling", "previous", "dropping"]
LIVE: State = "live"
FILLING: State = "filling"
PREVIOUS: State = "previous"
DROPPING: State = "dropping"
VERSION = 2
UPGRADES = {
    1: (
        "ALTER TABLE models ADD COLUMN generation INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE models ADD COLUMN next_generation INTEGER",
    )
}
MAKES_THE_MODEL = frozenset({"model", "sha256", "max_tokens", "query_prefix", "passage_prefix"})
"""Settings that belong to the model; all others (threads, batches, …) are the configuration's alone."""
_SWAPPING = "swapping"  # only within a transaction

metadata = MetaData()
models = Table(
    "models",
    metadata,
    Column("model_id", String(80), primary_key=True),
    # Unique: there is at most one live model, and at most one of each other kind.
    Column("state", String(8), nullable=False, unique=True),
    Column("dim", Integer, nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("settings", Text, nullable=False),
    Column("configured", Text, nullable=False),  # what the configuration said when this model became live
    Column("started_at", Double, nullable=False),
    Column("filled_at", Double),  # null: not known to hold all that is live
    Column("live_at", Double),
    Column("comparison", Text),
    Column("generation", Integer, nullable=False, server_default="0"),  # of the collection that holds its rows
    Column("next_generation", Integer),  # of the one that they are being rewritten into
)


@dataclass(frozen=True, slots=True)
class HeldModel:
    """A model that the index holds. Times are Unix seconds; `comparison` is what a reindex measured."""

    model_id: str
    state: State
    dim: int
    schema_version: int
    settings: Mapping[str, Any]
    configured: Mapping[str, Any]
    started_at: float
    filled_at: float | None
    live_at: float | None
    comparison: Mapping[str, Any] | None
    generation: int = 0
    next_generation: int | None = None

    @property
    def place(self) -> tuple[str, int]:
        """Names the collection."""
        return self.model_id, self.generation

    @property
    def rewritten(self) -> HeldModel | None:
        """Give the same model in the collection that its rows are being rewritten into: it is being filled."""
        if self.next_generation is None:
            return None
        return replace(self, state=FILLING, generation=self.next_generation, next_generation=None)

    def applied_to(self, configured: EmbeddingSettings) -> EmbeddingSettings:
        """Give the settings to load this model with: its own, and the configuration's for the rest."""
        return configured.model_copy(update=dict(self.settings))

    @property
    def name(self) -> str:
        """What an operator calls it: its directory."""
        return _name(self.settings)


class Models:
    """The models of the index, beside the ledger at an SQLAlchemy URL. Safe to use from many threads and processes.

    Nothing is cached. Every method raises `Unavailable` when the database does not answer.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url, metadata, "models", VERSION, PRAGMAS, UPGRADES)

    def held(self) -> tuple[HeldModel, ...]:
        """Give the models that rows are written for, the live one first: at most two, and each twice at most.

        Twice while its rows are rewritten: then the second is `rewritten`.
        """
        rows = select(models).where(models.c.state != DROPPING)
        found = [_held(row) for row in self._database.read(lambda connection: connection.execute(rows).all())]
        found.sort(key=lambda model: model.state != LIVE)
        return tuple(each for model in found for each in (model, model.rewritten) if each is not None)

    def live(self) -> HeldModel:
        """Give the model that answers questions. Raises `NotFound` before the first start (see `settle`)."""
        found = self.find(LIVE)
        if found is None:
            raise NotFound("the index holds no embedding model yet")
        return found

    def find(self, state: State) -> HeldModel | None:
        """Give the model in this state, if there is one."""
        rows = select(models).where(models.c.state == state)
        row = self._database.read(lambda connection: connection.execute(rows).one_or_none())
        return None if row is None else _held(row)

    def all(self) -> tuple[HeldModel, ...]:
        """Give every model, also one whose rows are being removed."""
        rows = select(models).order_by(models.c.started_at)
        return tuple(_held(row) for row in self._database.read(lambda connection: connection.execute(rows).all()))

    def get(self, model_id: str) -> HeldModel | None:
        """Give a model in whatever state it is."""
        rows = select(models).where(models.c.model_id == model_id)
        row = self._database.read(lambda connection: connection.execute(rows).one_or_none())
        return None if row is None else _held(row)

    def settle(self, configured: EmbeddingSettings) -> HeldModel:
        """Give the live model; where there is none yet, it is the configuration's from now on.

        The configuration may go on naming the model that it named when the live one was promoted (`is_behind`).
        Raises `ConfigurationError` where it names any other: that would be an empty index.
        """
        live = self.find(LIVE)
        if live is None:
            self._register(configured)
            live = self.live()
        if live.schema_version != SCHEMA_VERSION:
            raise ConfigurationError(
                f"the index's rows have schema {live.schema_version}, this program writes {SCHEMA_VERSION}: "
                "run the program that wrote them, or ingest into a new data directory"
            )
        said = _told(configured)
        if said in (live.settings, live.configured):
            agreed = live.settings
        elif identify(configured).model_id == live.model_id:
            agreed = said  # the same model, moved, or with another prefix for questions
        else:
            raise ConfigurationError(
                f"the index holds the embedding model {live.name} ({live.model_id}), but the configuration names "
                f"{_name(said)}: put the old one back in args.embedding, and to change it run "
                f"rayrag reindex --model {configured.model or 'DIR'} while the service runs"
            )
        if said == agreed and live.configured != said:
            self._update(live.model_id, settings=_json(agreed), configured=_json(said))
            return self.live()
        return live

    # ---- a change of model

    def begin(self, configured: EmbeddingSettings, wanted: EmbeddingSettings) -> HeldModel:
        """Hold `wanted` as well, to be filled; a model that is being filled already goes on.

        Raises `Conflict` where it is live already, or while the index holds another model beside the live one, and
        `ConfigurationError` as `identify`.
        """
        identity = identify(wanted)
        row: dict[str, Any] = {
            "model_id": identity.model_id,
            "state": FILLING,
            "dim": identity.dim,
            "schema_version": SCHEMA_VERSION,
            "settings": _json(_told(wanted)),
            "configured": _json(_told(configured)),
            "started_at": time.time(),
        }

        def work(connection: Connection) -> None:
            states = self._locked(connection)
            if states.get(identity.model_id) == LIVE:
                raise Conflict(f"{identity.model_id} is the live model already")
            if states.get(identity.model_id) == FILLING:
                again = {key: row[key] for key in ("settings", "configured")}
                connection.execute(models.update().where(models.c.model_id == identity.model_id).values(**again))
                return
            for model_id, state in states.items():
                if state == FILLING:
                    raise Conflict(f"{model_id} is being filled: finish it, or give it up with --abandon")
                if state == PREVIOUS:
                    raise Conflict(f"{model_id} is kept for a rollback: go back with --rollback, or --drop-previous")
                if state == DROPPING:
                    raise Conflict(f"{model_id} is being dropped: finish that with --drop-previous")
            connection.execute(models.insert().values(**row))

        self._database.write(work)
        found = self.get(identity.model_id)
        assert found is not None, "it was just written"
        return found

    def filled(self, model_id: str) -> None:
        """Record that a pass over all that is live found nothing missing from a model's rows."""
        self._update(model_id, filled_at=time.time())

    def compared(self, model_id: str, comparison: Mapping[str, Any]) -> None:
        """Keep what a comparison with the live model gave."""
        self._update(model_id, comparison=_json(comparison))

    def promote(self, configured: EmbeddingSettings) -> HeldModel:
        """Make the filled model the live one, and the live one the previous. One transaction.

        Raises `Conflict` when no model is being filled, or it was never found whole.
        """

        def work(connection: Connection) -> None:
            states = self._locked(connection)
            filling = next((model_id for model_id, state in states.items() if state == FILLING), None)
            if filling is None:
                raise Conflict("no model is being filled: name one with --model")
            if connection.scalar(select(models.c.filled_at).where(models.c.model_id == filling)) is None:
                raise Conflict(f"{filling} does not hold all documents yet: run rayrag reindex --model again")
            self._turn_live(connection, filling, states, configured)

        self._database.write(work)
        return self.live()

    def rollback(self, configured: EmbeddingSettings) -> HeldModel:
        """Make the previous model the live one again, and the live one the previous. One transaction.

        Raises `Conflict` when there is none.
        """

        def work(connection: Connection) -> None:
            states = self._locked(connection)
            previous = next((model_id for model_id, state in states.items() if state == PREVIOUS), None)
            if previous is None:
                raise Conflict("no previous model is kept")
            self._turn_live(connection, previous, states, configured)

        self._database.write(work)
        return self.live()

    def begin_drop(self, state: State) -> HeldModel:
        """Write for the model in this state no longer, for its rows are to go; gives it, also after a crash.

        Raises `Conflict` for the live model and when there is none.
        """

        def work(connection: Connection) -> None:
            states = self._locked(connection)
            if state in states.values() and DROPPING not in states.values():
                connection.execute(models.update().where(models.c.state == state).values(state=DROPPING))

        if state not in (PREVIOUS, FILLING):
            raise Conflict("the live model is not dropped")
        self._database.write(work)
        found = self.find(DROPPING)
        if found is None:
            raise Conflict("no previous model is kept" if state == PREVIOUS else "no model is being filled")
        return found

    def forget(self, model_id: str) -> None:
        """Forget a model whose rows and cached vectors are gone."""
        gone = models.delete().where(models.c.model_id == model_id, models.c.state == DROPPING)
        self._database.write(lambda connection: connection.execute(gone))

    # ---- a rewriting of a model's rows

    def begin_rewriting(self, model_id: str) -> HeldModel:
        """Hold another collection of the same model as well, to be filled; one that is being filled goes on.

        Gives the model in that collection. Raises `Conflict` for a model that is not held, or is being filled itself.
        """

        def work(connection: Connection) -> None:
            state = self._locked(connection).get(model_id)
            if state is None or state in (FILLING, DROPPING):
                raise Conflict(
                    f"{model_id} is {'being filled' if state == FILLING else 'not held'}: finish the reindex first"
                )
            here = models.c.model_id == model_id, models.c.next_generation.is_(None)
            connection.execute(models.update().where(*here).values(next_generation=models.c.generation + 1))

        self._database.write(work)
        found = self.get(model_id)
        rewritten = None if found is None else found.rewritten
        assert rewritten is not None, "it was just written"
        return rewritten

    def end_rewriting(self, model_id: str) -> HeldModel:
        """Let the rewritten collection be the model's, and hold the former one no longer. One transaction."""
        here = models.c.model_id == model_id, models.c.next_generation.is_not(None)
        change = models.update().where(*here).values(generation=models.c.next_generation, next_generation=None)
        self._database.write(lambda connection: connection.execute(change))
        found = self.get(model_id)
        if found is None:
            raise NotFound(f"the index holds no embedding model {model_id}")
        return found

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._database.dispose()

    def _register(self, configured: EmbeddingSettings) -> None:
        identity = identify(configured)
        now = time.time()
        row = self._database.insert(models).values(
            model_id=identity.model_id,
            state=LIVE,
            dim=identity.dim,
            schema_version=SCHEMA_VERSION,
            settings=_json(_told(configured)),
            configured=_json(_told(configured)),
            started_at=now,
            filled_at=now,
            live_at=now,
        )
        self._database.write(lambda connection: connection.execute(row.on_conflict_do_nothing()))

    def _locked(self, connection: Connection) -> dict[str, str]:
        """Give each model's state, and hold them all: changes of models happen one by one."""
        rows = select(models.c.model_id, models.c.state).order_by(models.c.model_id).with_for_update()
        return {row.model_id: row.state for row in connection.execute(rows)}

    def _turn_live(
        self, connection: Connection, model_id: str, states: Mapping[str, str], configured: EmbeddingSettings
    ) -> None:
        former = next(each for each, state in states.items() if state == LIVE)
        for each, state in ((model_id, _SWAPPING), (former, PREVIOUS), (model_id, LIVE)):
            connection.execute(models.update().where(models.c.model_id == each).values(state=state))
        changes = {"live_at": time.time(), "configured": _json(_told(configured))}
        connection.execute(models.update().where(models.c.model_id == model_id).values(**changes))

    def _update(self, model_id: str, **changes: Any) -> None:
        change = models.update().where(models.c.model_id == model_id).values(**changes)
        self._database.write(lambda connection: connection.execute(change))


def live_tokenizer(args: AppArgs) -> Path:
    """Find the live model's tokenizer, in whose tokens passages are measured. Raises as `Models.settle`."""
    models = Models(args.store.ledger)
    try:
        live = models.settle(args.embedding)
    finally:
        models.close()
    return identify(live.applied_to(args.embedding)).tokenizer_file


def is_behind(live: HeldModel, configured: EmbeddingSettings) -> str | None:
    """Say what to put into the configuration where it still names the model before a promotion; None: it is right."""
    if _told(configured) == live.settings:
        return None
    lines = ", ".join(f"{key}: {value}" for key, value in live.settings.items() if value not in (None, ""))
    return f"the index's live embedding model is {live.model_id}; put it into args.embedding: {{{lines}}}"


def _told(settings: EmbeddingSettings) -> dict[str, Any]:
    return settings.model_dump(include=set(MAKES_THE_MODEL))


def _name(settings: Mapping[str, Any]) -> str:
    return str(settings.get("model") or "packaged")


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _held(row: Any) -> HeldModel:
    return HeldModel(
        model_id=row.model_id,
        state=row.state,
        dim=row.dim,
        schema_version=row.schema_version,
        settings=json.loads(row.settings),
        configured=json.loads(row.configured),
        started_at=row.started_at,
        filled_at=row.filled_at,
        live_at=row.live_at,
        comparison=None if row.comparison is None else json.loads(row.comparison),
        generation=row.generation,
        next_generation=row.next_generation,
    )
