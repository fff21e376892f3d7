"""The page: one HTML file with its pictures inside, for the screen and for paper.

Every text that comes from data is escaped.
"""

import string
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Section", "heat_table", "legend", "notes", "page", "picture", "table", "tiles", "verdict"]


class Section(NamedTuple):
    """A heading, a sentence on how to read what follows, and HTML."""

    title: str
    text: str
    body: str


_PAGE = string.Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))


def page(title: str, lead: str, top: str, sections: Iterable[Section], footer: str) -> str:
    """The whole page.

    Parameters
    ----------
    title, lead, footer
        Texts; escaped here.
    top
        HTML that everybody sees first, from :func:`verdict` and :func:`tiles`.
    sections
        Their titles and texts are escaped here, their bodies are HTML from the functions below.
    """
    parts = [f"<section><h2>{escape(s.title)}</h2><p>{escape(s.text)}</p>{s.body}</section>" for s in sections]
    return _PAGE.substitute(
        title=escape(title), lead=escape(lead), top=top, sections="\n".join(parts), footer=escape(footer)
    )


def verdict(grade: str, sentence: str, answers: Iterable[tuple[str, str, str, str]]) -> str:
    """What to think of it, on top: one sentence, and question by question the grade, the finding and what to do.

    Parameters
    ----------
    grade, sentence
        Of the whole.
    answers
        Question, grade, finding, action (may be empty).
    """
    rows = []
    for question, one, finding, action in answers:
        todo = f'<p class="todo">{escape(action)}</p>' if action else ""
        said = f"<p>{escape(finding)}</p>{todo}"
        rows.append(f'<li class="{escape(one)}"><b>{escape(question)}</b> <i>{escape(one)}</i>{said}</li>')
    head = f'<p class="sentence">{escape(sentence)}</p>'
    return f'<section class="verdict {escape(grade)}">{head}<ul>{"".join(rows)}</ul></section>'


def tiles(figures: Mapping[str, str]) -> str:
    """The few figures that everybody looks for first."""
    cells = [f'<div class="tile"><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>' for k, v in figures.items()]
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def picture(data_uri: str, description: str, caption: str = "", below: str = "") -> str:
    """A picture with what it shows in words, for those who cannot see it; ``below`` is HTML."""
    title = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure>{title}<img src="{escape(data_uri)}" alt="{escape(description)}">{below}</figure>'


def legend(colour_by_name: Mapping[str, str]) -> str:
    """Colours of groups by name."""
    rows = [f'<li><i style="background:{escape(c)}"></i>{escape(name)}</li>' for name, c in colour_by_name.items()]
    return f'<ul class="legend">{"".join(rows)}</ul>'


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table; the first cell of each row is its name."""
    titles = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{escape(str(first))}</th>{"".join(f"<td>{escape(str(v))}</td>" for v in rest)}</tr>'
        for first, *rest in rows
    )
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def heat_table(head: Sequence[str], rows: Iterable[tuple[str, Iterable[float], Iterable[str]]]) -> str:
    """A table whose fields are shaded.

    Parameters
    ----------
    head
        Names of the columns, the one of the rows' names first.
    rows
        Name, shades between 0 (white) and 1 (dark), and texts of each row.
    """
    titles = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(map(_field, shades, texts))}</tr>'
        for name, shades, texts in rows
    )
    return f'<div class="heat"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def _field(shade: float, text: str) -> str:
    ink = "#fff" if shade > 0.55 else "inherit"  # dark enough to be read on either
    return f'<td style="background:rgba(36,99,168,{shade:.2f});color:{ink}">{escape(text)}</td>'


def notes(findings: Iterable[tuple[str, str, str]]) -> str:
    """Findings as (severity, what, what to do)."""
    rows = [
        f'<li class="{escape(severity)}"><b>{escape(severity)}</b>{escape(message)} {escape(fix)}</li>'
        for severity, message, fix in findings
    ]
    return f'<ul class="notes">{"".join(rows)}</ul>'
