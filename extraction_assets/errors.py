"""The one error that reaches a user: where it is, what was found, what was expected, what to do."""

from __future__ import annotations


class InputError(Exception):
    """Bad input. The command line prints it as one line and exits with 2; it never shows a traceback.

    where:    file (and line, or JSON pointer), e.g. ``data/settings.yaml:12 training.learning_rate``
    found:    what stands there
    expected: what should stand there (optional)
    do:       what the user can do about it (optional)
    """

    def __init__(self, where: str, found: str, expected: str | None = None, do: str | None = None) -> None:
        self.where, self.found, self.expected, self.do = where, found, expected, do
        super().__init__(str(self))

    def __str__(self) -> str:
        line = f"{self.where}: {self.found}"
        if self.expected:
            line += f"; expected {self.expected}"
        if self.do:
            line += f". {self.do}"
        return " ".join(line.split())  # one line, whatever the parts hold

    def __reduce__(
        self,
    ) -> tuple[type[InputError], tuple[str, str, str | None, str | None]]:  # crosses process boundaries (rendering workers) whole
        return type(self), (self.where, self.found, self.expected, self.do)
