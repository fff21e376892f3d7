"""Write the tables of models in README.md and docs from the tables that ``celbo.which`` and the command line use.

``python docs/make_models.py`` rewrites them; tests/docs/test_lists.py fails when one is stale.
"""

from pathlib import Path

from celbo.choosing.table import CHOICES, GROUPS, Choice
from celbo.cli.models import MODELS
from celbo.cli.options import spelt

REPOSITORY = Path(__file__).resolve().parents[1]
COMMAND_LINE = REPOSITORY / "docs" / "command_line.md"
PAGES = (REPOSITORY / "README.md", REPOSITORY / "docs" / "models.md", COMMAND_LINE)
BEGIN, END = "<!-- models: python docs/make_models.py -->", "<!-- end of models -->"


def _row(choice: Choice, page: Path, whole: bool) -> str:
    """A line of the table, its links as seen from a page."""
    above = (REPOSITORY / "docs").relative_to(page.parent).as_posix()
    to = "" if above == "." else f"{above}/"
    if not whole:
        names = f"[{', '.join(f'`{name}`' for name in choice.names)}]({to}{choice.page})"
        return f"| {choice.head.gives} | {names} | {choice.head.reference} |"
    names = f"[{', '.join(choice.classes)}]({to}{choice.page})"
    there = choice.tutorial and (REPOSITORY / "docs" / "tutorials" / f"{choice.tutorial}.md").exists()
    gives = f"{choice.gives} ([tutorial]({to}tutorials/{choice.tutorial}.md))" if there else choice.gives
    return f"| {choice.head.gives} | {names} | {choice.needs_text} | {gives} | {choice.head.where} |"


def table(page: Path) -> str:
    """What stands between the marks of a page."""
    if page == COMMAND_LINE:
        return _of_command_line()
    if page.name == "README.md":
        head = ["| You want | Model | Paper |", "|---|---|---|"]
        return "\n".join([BEGIN, *head, *(_row(choice, page, False) for choice in CHOICES), END])
    head = ["| You want | Model | It needs | You get | Paper |", "|---|---|---|---|---|"]
    lines = []
    for group in GROUPS:
        rows = [_row(choice, page, True) for choice in CHOICES if choice.group == group]
        lines += ["", f"### {group}", "", *head, *rows]
    return "\n".join([BEGIN, *lines, "", END])


def _of_command_line() -> str:
    """What ``--model`` may be, the commands that answer from it, and the options that not every model takes."""
    head = ["| `--model` | class | answered by | options |", "|---|---|---|---|"]
    rows = []
    for kind in MODELS.values():
        answers = ["embed"] * (kind.embed is not None) + ["predict"] * (kind.predict is not None)
        answers += ["map"] * kind.maps
        answers += ["denoise"] * (kind.denoise is not None) + ["de"] * bool(kind.compares)
        options = [f"`{spelt(name)}`" + " (must be given)" * (name in kind.needs) for name in kind.settings]
        rows.append(f"| `{kind.name}` | {kind.cls.__name__} | {', '.join(answers)} | {', '.join(options)} |")
    return "\n".join([BEGIN, *head, *rows, END])


def written(page: Path) -> str:
    """A page with its table as it should be."""
    before, _, rest = page.read_text().partition(BEGIN)
    return before + table(page) + rest.partition(END)[2]


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(written(page))
