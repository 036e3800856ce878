"""How well the running service ranks: `rayrag eval` over the collections that `RAYRAG_EVAL_DATA` names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bench.context import Figure, busy_share, directory, machine, save, say, service
from cluster.evaluation import evaluate

VARIABLE = "RAYRAG_EVAL_DATA"
BASELINES = {
    "scifact": 0.719,
    "cranfield": 0.397,
    "cisi": 0.460,
    "cacm": 0.540,
    "npl": 0.501,
    "musique": 0.668,
    "hotpotqa": 0.827,
    "enterprise": 0.845,
}
"""The best of dense, BM25, reciprocal rank fusion and MaxSim on top of it, nDCG@10, each of one vector a document of
the packaged model, over whole collections. A folder with a part of a collection's questions or documents gives other
figures for these, too."""


def run(names: list[str]) -> list[Figure]:
    """Measure, write `quality_http.json`, and give the table's lines; `names` narrows, none means all."""
    folders = collections(os.environ.get(VARIABLE), names)
    if not folders:
        return [Figure("quality", "nDCG@10", f"skipped: {VARIABLE} names no folder of collections", 0)]
    before, busy, results = machine(), busy_share(), dict[str, Any]()
    with directory() as home, service(home) as running:
        for folder in folders:
            say(f"quality: {folder.name}")
            results[folder.name] = evaluate(folder, running.state, running.issuer)
    save("quality_http", {"busy_share_before": busy, "sets": results, "baselines": BASELINES}, before)
    return [figure(name, result) for name, result in results.items()]


def collections(root: str | None, names: list[str]) -> list[Path]:
    """List the folders with judgements: `root` itself, or those below it."""
    if not root:
        return []
    top = Path(root)
    found = [top] if (top / "qrels.tsv").is_file() else sorted(path.parent for path in top.glob("*/qrels.tsv"))
    return [folder for folder in found if not names or folder.name in names]


def baseline(name: str) -> float | None:
    """Find the baseline of a folder: `musique100` is a part of `musique`."""
    return next((value for key, value in BASELINES.items() if name.startswith(key)), None)


def figure(name: str, result: dict[str, Any]) -> Figure:
    """Lay a collection's result out; formats of files by their Recall@5."""
    measures, least = result["measures"], baseline(name)
    text = ", ".join(f"{key} {value:.3f}" for key, value in measures.items())
    formats = result.get("by_extension", {})
    if formats:
        text += "; Recall@5 of " + ", ".join(f"{end} {row['Recall@5']:.3f}" for end, row in formats.items())
    if least is None:
        return Figure("quality", name, text, result["questions"])
    return Figure("quality", name, text, result["questions"], f"≥ {least:.3f}", measures["nDCG@10"] >= least)
