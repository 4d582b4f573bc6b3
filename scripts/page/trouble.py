"""What may go wrong by what a visitor gives, as one sentence on the page."""

from __future__ import annotations

from dataset.types import DataError
from engine.errors import UsageError, advice
from models.errors import OptionError

TROUBLE = (UsageError, DataError, OptionError, OSError)


def sentence(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or error}{advice(error)}"
    text = " ".join(str(error).split())
    return text[:1].upper() + text[1:]
