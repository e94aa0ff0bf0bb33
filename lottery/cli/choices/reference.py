"""The pages and types that follow from settings: `python -m lottery.cli.choices.reference` writes them anew.

    settings of the search and of all trainers ─▶ docs/settings.md          for people
                                               ─▶ lottery/settings/{search_,}keywords.py   for editors

A test fails where a file is not what would be written.
"""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lottery.cli.choices.described import OF_SEARCH, Described, by_name, search_settings, trainer_settings
from lottery.settings.config import SearchConfig
from lottery.trainers import TRAINERS

_ROOT = Path(__file__).parents[3]


def pages() -> Mapping[str, str]:
    """Return the content of every file that follows from settings, by its path in the project."""
    return {
        "docs/settings.md": _page(),
        "lottery/settings/search_keywords.py": _of_search(),
        "lottery/settings/keywords.py": _keywords(),
    }


def _page() -> str:
    lines = [
        "# Settings",
        "",
        "Every setting has one name: `find_ticket(batch_size=128)` in Python, `--batch-size 128` on the command line,",
        "`--set batch_size=128`, and `batch_size = 128` in a TOML file. Flags beat the file, the file beats the",
        "recipe, the recipe beats the defaults. `lottery list settings` prints this page; it is written by",
        "`python -m lottery.cli.choices.reference`.",
    ]
    for where, settings in _sections():
        lines += ["", f"## {where}"]
        for group in dict.fromkeys(each.setting.group for each in settings):
            lines += ["", f"### {group}", "", "| setting | value | default | |", "|---|---|---|---|"]
            lines += [_row(each) for each in settings if each.setting.group == group]
    return "\n".join(lines) + "\n"


def _row(each: Described) -> str:
    value = "; ".join(filter(None, (each.type, each.allowed)))
    default = f"`{each.default_text}`" if each.default_text else ""
    cells = (f"`{each.name}`", value, default, each.setting.help)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _sections() -> Iterable[tuple[str, Sequence[Described]]]:
    yield "Of a search", search_settings()
    by_trainer: dict[str, list[Described]] = {}
    for each in trainer_settings():
        by_trainer.setdefault(each.where, []).append(each)
    for name, settings in by_trainer.items():
        yield f"Of trainer `{name}`: {TRAINERS[name].summary}", settings


def _of_search() -> str:
    """Return the module with the settings of a search as a typed dictionary."""
    return "\n".join(
        [
            *_head("The settings of a search as keywords", "Any, TypedDict"),
            "",
            "",
            "class SearchSettings(TypedDict, total=False):",
            '    """The settings of a search; what is left out has its default."""',
            "",
            *_entries(search_settings()),
            "",
        ]
    )


def _keywords() -> str:
    """Return the module with the keywords of `find_ticket` as a typed dictionary."""
    return "\n".join(
        [
            *_head("The settings as keywords of `find_ticket`", "TYPE_CHECKING, Any"),
            "",
            "from lottery.settings.search_keywords import SearchSettings",
            "",
            "if TYPE_CHECKING:",
            "    from es.config import AskTell",
            "",
            "",
            "class Settings(SearchSettings, total=False):",
            '    """The settings of a search and of its trainer; what is left out has its default."""',
            "",
            *_entries(trainer_settings()),
            "",
        ]
    )


def _head(what: str, of_typing: str) -> list[str]:
    return [
        f'"""{what}, for editors and type checkers.',
        "",
        "Written by `python -m lottery.cli.choices.reference` from the settings themselves: change those.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "from collections.abc import Callable, Mapping, Sequence",
        f"from typing import {of_typing}",
    ]


def _entries(settings: Sequence[Described]) -> list[str]:
    kinds = {OF_SEARCH: SearchConfig, **{entry.name: entry.value.config for entry in TRAINERS}}
    types = {
        (where, field.name): str(field.type) for where, kind in kinds.items() for field in dataclasses.fields(kind)
    }
    lines: list[str] = []
    for name, same in by_name(settings).items():
        if name in ("model", "data", "metric"):  # parameters of their own
            continue
        options = [option for each in same for option in _options(types[each.where, name], each.setting.takes)]
        lines.append(f"    {name}: {' | '.join(dict.fromkeys(options))}")
        texts = {each.setting.help: each.where for each in same}
        said = " ".join(f"{where}: {text}" if len(texts) > 1 else text for text, where in texts.items())
        quoted = '"""' + said + ('"""' if len(said) < 109 else "")
        lines += [f"    {line}" for line in textwrap.wrap(quoted, 116, break_long_words=False)]
        lines += [] if len(said) < 109 else ['    """']
    return lines


def _options(annotation: str, takes: str) -> list[str]:
    """Return the types that a keyword takes, given the annotation of its field."""
    lists = re.sub(r"tuple\[(\w+), \.\.\.\]", r"Sequence[\1]", annotation)
    return [*re.split(r" \| (?![^\[]*\])", lists), *filter(None, [takes])]


def main() -> None:
    """Write the files anew, in a checkout."""
    for path, content in pages().items():
        (_ROOT / path).write_text(content, encoding="utf-8")
        print(f"{path}: written")


if __name__ == "__main__":
    main()
