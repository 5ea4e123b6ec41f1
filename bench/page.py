"""The report of a run, from its records alone: report.html, report.md, numbers.csv and figures.

The same records give the same bytes: nothing of the moment or the place of writing is in them.
`report.html` is one file that asks for nothing else; its policy forbids it to.
"""

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.facts import Facts, gather
from bench.findings import Findings
from bench.labels import markdown
from bench.numbers import write_numbers
from bench.panels import Picture
from bench.style import paper, png
from fixedbias.text import first_of

Table = tuple[Sequence[str], Sequence[Sequence[str]]]

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #1a1a1a; background: #fff;
  max-width: 58rem; margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.45rem; line-height: 1.3; margin: .2rem 0 .8rem; }
h2 { font-size: 1.1rem; margin: 2.6rem 0 .5rem; }
.run { color: #555; font-size: .9rem; margin: 0; }
figure { margin: 0; break-inside: avoid; }
img { max-width: 100%; height: auto; }
figcaption { font-size: .88rem; max-width: 48rem; }
.source { color: #666; font-size: .78rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums; }
th, td { padding: .22rem .7rem .22rem 0; text-align: left; vertical-align: top; }
th { border-bottom: 1px solid #888; white-space: nowrap; }
td { border-bottom: 1px solid #e4e4e4; }
.facts td:first-child { white-space: nowrap; color: #555; }
.numbers td, .numbers th { white-space: nowrap; }
li { margin: .15rem 0; overflow-wrap: anywhere; }
@media print { body { margin: 0; max-width: none; font-size: 11pt; } h2 { break-after: avoid; } }
"""
_TROUBLES = 500  # that are listed
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(found: Findings) -> Path:
    """Writes `report.html`, `report.md`, `numbers.csv` and `figures/` into a run's folder.

    Older ones go.

    Args:
        found: The run.

    Returns:
        The path of `report.html`.

    Raises:
        OSError: The folder cannot be written.
    """
    # Late, so that a run can be summed up where nothing is to be drawn.
    from bench.drawings import draw

    facts, folder = gather(found), found.folder
    pictures: list[tuple[Picture, bytes]] = []
    with paper():
        for picture in draw(facts.story):
            source = "; ".join(facts.source)
            pictures.append((picture, png(picture.figure, f"{picture.title}. {source}")))
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    for old in figures.glob("*.png"):
        old.unlink()
    for picture, content in pictures:
        (figures / f"{picture.name}.png").write_bytes(content)
    # What was recorded may hold bytes that were no UTF-8.
    how = {"encoding": "utf-8", "errors": "backslashreplace", "newline": "\n"}
    (folder / "report.md").write_text(_markdown(facts, pictures), **how)
    write_numbers(found, folder / "numbers.csv")
    path = folder / "report.html"
    path.write_text(_html(facts, pictures), **how)
    return path


def _html(facts: Facts, pictures: Sequence[tuple[Picture, bytes]]) -> str:
    e = html.escape
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{e(facts.title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<p class="run">{e(facts.title)}</p>',
        f"<h1>{e(facts.headline)}</h1>",
        *(f"<p>{e(line)}</p>" for line in facts.lead),
    ]
    if facts.troubles:
        count = len(facts.troubles)
        parts.append(f'<p><a href="#flags">What to know before believing it</a> ({count})</p>')
    source = " · ".join(facts.source)
    for picture, content in pictures:
        data = base64.b64encode(content).decode("ascii")
        parts += [
            f"<h2>{e(picture.title)}</h2>",
            f'<figure id="{e(picture.name)}">',
            f'<img alt="{e(picture.title)}" src="data:image/png;base64,{data}">',
            (
                f'<figcaption>{e(picture.words)}<br><span class="source">{e(source)}</span>'
                "</figcaption></figure>"
            ),
        ]
    for title, words, (head, rows) in facts.tables:
        parts += [f"<h2>{e(title)}</h2>", f"<p>{e(words)}</p>" if words else ""]
        parts.append(_html_table(head, rows))
    parts.append('<h2 id="flags">Failed or flagged</h2>')
    parts += (
        _html_list(first_of(facts.troubles, _TROUBLES)) if facts.troubles else ["<p>Nothing.</p>"]
    )
    parts += ["<h2>How it was measured</h2>", *(f"<p>{e(text)}</p>" for text in facts.method)]
    parts += ["<h2>The machine</h2>", _html_table((), facts.machine)]
    return "\n".join(part for part in parts if part) + "\n"


def _html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f'<div class="wide"><table class="{"numbers" if head else "facts"}">']
    for tag, line in [("th", head)] * bool(head) + [("td", row) for row in rows]:
        cells = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in line)
        lines.append(f"<tr>{cells}</tr>")
    return "\n".join([*lines, "</table></div>"])


def _html_list(items: Iterable[str]) -> list[str]:
    return ["<ul>", *(f"<li>{html.escape(item)}</li>" for item in items), "</ul>"]


def _markdown(facts: Facts, pictures: Sequence[tuple[Picture, bytes]]) -> str:
    m = markdown
    parts = [f"# {m(facts.headline)}", m(facts.title), *map(m, facts.lead)]
    source = m(" · ".join(facts.source))
    for picture, _ in pictures:
        parts += [
            f"## {m(picture.title)}",
            f"![{m(picture.title)}](figures/{picture.name}.png)",
            f"{m(picture.words)}\n<sub>{source}</sub>",
        ]
    for title, words, (head, rows) in facts.tables:
        parts += [f"## {m(title)}", m(words), _markdown_table(head, rows)]
    parts.append("## Failed or flagged")
    troubles = first_of(facts.troubles, _TROUBLES)
    parts.append("\n".join(f"- {m(item)}" for item in troubles) or "Nothing.")
    parts += ["## How it was measured", *map(m, facts.method), "## The machine"]
    parts.append(_markdown_table(("", ""), facts.machine))
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head)]
    body = [[markdown(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in [*lines, *body])
