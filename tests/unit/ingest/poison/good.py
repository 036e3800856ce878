"""Good documents: the neighbours of the poison, and what hostile Office files are made from."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

import docx
import openpyxl
import pptx
from reportlab.pdfgen.canvas import Canvas


def _saved(document: Any) -> bytes:
    stream = io.BytesIO()
    document.save(stream)
    return stream.getvalue()


def word(text: str) -> bytes:
    document = docx.Document()
    document.add_paragraph(text)
    return _saved(document)


def slides(text: str) -> bytes:
    presentation = pptx.Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[1])
    slide.shapes.title.text = text
    return _saved(presentation)


def sheet(text: str) -> bytes:
    book = openpyxl.Workbook()
    book.active.append(["Note", "Number"])
    book.active.append([text, 7])
    return _saved(book)


def pdf(text: str) -> bytes:
    stream = io.BytesIO()
    canvas = Canvas(stream)
    canvas.drawString(60, 780, text)
    canvas.showPage()
    canvas.save()
    return stream.getvalue()


def mail(text: str) -> bytes:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "ada@example.org", "bob@example.org", "Herons"
    message.set_content(text)
    return message.as_bytes()


def table(text: str) -> bytes:
    stream = io.StringIO()
    csv.writer(stream).writerows([["Note", "Number"], [text, "7"]])
    return stream.getvalue().encode()


NEIGHBOURS: tuple[tuple[str, Callable[[str], bytes]], ...] = (
    ("md", lambda text: f"# Herons\n\n{text}\n".encode()),
    ("docx", word),
    ("html", lambda text: f"<!doctype html><html><body><h1>Herons</h1><p>{text}</p></body></html>".encode()),
    ("pdf", pdf),
    ("eml", mail),
    ("xlsx", sheet),
    ("txt", lambda text: text.encode("utf-16")),
    ("pptx", slides),
    ("csv", table),
)
"""Suffix, and what makes a document of that kind from a line of text."""
