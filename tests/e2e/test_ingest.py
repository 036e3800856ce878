"""Bulk ingestion by `ray job submit`: its report, its second run, and bad input that hurts only itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ROOT / "examples" / "documents"


def invariant(report):
    return report["discovered"] == report["indexed"] + report["unchanged"] + report["quarantined"]


def test_the_second_run_embeds_nothing(company):
    report = company.ingest(DOCUMENTS, "tarnfell")
    assert (report["indexed"], report["embedded"], report["deleted"]) == (0, 0, 0)
    assert report["unchanged"] == report["discovered"] > 30


def test_bad_files_are_quarantined_with_a_reason_and_their_neighbours_indexed(service, tmp_path):
    (tmp_path / "good.md").write_text("# Good\n\nThe heron counts the fish at dawn.")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4\nnothing follows")
    (tmp_path / "tool.exe").write_bytes(b"MZ" + bytes(range(256)) * 20)
    (tmp_path / "latin.txt").write_bytes("Die Brücke über die Spree wurde 1909 eröffnet.".encode("latin-1"))
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"id": "a", "text": "Row a tells of otters."}) + "\n{broken\n" + json.dumps({"id": "b"}) + "\n"
    )
    with (tmp_path / "huge.txt").open("wb") as huge:
        huge.truncate(1_000_000_000)
    report = service.ingest(tmp_path, "badinput", "everyone")
    reasons = {error["uri"].rsplit("/", 1)[-1]: error["reason"] for error in report["errors"]}
    assert invariant(report) and report["indexed"] == 3, report
    assert {"empty.txt", "broken.pdf", "tool.exe", "huge.txt"} <= set(reasons) and all(reasons.values())
    reader = service.token("reader", tenant="badinput")
    assert "heron" in service.retrieve(reader, "heron fish dawn")[0]["text"]
    assert "Brücke" in service.retrieve(reader, "Brücke Spree")[0]["text"]
    assert "otters" in service.retrieve(reader, "otters")[0]["text"]


def test_edit_rename_delete_and_rights_arrive_without_needless_embedding(service, tmp_path):
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.md").write_text(f"# About {name}\n\nNumber {name} is the favourite of the river warden.")
    tenant = "changes"
    assert service.sync(tmp_path, tenant, "everyone")["embedded"] == 3
    reader = service.token("reader", tenant=tenant)

    (tmp_path / "one.md").rename(tmp_path / "uno.md")
    moved = service.sync(tmp_path, tenant, "everyone")
    assert (moved["indexed"], moved["deleted"], moved["embedded"]) == (1, 1, 0)

    (tmp_path / "two.md").write_text("# About two\n\nNumber two fell out of favour.")
    (tmp_path / "three.md").unlink()
    changed = service.sync(tmp_path, tenant, "everyone")
    assert (changed["indexed"], changed["deleted"], changed["embedded"]) == (1, 1, 1)
    found = " ".join(hit["text"] for hit in service.retrieve(reader, "river warden favourite number"))
    assert "fell out of favour" in found and "three" not in found and found.count("favourite") == 1

    revoked = service.sync(tmp_path, tenant, "user:somebody-else")
    assert (revoked["embedded"], revoked["indexed"]) == (0, 2)
    assert service.retrieve(reader, "river warden") == []
    assert service.retrieve(service.token("somebody-else", tenant=tenant), "river warden") != []


def test_a_source_that_is_not_there_fails_the_job_and_deletes_nothing(service, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "kept.md").write_text("# Kept\n\nThe lamp of the lighthouse turns twice a minute.")
    service.sync(source, "vanishing", "everyone")
    shutil.move(source, tmp_path / "elsewhere")
    job = service.job(source, "vanishing", "everyone")
    output, _ = job.communicate(timeout=120)
    assert job.returncode != 0 and "ingest: " in output and "Traceback" not in output.split("ingest: ")[-1]
    assert service.retrieve(service.token("reader", tenant="vanishing"), "lighthouse lamp") != []


def test_a_broken_acl_file_stops_the_run(service, tmp_path):
    (tmp_path / "a.md").write_text("# A\n\nSomething.")
    (tmp_path / "acl.yaml").write_text("- path: '*'\n  alow: [everyone]\n")
    done = service.run_in_one_process(tmp_path, "brokenacl", "everyone")
    assert done.returncode != 0 and "acl.yaml" in done.stderr
