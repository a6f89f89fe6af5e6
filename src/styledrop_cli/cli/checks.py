"""What is refused of what was given, before anything is loaded: paths, numbers and texts."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from styledrop_cli.cli.console import helps
from styledrop_cli.errors import UsageError
from styledrop_cli.generation.lists.foreign import foreign, literal
from styledrop_cli.generation.lists.prompt_file import OPTION_INSIDE, OTHERS, SUFFIXES, read_lines
from styledrop_cli.generation.lists.wildcards import Template
from styledrop_cli.io.files import real_place, to_text
from styledrop_cli.io.text_files import MOST, plain, says_something
from styledrop_cli.settings import exact

ADAPTER = ".safetensors"
RUN = ".run"  # behind the name of a file: the folder of the work on it


def refuse_output(
    output: Path, overwrite: bool = False, *, suffix: str = "", run: bool = False, option: str = "-o"
) -> None:
    """Refuse a file that cannot be written, or stands where another one is, before any work; nothing is made.

    Its name has to end in `suffix`. `run` is whether the work on it has a folder beside it.

    Raises:
        UsageError: `output` is a folder or a device, its folder may not be written to, its name is too long or ends
            otherwise, or it exists and `overwrite` was not asked for.
    """
    refuse_long_name(output.with_name(output.name + RUN) if run else output, option)
    if output.is_dir():
        raise UsageError(f"{output} is a folder", f"name a file with {option}")
    if output.exists() and not output.is_file():
        raise UsageError(f"{output} is no ordinary file", f"name a file with {option}")
    if not output.name.endswith(suffix):
        raise UsageError(f"the name of the output, {output}, does not end in {suffix}", f"choose another with {option}")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} is already there", f"choose another name with {option}, or say --overwrite")
    for folder in {output.parent, real_place(output).parent}:
        refuse_unwritable(folder, option)


def refuse_long_name(path: Path, option: str = "-o") -> None:
    """Refuse a path that no file can have.

    Raises:
        UsageError: the system finds its name too long.
    """
    try:
        path.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            size = len(os.fsencode(path.name))
            raise UsageError(
                f"the name {path.name[:40]}... is too long: {size} bytes", f"choose a shorter one with {option}"
            ) from None


def refuse_unwritable(folder: Path, option: str = "-o") -> None:
    """Refuse a folder that `option` names if nothing can be written in it, without making it.

    Raises:
        UsageError: a file is in its place, it may not be written to, or its name is too long.
    """
    refuse_long_name(folder, option)
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise UsageError(f"{there} is a file", f"name a folder with {option}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"the folder {there} may not be written to", f"choose another place with {option}")


def refuse_no_adapter(path: Path, hint: str) -> None:
    """Refuse what is no adapter file by its name.

    Raises:
        UsageError: it does not end as one does.
    """
    if path.suffix != ADAPTER:
        raise UsageError(f"'{path}' is no adapter file (*{ADAPTER})", hint)


def refuse_busy(folder: Path) -> None:
    """Refuse a folder that another process works in, before anything is loaded; nothing is made.

    Raises:
        UsageError: one does, and this process is not one that helps it.
    """
    if not helps():
        from styledrop_cli.io import run_folder

        run_folder.refuse_busy(folder)


def refuse_outside(**numbers: tuple[float | None, float, float]) -> None:
    """Refuse numbers outside their ranges, all of them at once: `option=(value, least, most)`.

    Raises:
        UsageError: one of them is less, more or no number at all.
    """
    if problems := outside(**numbers):
        raise UsageError("; ".join(problems))


def outside(**numbers: tuple[float | None, float, float]) -> list[str]:
    """What `refuse_outside` says of each number that is outside its range."""
    return [
        f"--{name.replace('_', '-')} must be between {exact(least)} and {exact(most)}, not {value}"
        for name, (value, least, most) in numbers.items()
        if value is not None and not least <= value <= most
    ]


def plain_text(text: str, what: str, hint: str) -> str:
    """`text` without control characters and with single blanks; `what` it is and a `hint` are for the error.

    Raises:
        UsageError: it holds no letter, digit or sign: it says nothing. Or it holds bytes that are no text.
    """
    said = plain(given_text(text, what))
    if not says_something(said):
        raise UsageError(f"{what} says nothing: '{said[:40]}'" if said else f"{what} is empty", hint)
    return said


def given_text(text: str, what: str) -> str:
    """A text of the command line as UTF-8, whatever encoding the system says that it has.

    Raises:
        UsageError: its bytes are no text in UTF-8.
    """
    if to_text(text) == text:
        return text
    try:
        return os.fsencode(text).decode()
    except UnicodeError:
        raise UsageError(
            f"{what} holds bytes that are no text in UTF-8: '{to_text(text)[:40]}'",
            "set the terminal to UTF-8, or write prompts into a file and name it with --prompts",
        ) from None


def typed_text(text: str, what: str, hint: str) -> str:
    """`plain_text` of what a person typed, in which a backslash keeps a bracket as it is.

    Raises:
        UsageError: as `plain_text` does, and for what only other programs read in a text.
    """
    text = given_text(text, what)
    refuse_foreign(text, what)
    return plain_text(literal(text), what, hint)


def refuse_foreign(text: str, what: str) -> None:
    """Refuse a text that holds what only other programs read.

    Raises:
        UsageError: it does.
    """
    if problem := foreign(text):
        raise UsageError(f"{what}: {problem[1]}", problem[2])


def checked_prompts(prompts: Sequence[str], command: str, *, templates: bool = False) -> list[str]:
    """What to draw, as plain texts; `command` is what they were given to, as it was typed, for the hint.

    Those that are `templates` keep their backslashes.

    Raises:
        UsageError: there are none, one says nothing, is a file or holds an option or what only other programs read, or
            they are the words of one that was not quoted.
    """
    if not prompts:
        raise UsageError("there is nothing to draw", f'add a prompt: {command} "a cat"')
    plain = [plain_text(prompt, "a prompt", 'say what to draw: "a cat"') for prompt in prompts]
    for prompt in plain:
        if option := OPTION_INSIDE.search(prompt):
            raise UsageError(f"a prompt holds an option: {option[0]}", f"write it behind the quotes: {option[0]} ...")
        refuse_foreign(prompt, "a prompt")
        if Path(prompt).suffix.lower() in {*SUFFIXES, *OTHERS} and Path(prompt).is_file():
            raise UsageError(f"{prompt} is a file, and no prompt", f"draw what it says with --prompts {prompt}")
    if any(prompt in ("a", "an", "the") for prompt in plain):
        raise UsageError(f"{len(plain)} prompts: {', '.join(plain)}", 'put each prompt in quotes: "a cat"')
    return plain if templates else [literal(prompt) for prompt in plain]


def prompts_in(path: Path) -> list[str]:
    """The prompts in a file, each once; of one with wildcards, each variant.

    Raises:
        UsageError: it cannot be read, anything in it is wrong, there are too many, or one has options of its own.
    """
    prompts: dict[str, None] = {}
    for line in read_lines(path):
        if line.options:
            what = f"{line.where}: '{line.text[:40]}' has {', '.join(line.options)} of its own"
            raise UsageError(what, "leave that out: here all prompts are drawn alike")
        template = Template.read(line.text, line.where)
        if len(prompts) + template.count > MOST:
            raise UsageError(f"{path} holds more than {MOST:,} prompts", "draw fewer of them")
        said = (plain_text(one, f"a prompt in {line.where}", "say what to draw: a cat") for one in template.every())
        prompts |= dict.fromkeys(said)
    return list(prompts)


def checked_style(style: str | None) -> str | None:
    """What `--style` says instead of an adapter's own style, as a plain text; empty to drop it, None if not given.

    Raises:
        UsageError: it says nothing.
    """
    if not style or not style.strip():
        return style
    return typed_text(style, "--style", 'describe the style in a few words, or drop it with --style ""')


def checked_references(
    pictures: Sequence[Path], style: str, content: Sequence[str] | None
) -> tuple[str, list[str] | None]:
    """The style and the contents as plain texts, once all is found that can be wrong with references by themselves.

    Raises:
        UsageError: a text says nothing, or there are not as many contents as pictures.
        PictureError: a picture cannot be read, or is transparent all over.
    """
    from styledrop_cli.io.images import load_reference

    style = typed_text(style, "--style", 'describe the style in a few words: "watercolor"')
    what = 'say what the picture shows: "a cat"'
    content = [typed_text(text, "a --content", what) for text in content] if content else None
    if content and len(content) != len(pictures):
        raise UsageError(
            f"pictures: {len(pictures)}, --content texts: {len(content)}",
            "give one --content for each picture, in their order, or none",
        )
    for picture in pictures:
        load_reference(picture)  # what there is to remark is said when it is read to learn from
    return style, content
