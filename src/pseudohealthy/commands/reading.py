"""From what was typed to a filled-in command, or to one line that says how it is written."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pseudohealthy.commands import kinds, mistakes
from pseudohealthy.commands.base import Command
from pseudohealthy.commands.words import Word, flags_of, words_of
from pseudohealthy.errors import USAGE, Fault

FLAG = re.compile(rf"[{mistakes.DASHES}]+[^\W\d]")
SETTING = re.compile(r"[a-z_]+(\.\w+)+")
Given = dict[str, list[str]]  # what was typed, by field


def read(name: str, arguments: list[str], commands: Mapping[str, type[Command]]) -> Command:
    """The command `name` filled in from its arguments. Fault USAGE (exit 2) for anything wrong."""
    cls = commands[name]
    given = taken(name, arguments, commands)
    for word in words_of(cls):
        if any(not value.strip() for value in given.get(word.field, ())):
            cure = "give a name or a path" if word.arg.positional else f"write {word.once}"
            rather = "" if word.required else ", or leave it out"
            raise refused(f"{word.name} is empty", cure + rather)
    mistakes.swapped(name, cls, given)
    mistakes.lacking(name, cls, given)
    typed = [word for word in words_of(cls) if word.field in given]
    return cls(**{word.field: value_of(word, given[word.field]) for word in typed})


def taken(name: str, arguments: list[str], commands: Mapping[str, type[Command]]) -> Given:
    """Which word got which texts. Fault USAGE."""
    flags = flags_of(commands[name])
    given: Given = {}
    loose: list[str] = []
    queue = deque(arguments)
    while queue:
        token = queue.popleft()
        if token == "--":
            loose += queue
            break
        if not is_flag(token):
            loose.append(token)
            continue
        spelling, equals, value = token.partition("=")
        word = flags.get(spelling.replace("_", "-"))
        if word is None:
            raise mistakes.unknown_flag(name, spelling, commands)
        keep(given, word, list(values(word, [value] if equals else [], queue)))
    return place(name, commands[name], loose, given)


def is_flag(token: str) -> bool:
    """Whether it begins as a flag does, in whatever dashes; no number does, nor a file."""
    return bool(FLAG.match(token)) and not number(token) and (token[0] == "-" or not there(token))


def number(token: str) -> bool:
    try:
        float(token)
    except ValueError:
        return False
    return True


def there(token: str) -> bool:
    try:
        return Path(token).exists()
    except (OSError, ValueError):
        return False


def values(word: Word, got: list[str], queue: deque[str]) -> Iterator[str]:
    """The texts that belong to a flag: those behind its "=", else those that follow it."""
    if word.of is bool:
        if got:
            raise refused(
                f"{word.name} takes no value, and got '{got[0]}'",
                f"write {word.name} alone, or leave it out",
            )
        yield "yes"
        return
    if not got and (not queue or queue[0] == "--" or is_flag(queue[0])):
        raise refused(f"{word.name} has no value", f"write {word.once}" + mistakes.listed(word))
    yield from checked(word, got[0] if got else queue.popleft(), queue)
    while not got and word.many and queue and not is_flag(queue[0]) and belongs(word, queue[0]):
        yield from checked(word, queue.popleft(), queue)


def belongs(word: Word, text: str) -> bool:
    """Whether a further text is one more value of the flag, and not a word without a flag."""
    if word.arg.each:
        return False
    if word.pairs:
        return "=" in text or bool(SETTING.fullmatch(text) and not there(text))
    if word.choices:
        return not there(text)
    return there(text) and not kinds.is_one("run", text)


def checked(word: Word, text: str, following: Sequence[str]) -> list[str]:
    """The values in a text, which are known ones where the word has choices. Fault USAGE."""
    if word.pairs and text.strip() and "=" not in text:
        raise mistakes.no_equals(word, text, following)
    parts = text.split(",") if word.many and word.choices else [text]
    for part in parts:
        if word.choices and part.strip() and part not in word.choices:
            raise mistakes.no_choice(word, part)
    return parts


def keep(given: Given, word: Word, texts: list[str]) -> None:
    """Add what a flag got. Fault USAGE where one value is given twice, differently."""
    before = given.get(word.field, [])
    if before and not word.many and before != texts:
        both = f"as '{before[0]}' and as '{texts[0]}'"
        raise refused(f"{word.name} is given twice, {both}", "give it once")
    given[word.field] = [*before, *texts] if word.many else texts


def place(name: str, cls: type[Command], loose: list[str], given: Given) -> Given:
    """Texts without a flag to the words without one, in order. Fault USAGE for too many."""
    left = deque(loose)
    for word in words_of(cls):
        if not word.arg.positional:
            continue
        while left and (word.many or word.field not in given):
            given.setdefault(word.field, []).append(left.popleft())
    if left:
        raise mistakes.too_many(name, cls, left[0])
    return given


# -- from texts to values --------------------------------------------------------------------------
def value_of(word: Word, texts: list[str]) -> Any:
    """The value of a word. Fault USAGE for a text that is none."""
    if word.of is bool:
        return True
    for text in texts:
        if word.choices and text not in word.choices:  # of a word without a flag
            raise mistakes.no_choice(word, text)
    found = [figure(word, text) if word.of in (int, float) else word.of(text) for text in texts]
    return tuple(found) if word.many else found[0]


def figure(word: Word, text: str) -> float:
    """A number within the bounds of its word."""
    try:
        value = word.of(text)
    except ValueError:
        value = math.nan
    arg, wanted = word.arg, "a whole number" if word.of is int else "a number"
    low = -math.inf if arg.least is None else arg.least
    high = math.inf if arg.most is None else arg.most
    inside = math.isfinite(value) and low <= value <= high
    if not inside or (arg.above is not None and value <= arg.above):
        raise refused(f"{word.name} is '{text}'", f"give {wanted}{bounds(word)}")
    return value


def bounds(word: Word) -> str:
    """The bounds of a number in words, with a space before them; empty where it has none."""
    arg = word.arg
    if arg.above is not None:
        return f" above {arg.above:g}" + ("" if arg.most is None else f", at most {arg.most:g}")
    if arg.least is None:
        return ""
    if arg.most is None:
        return f" of at least {arg.least:g}"
    return f" from {arg.least:g} to {arg.most:g}"


def refused(message: str, cure: str) -> Fault:
    return Fault("USAGE", message, cure, exit=USAGE)
