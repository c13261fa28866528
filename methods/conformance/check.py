"""What a check of a detector is, and what comes out of one."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from methods.conformance.subject import Subject, TrialError

MOST_LINES = 4
MOST_CHARACTERS = 500
"""Of an error's message: that of torch.export holds a listing of the program."""


@dataclass(frozen=True)
class Check:
    """One promise of the contract in :mod:`methods.detector`, and how to see whether a detector keeps it.

    Attributes:
        name: Short, for ``--except`` and test names.
        promise: What every detector promises, a sentence.
        remedy: What usually mends a detector that does not keep it, a sentence.
        look: Raises :class:`BrokenPromiseError` or :class:`DoesNotApplyError`; what else it raises is the detector's.
    """

    name: str
    promise: str
    remedy: str
    look: Callable[[Subject], None]


class BrokenPromiseError(Exception):
    """The detector does not keep a promise.

    Args:
        seen: What was seen, with its values.
        remedy: What mends this, if it is not the usual remedy of the check.
    """

    def __init__(self, seen: str, remedy: str | None = None) -> None:
        super().__init__(seen)
        self.remedy = remedy


class DoesNotApplyError(Exception):
    """The detector has nothing that the promise is about; the message says what."""


@dataclass(frozen=True)
class Outcome:
    """What a check found.

    Attributes:
        name: Of the check.
        promise: What it looked at.
        status: ``kept``, ``broken``, ``excepted`` (declared, not looked at) or ``does not apply``.
        explanation: Of a broken promise: what was seen, what is needed, what to do. Else a reason, or nothing.
    """

    name: str
    promise: str
    status: Literal["kept", "broken", "excepted", "does not apply"]
    explanation: str = ""

    @property
    def broken(self) -> bool:
        """Whether the detector breaks the promise."""
        return self.status == "broken"

    def __str__(self) -> str:
        return f"{self.name}: {self.status}" + (f"\n{self.explanation}" if self.explanation else "")


def check(name: str, promise: str, remedy: str) -> Callable[[Callable[[Subject], None]], Check]:
    """Make a check of the function that looks."""
    return lambda look: Check(name, promise, remedy, look)


def run(chosen: Check, subject: Subject) -> Outcome:
    """Look whether a detector keeps one promise. An exception of the detector breaks it."""

    def outcome(status: Literal["kept", "excepted", "does not apply"], reason: str = "") -> Outcome:
        return Outcome(chosen.name, chosen.promise, status, reason)

    if chosen.name in subject.exceptions:
        return outcome("excepted", subject.exceptions[chosen.name])
    try:
        chosen.look(subject)
    except DoesNotApplyError as reason:
        return outcome("does not apply", str(reason))
    except TrialError as error:
        if chosen.name != "fit":
            return outcome("does not apply", "nothing to look at: the check fit says why")
        return _broken(chosen, _raised(error.cause))
    except BrokenPromiseError as broken:
        return _broken(chosen, str(broken), broken.remedy)
    except Exception as error:
        return _broken(chosen, _raised(error))
    return outcome("kept")


def _broken(chosen: Check, seen: str, remedy: str | None = None) -> Outcome:
    explanation = f"{seen}\n  Needed: {chosen.promise}\n  {remedy or chosen.remedy}"
    return Outcome(chosen.name, chosen.promise, "broken", explanation)


def _raised(error: Exception) -> str:
    """The end of a traceback, shortened, and where the error was raised."""
    message = traceback.format_exception_only(error)[-1].strip()
    beginning = "\n  ".join(line.strip() for line in message[:MOST_CHARACTERS].splitlines()[:MOST_LINES])
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno}, in {frames[-1].name})" if frames else ""
    return f"It raised {beginning}{where}"
