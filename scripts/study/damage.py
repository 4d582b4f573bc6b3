"""Random damage to what a user can type and to what a file can hold, for scripts/fuzz.py."""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from engine.config import compose

TEXTS = ["", " ", "null", "true", "-1", "0", "1", "1e999", "nan", ".inf", "9" * 30, "@home", "[complete", "{}", "[]",
         "[1]", "{a: 1}", "[&a x, *a]", "!!binary AAAA", "!!timestamp 1", "!!int x", "!!python/name:os.system x",
         "${oc.env:HOME}", "${run.root}", "${", "${train}", "\x07", "é" * 300, "\udcff", "[" * 1000, "[" * 100_000,
         "a: b: c", "..", "/", "/dev/null", "x" * 5000, "0x" + "f" * 5000, "*", "|", "%", "'", '"', "? a", "2020-01-01"]
VALUES = [None, True, -1, 0, 1, 2 ** 70, 1.5, float("nan"), float("inf"), "", "x", "\udcff", [], [[]], [None], {},
          {"x": 1}, {"name": "x"}]
TENSORS = [torch.tensor(float("nan")), torch.zeros(3), torch.full((2, 2), float("inf")), torch.zeros(0),
           torch.eye(2).to_sparse(), torch.zeros(1).expand(10 ** 9), torch.tensor([True]),
           torch.zeros(2, dtype=torch.complex64)]
ARRAYS = [np.zeros(3, np.float32), np.zeros((0, 2), np.float32), np.full((6, 128), np.nan, np.float32), np.array(["x"]),
          np.array([None]), np.zeros((2, 3, 4, 5, 6), np.float16), np.float32(1), np.zeros((6, 128), complex),
          np.zeros((7, 128), ">f4"), np.zeros((6, 8, 2, 3), np.float16, order="F")]


@dataclass
class Damage:
    """Random damage to one case's folder."""

    rng: random.Random
    folder: Path

    def text(self) -> str:
        return self.rng.choice(TEXTS)

    def any_file(self, path: Path) -> None:
        """Something else in place of the file."""
        data = path.read_bytes()
        place = self.rng.randrange(len(data) + 1)
        path.unlink()
        rest = data[place + self.rng.randrange(9):]
        kind = self.rng.choice(["cut", "bytes", "bytes", "text", "gone", "folder", "pipe", "device"])
        if kind in ("cut", "bytes"):
            junk = self.rng.randbytes(self.rng.randrange(9))
            path.write_bytes(data[:place] + (junk + rest if kind == "bytes" else b""))
        elif kind == "text":
            path.write_bytes(self.text().encode("utf-8", "surrogateescape"))
        elif kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "device":
            path.symlink_to(os.devnull)

    def json_file(self, path: Path) -> None:
        """One value of a JSON file, or of a file of JSON lines, replaced; or anything."""
        if self.rng.random() < 0.4:
            return self.any_file(path)
        lines = path.suffix == ".jsonl"
        text = path.read_text()
        content = self.inside(list(map(json.loads, text.splitlines())) if lines else json.loads(text), VALUES)
        lines = lines and isinstance(content, list)
        path.unlink()
        path.write_text("\n".join(map(json.dumps, content)) if lines else json.dumps(content))

    def table_file(self, path: Path) -> None:
        """One value of a YAML file replaced; or anything."""
        if self.rng.random() < 0.3:
            return self.any_file(path)
        content = self.inside(yaml.safe_load(path.read_text()), [*VALUES, *TEXTS])
        path.unlink()
        path.write_text(yaml.safe_dump(content))

    def checkpoint(self, path: Path) -> None:
        """One value or tensor of a file of torch replaced; or anything."""
        if self.rng.random() < 0.3:
            return self.any_file(path)
        state = torch.load(path, weights_only=True)
        path.unlink()
        torch.save(self.inside(state, [*VALUES, *TENSORS]), path)

    def array_file(self, path: Path) -> None:
        """Another array in a .npy, or in place of one of a .npz; or anything."""
        if self.rng.random() < 0.4:
            return self.any_file(path)
        other = self.rng.choice(ARRAYS)
        content = dict(np.load(path)) if path.suffix == ".npz" else {}
        path.unlink()
        if content:
            np.savez(path, **content | {self.rng.choice(list(content)): other})
        else:
            np.save(path, other)

    def inside(self, value: Any, others: list) -> Any:
        """`value` with one part, at any depth, exchanged for one of `others` or left out."""
        if not isinstance(value, dict | list) or not value or self.rng.random() < 0.1:
            return self.rng.choice(others)
        key = self.rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        if self.rng.random() < 0.1:
            del value[key]
        else:
            value[key] = self.inside(value[key], others)
        return value

    def override(self) -> str:
        """An option, a section, a part of the method or nothing known, with some text."""
        options = compose(None, ["method=rmm_avr"])
        key = self.rng.choice(list(options))
        while isinstance(options, dict) and self.rng.random() < 0.8:
            options = options[key.rpartition(".")[2]]
            key = f"{key}.{self.rng.choice(list(options))}" if isinstance(options, dict) else key
        return f"{key if self.rng.random() < 0.9 else self.text()}={self.text()}"

    def yaml_file(self) -> Path:
        path = self.folder / "random.yaml"
        texts = [f"{self.override().replace('=', ': ', 1)}\n" for _ in range(self.rng.randrange(4))]
        text = "".join(texts) if self.rng.random() < 0.5 else self.text()
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        return path
