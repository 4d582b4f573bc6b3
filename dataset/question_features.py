"""Features of every different question, from scripts/extract_features.py --questions."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dataset.files import refuse_special
from dataset.store import FLOATS, refuse_non_finite
from dataset.types import DataError, Question

LOCAL_HEADER = 30            # bytes of a zip member's own header before its name


class QuestionFeatures:
    """`texts` (n,), `words` (n, Lt, Ct) and `question` (n, Ct) of the .npz, mapped: a question
    costs its own row alone.

    Questions of the same text share a row, whatever their video; the text is that of the words
    joined by blanks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        refuse_special(path)
        try:
            texts, self.words, self.question = (map_member(path, name) for name in ("texts", "words", "question"))
        except FileNotFoundError as error:
            raise DataError(f"question features {path} do not exist; make them with python scripts/extract_features.py "
                            "--questions FILE, or set dataset.question_features=null") from error
        except Exception as error:      # a damaged archive or header makes zipfile and numpy raise nearly anything
            raise DataError(f"question features {path} are damaged, or no uncompressed .npz with texts, words and "
                            f"question ({error}); extract them again") from error
        dimensions = (texts.ndim, self.words.ndim, self.question.ndim) == (1, 3, 2)
        types = texts.dtype.kind == "U" and self.words.dtype in FLOATS and self.question.dtype in FLOATS
        if not (dimensions and types and self.words[:, 0].shape == self.question.shape == (len(texts), self.channels)):
            raise DataError(f"question features {path} hold texts {list(texts.shape)} {texts.dtype}, words "
                            f"{list(self.words.shape)} {self.words.dtype} and question {list(self.question.shape)} "
                            f"{self.question.dtype}; expected (n,) of text, (n, positions, channels) and (n, channels) "
                            "of float16 or float32")
        self.row = {text: row for row, text in enumerate(texts.tolist())}

    @property
    def channels(self) -> int:
        return self.question.shape[1]

    def check(self, questions: Iterable[Question]) -> None:
        """DataError naming the first question that has no features here."""
        lacking = next((q for q in questions if " ".join(q.words) not in self.row), None)
        if lacking is not None:
            raise DataError(f"question features {self.path} hold nothing for '{' '.join(lacking.words)}' (question_id "
                            f"{lacking.question_id}); extract them again with --questions and every annotation file")

    def read(self, question: Question) -> tuple[np.ndarray, np.ndarray]:
        """Words (Lt, Ct) and question (Ct,), finite, in the type of the file."""
        self.check([question])
        row = self.row[" ".join(question.words)]
        values = np.array(self.words[row]), np.array(self.question[row])
        for part in values:
            refuse_non_finite(part, f"row {row} of question features {self.path}")
        return values


def map_member(path: Path, name: str) -> np.ndarray:
    """The array NAME of an uncompressed .npz as a memory map; numpy itself would read it whole."""
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{name}.npy")
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{name} is compressed")
        with archive.open(member) as file:
            reads = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, fortran, dtype = reads[np.lib.format.read_magic(file)](file)
            header = file.tell()
    if dtype.hasobject:
        raise ValueError(f"{name} holds objects")
    with open(path, "rb") as file:
        file.seek(member.header_offset)
        lengths = struct.unpack("<HH", file.read(LOCAL_HEADER)[-4:])        # of the name and of the extra field
    start = member.header_offset + LOCAL_HEADER + sum(lengths) + header
    return np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")
