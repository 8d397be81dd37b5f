"""Completion for shells, written from the same table of words that the parser reads: completion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pseudohealthy.commands import kinds
from pseudohealthy.commands.base import COMMANDS, Command
from pseudohealthy.commands.helping import ALONE, first
from pseudohealthy.commands.words import Arg, Word, words_of

Shell = Literal["bash", "zsh", "fish"]


@dataclass(kw_only=True)
class Completion(Command):
    """Print what makes a shell complete words: `eval "$(pseudohealthy completion bash)"`."""

    shell: Annotated[Shell, Arg(positional=True, metavar="SHELL", kind="shell")]
    """which shell; fish takes it by `pseudohealthy completion fish | source`"""

    def run(self) -> int:
        text = {"bash": bash, "zsh": zsh, "fish": fish}[self.shell](COMMANDS)
        self.show({"shell": self.shell, "script": text}, text, asked=True)
        return 0


def offered(word: Word) -> str:
    """The names that a word may be, for a shell's list; empty where files are what to offer."""
    return " ".join(word.choices or kinds.names(word.arg.kind))


def names_of(cls: type[Command]) -> str:
    """The names that may stand without a flag."""
    return " ".join(filter(None, (offered(word) for word in words_of(cls) if word.arg.positional)))


def flags(cls: type[Command]) -> list[str]:
    return [spelling for word in words_of(cls) for spelling in word.spellings] + ["--help"]


def quoted(text: str) -> str:
    """For single quotes of a shell."""
    return text.replace("\\", "\\\\").replace("'", "’")


# -- bash ------------------------------------------------------------------------------------------
BASH = """# Completion of pseudohealthy for bash: eval "$(pseudohealthy completion bash)"
_pseudohealthy() {
    local cur=${COMP_WORDS[COMP_CWORD]} at=$((COMP_CWORD - 1)) IFS=$' \\t\\n'
    local flags="" names="" values="" begun prev
    [[ $cur == "=" ]] && cur="" # --engine=, which bash cuts into words of its own
    [[ ${COMP_WORDS[at]} == "=" ]] && at=$((at - 1))
    begun=$at prev=${COMP_WORDS[at]}
    if ((COMP_CWORD == 1)); then
        COMPREPLY=($(compgen -W "%(commands)s" -- "$cur"))
        return
    fi
    case ${COMP_WORDS[1]} in
%(cases)s
    esac
    while ((at > 1)) && [[ $prev != -* ]]; do at=$((at - 1)); prev=${COMP_WORDS[at]}; done
    case "${COMP_WORDS[1]} $prev $((begun > at))" in
%(values)s
    esac
    COMPREPLY=()
    if [[ -n $values ]]; then
        COMPREPLY=($(compgen -W "$values" -- "$cur"))
    elif [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$flags" -- "$cur"))
    else
        IFS=$'\\n'
        compopt -o filenames 2>/dev/null
        COMPREPLY=($(IFS=' '; compgen -W "$names" -- "$cur") $(compgen -f -- "$cur"))
    fi
}
complete -F _pseudohealthy pseudohealthy
"""


def bash(commands: dict[str, type[Command]]) -> str:
    cases, values = [], []
    for name, cls in commands.items():
        cases.append(f'        {name}) flags="{" ".join(flags(cls))}" names="{names_of(cls)}" ;;')
        for word in words_of(cls):
            if word.spellings and word.of is not bool:
                values.append(_bash_value(name, word))
    everything = " ".join([*commands, *ALONE])
    return BASH % {"commands": everything, "cases": "\n".join(cases), "values": "\n".join(values)}


def _bash_value(name: str, word: Word) -> str:
    """What follows a flag; behind the first value of a flag that takes several, its names go on."""
    places = "[01]" if word.many and word.choices else "0"
    patterns = "|".join(f'"{name} {spelling} "{places}' for spelling in word.spellings)
    return f'        {patterns}) values="{offered(word)}" names="" ;;'


# -- zsh -------------------------------------------------------------------------------------------
ZSH = """#compdef pseudohealthy
# Completion of pseudohealthy for zsh, after compinit: eval "$(pseudohealthy completion zsh)"
_pseudohealthy() {
    local -a commands
    commands=(
%(commands)s
    )
    if ((CURRENT == 2)); then
        _describe -t commands command commands
        return
    fi
    shift words
    ((CURRENT--))
    case $words[1] in
%(cases)s
    esac
}
if [[ ${funcstack[1]} == _pseudohealthy ]]; then
    _pseudohealthy "$@"
else
    compdef _pseudohealthy pseudohealthy
fi
"""


def zsh(commands: dict[str, type[Command]]) -> str:
    rows = {name: first(cls) for name, cls in commands.items()} | ALONE
    listed = "\n".join(f"        '{name}:{_zsh(said)}'" for name, said in rows.items())
    cases = "\n".join(_zsh_case(name, cls) for name, cls in commands.items())
    return ZSH % {"commands": listed, "cases": cases}


def _zsh_case(name: str, cls: type[Command]) -> str:
    specs = [_zsh_spec(word, spelling) for word in words_of(cls) for spelling in word.spellings]
    names = names_of(cls)
    loose = f"{{ compadd -- {names}; _files }}" if names else "_files"
    specs += ["--help[what it takes]", f"*: :{loose}"]
    lines = " \\\n".join(f"            '{spec}'" for spec in specs)
    return f"        {name}) _arguments \\\n{lines} ;;"


def _zsh_spec(word: Word, spelling: str) -> str:
    if word.of is bool:
        return f"{spelling}[{_zsh(word.help)}]"
    action = f"({offered(word)})" if offered(word) else "_files"
    return f"{'*' if word.many else ''}{spelling}=[{_zsh(word.help)}]:{_zsh(word.metavar)}:{action}"


def _zsh(text: str) -> str:
    return quoted(text).replace(":", "\\:").replace("[", "\\[").replace("]", "\\]")


# -- fish ------------------------------------------------------------------------------------------
def fish(commands: dict[str, type[Command]]) -> str:
    first_word = "complete -c pseudohealthy -n __fish_use_subcommand"
    lines = ["# Completion of pseudohealthy for fish: pseudohealthy completion fish | source"]
    lines += [f"{first_word} -l {name[2:]} -d '{quoted(said)}'" for name, said in ALONE.items()]
    for name, cls in commands.items():
        lines.append(f"{first_word} -f -a {name} -d '{quoted(first(cls))}'")
        here = f"complete -c pseudohealthy -n '__fish_seen_subcommand_from {name}'"
        if names := names_of(cls):
            lines.append(f"{here} -a '{names}'")
        for word in words_of(cls):
            value = f"{_fish(word)} -d '{quoted(word.help)}'"
            lines += [f"{here} -l {spelling[2:]}{value}" for spelling in word.spellings]
    return "\n".join(lines) + "\n"


def _fish(word: Word) -> str:
    if word.of is bool:
        return ""
    return f" -x -a '{offered(word)}'" if offered(word) else " -r -F"
