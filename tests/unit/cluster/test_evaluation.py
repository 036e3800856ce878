"""Collections in BEIR's layout: how they are read, staged for ingestion and measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.evaluation import (
    Dataset,
    bulk_rows,
    extensions,
    judged_id,
    measure,
    ranking,
    read_dataset,
    stage,
    table,
)
from ingest.acl_file import AclFile
from ingest.connector import Entry
from ingest.place import place_settings
from ingest.sources import open_connector
from policies.access import NOBODY
from policies.errors import InvalidRequest

QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t0\n"


def collection(folder: Path, qrels: str = QRELS, corpus: list[dict[str, Any]] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "qrels.tsv").write_text(qrels)
    queries = [{"_id": f"q{n}", "text": f"question {n}", "metadata": {}} for n in (1, 2, 3)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    rows = corpus or [{"_id": "d1", "title": "A title", "text": "some text"}]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def with_files(folder: Path, *names: str) -> Path:
    collection(folder)
    for name in names:
        path = folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text")
    return folder


def listed(place) -> list[Entry]:
    connector = open_connector(place_settings(str(place), "t", "s", NOBODY))
    return [item for item in connector.list(None) if isinstance(item, Entry)]


def test_only_questions_with_a_relevant_document_are_asked(tmp_path: Path) -> None:
    dataset = read_dataset(collection(tmp_path / "Set One"))

    assert dataset.questions == {"q1": "question 1"}
    assert dataset.judgements == {"q1": {"d1": 1}}
    assert dataset.tenant == "eval-set-one"


def test_beirs_own_place_of_the_judgements_is_found(tmp_path: Path) -> None:
    folder = collection(tmp_path)
    (folder / "qrels").mkdir()
    (folder / "qrels.tsv").rename(folder / "qrels" / "test.tsv")

    assert read_dataset(folder).judgements == {"q1": {"d1": 1}}


@pytest.mark.parametrize(
    ("qrels", "says"),
    [
        ("q1 d1 1\n", "line 1: must be question, document, whole grade"),
        ("query-id\tcorpus-id\tscore\nq1\td1\thigh\n", "line 2: must be"),
        ("query-id\tcorpus-id\tscore\n", "no question of queries.jsonl has a relevant document"),
        ("q9\td1\t1\n", "no question of queries.jsonl has a relevant document"),
    ],
)
def test_a_broken_collection_says_what_is_wrong(qrels: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read_dataset(collection(tmp_path, qrels))


def test_a_folder_without_documents_is_refused(tmp_path: Path) -> None:
    collection(tmp_path)
    (tmp_path / "corpus.jsonl").unlink()

    with pytest.raises(InvalidRequest, match=r"neither corpus\.jsonl nor files/"):
        read_dataset(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    collection(tmp_path)
    (tmp_path / "queries.jsonl").unlink()

    with pytest.raises(InvalidRequest, match=r"queries\.jsonl: No such file"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"_id": "a", "title": "T", "text": "x", "metadata": {}}, [{"id": "a", "title": "T", "text": "x"}]),
        ({"_id": "a", "title": "", "text": "x"}, [{"id": "a", "text": "x"}]),
        ({"_id": 7, "text": "x"}, [{"id": "7", "text": "x"}]),
        ({"_id": "a", "title": "T", "text": " "}, [{"id": "a", "text": "T"}]),
        ({"_id": "a", "title": None, "text": ""}, []),
    ],
)
def test_corpus_rows_become_rows_of_bulk_ingestion(row: dict[str, Any], expected: list[dict[str, str]]) -> None:
    assert list(bulk_rows([row])) == expected


def test_bulk_ingestion_takes_the_staged_rows(tmp_path: Path) -> None:
    corpus = [{"_id": "d1", "title": "A", "text": "x", "url": "…"}, {"_id": "d2", "text": "y"}]
    staged = stage(read_dataset(collection(tmp_path / "set", corpus=corpus)), tmp_path / "room")

    entries = listed(staged)

    assert [(entry.ref.external_id, entry.error) for entry in entries] == [("d1", None), ("d2", None)]


def test_staged_files_can_be_read_by_their_formats_group_only(tmp_path: Path) -> None:
    folder = with_files(tmp_path / "set", "a/pdf/One.pdf", "a/md/One.md", "top.MD")
    staged = stage(read_dataset(folder), tmp_path / "room")

    rules = {entry.ref.external_id: entry.ref.rule.allow for entry in listed(staged)}

    assert rules == {
        "a/pdf/One.pdf": frozenset({"group:format-pdf"}),
        "a/md/One.md": frozenset({"group:format-md"}),
        "top.MD": frozenset({"group:format-md"}),
    }
    assert extensions(folder / "files") == ["MD", "md", "pdf"]
    assert AclFile.parse((staged / "acl.yaml").read_bytes()).entries


def test_staging_again_removes_what_is_gone(tmp_path: Path) -> None:
    folder = with_files(tmp_path / "set", "a/One.pdf", "a/Two.pdf")
    stage(read_dataset(folder), tmp_path / "room")
    (folder / "files" / "a" / "Two.pdf").unlink()

    staged = stage(read_dataset(folder), tmp_path / "room")

    assert sorted(path.name for path in staged.rglob("*") if path.is_file()) == ["One.pdf", "acl.yaml"]


@pytest.mark.parametrize(
    ("external_id", "expected"),
    [
        ("31715818", "31715818"),
        ("doc.v2", "doc.v2"),
        ("ZX Bank/pdf/Awards & Recognitions.pdf", "ZX Bank/Awards & Recognitions"),
        ("ZX Bank/notes/Awards.pdf", "ZX Bank/notes/Awards"),
        ("top.md", "top"),
    ],
)
def test_a_document_is_found_under_the_judges_name(external_id: str, expected: str) -> None:
    assert judged_id(external_id, {"31715818", "doc.v2", "ZX Bank/Awards & Recognitions"}) == expected


def test_a_document_ranks_where_its_best_passage_is() -> None:
    assert ranking(["b", "a", "b", "c", "a"], {"a", "b", "c"}) == ["b", "a", "c"]


def test_formats_of_one_document_are_one_document() -> None:
    assert ranking(["t/pdf/A.pdf", "t/md/A.md", "t/md/B.md"], {"t/A", "t/B"}) == ["t/A", "t/B"]


def test_measures_are_means_over_all_judged_questions() -> None:
    judgements = {"q1": {"a": 1}, "q2": {"b": 1}, "q3": {"c": 1, "d": 1}, "q4": {"e": 1}}
    rankings = {"q1": ["a"], "q2": ["x", "b"], "q3": ["x", "y", "z", "u", "v", "c"], "q4": list[str]()}

    found = measure(judgements, rankings)

    assert found["Recall@5"] == pytest.approx((1 + 1 + 0 + 0) / 4, abs=1e-4)
    assert found["Recall@10"] == pytest.approx((1 + 1 + 0.5 + 0) / 4, abs=1e-4)
    assert found["MRR"] == pytest.approx((1 + 1 / 2 + 1 / 6 + 0) / 4, abs=1e-4)
    ideal = 1 + 1 / 1.584962500721156
    assert found["nDCG@10"] == pytest.approx(
        (1 + 1 / 1.584962500721156 + (1 / 2.807354922057604) / ideal) / 4, abs=1e-4
    )


def test_the_table_has_a_row_for_each_format() -> None:
    measures = {"nDCG@10": 0.5, "Recall@5": 0.25, "Recall@10": 0.75, "MRR": 1.0}
    rows = table({"dataset": "set", "questions": 9, "measures": measures, "by_extension": {"pdf": measures}})

    assert rows == [(name, "9", "0.500", "0.250", "0.750", "1.000") for name in ("set", "pdf")]


def test_a_data_sets_name_is_always_one_a_tenant_may_have() -> None:
    assert Dataset(Path("/x/…"), {}, {}, files=False).tenant == "eval-dataset"
