"""Questions from the 33 templates: type, template, values, in the words that a model knows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from dataset.questions import PLACEHOLDER, fill
from dataset.synthetic.templates import FILLS, TEMPLATES, Template
from dataset.synthetic.world import KINDS
from dataset.vocabulary import PAD
from engine.errors import UsageError

LONGEST = max(len(PLACEHOLDER.findall(template.text)) for template in TEMPLATES)
OWN_WORDS = {PAD, *(value for name, values in FILLS.items() if name != "Object" for value in values),
             *(word for template in TEMPLATES for word in fill(template.text, LONGEST * [PAD]))}


def objects(words: Iterable[str]) -> tuple[str, ...]:
    """The things a model can be asked about: those of its words that no template brings along."""
    return tuple(sorted(set(words) - OWN_WORDS))


class Picker:
    """The templates that can be asked with `things` as their objects, in words of `known` (None:
    in any words).
    """

    def __init__(self, things: Sequence[str] = KINDS, known: Collection[str] | None = None) -> None:
        self.fills = FILLS | {"Object": tuple(things)}
        self.templates = [t for t in TEMPLATES if all(self.values(t)) and (
            known is None or set(known).issuperset(fill(t.text, [fill_in[0] for fill_in in self.values(t)])))]

    def values(self, template: Template) -> list[tuple[str, ...]]:
        """What may stand in each of its placeholders."""
        return [self.fills[name.strip("<>")] for name in PLACEHOLDER.findall(template.text)]

    def types(self) -> list[str]:
        return list(dict.fromkeys(template.type for template in self.templates))

    def of_type(self, type_: str) -> list[str]:
        """The texts of its templates."""
        return [template.text.strip() for template in self.templates if template.type == type_]

    def find(self, text: str) -> Template:
        for template in self.templates:
            if template.text.strip() == text:
                return template
        raise UsageError(f"the first run knows no question '{text}'; choose another template")

    def first_values(self, text: str) -> list[str]:
        """Of its placeholders, different ones where the same is asked for twice."""
        chosen: list[str] = []
        for options in self.values(self.find(text)):
            chosen.append(next((value for value in options if value not in chosen), options[0]))
        return chosen

    def question(self, text: str, values: Sequence[str]) -> str:
        """The text with its placeholders filled in."""
        return " ".join(fill(self.find(text).text, list(values))) + "?"
