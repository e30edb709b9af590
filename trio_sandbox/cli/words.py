"""Command lines that hold another program's command line: where ours ends and the other begins."""

from __future__ import annotations

from collections.abc import Sequence

import click


class ProgramCommand(click.Command):
    """A click command of the form `[OPTIONS] SUBJECT [OPTIONS] [--] COMMAND ARG…`.

    Options may stand on both sides of the subject. The command begins with the second word that is no option, or after
    `--`; nothing of it is read as an option of ours.
    """

    instead_of_subject = ""
    """An option that says what a subject would; the command then begins with the first word that is no option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ours, subject, command = self._split(ctx, args)
        return super().parse_args(ctx, [*ours, "--", *subject, *command])

    def _split(self, ctx: click.Context, args: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
        ours: list[str] = []
        subject: list[str] = []
        rest = list(args)
        while rest:
            word = rest[0]
            if word == "--":
                return ours, subject, rest[1:]
            if not word.startswith("-") or word == "-":
                if subject or (self.instead_of_subject and self._is_given(self.instead_of_subject, ours)):
                    break
                subject.append(rest.pop(0))
                continue
            count = 2 if self._takes_next(ctx, word) else 1
            ours += rest[:count]
            del rest[:count]
        return ours, subject, rest

    @staticmethod
    def _is_given(option: str, words: Sequence[str]) -> bool:
        return any(word == option or word.startswith(f"{option}=") for word in words)

    def _takes_next(self, ctx: click.Context, word: str) -> bool:
        """Whether the value of an option is the word after it."""
        flags: set[str] = set()
        others: set[str] = set()
        for param in self.get_params(ctx):
            if isinstance(param, click.Option):
                (flags if param.is_flag else others).update(param.opts)
        if word.startswith("--"):
            return word in others
        letters = (f"-{letter}" for letter in word[1:])
        first = next((index for index, letter in enumerate(letters) if letter not in flags), None)
        return first is not None and f"-{word[1 + first]}" in others and first == len(word) - 2
