"""CLIP features (Radford et al., ICML 2021) for PSTP-Net, through transformers: frames, patches and
words in one space.

The final normalisation and the projection are applied to all visual tokens and to all text
positions, not only to the two that CLIP was trained to compare: token-level files need that.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPConfig, CLIPModel, CLIPTokenizerFast
from transformers.utils import logging

from dataset.extract.media import FRAME, SAMPLE_RATE, Clip
from dataset.extract.resnet import normalised
from dataset.extract.weights import RANDOM, Source
from dataset.files import refuse_special, write_whole
from dataset.types import DataError

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
NAME = "openai/clip-vit-base-patch32"
CONTENT = "a folder with its safetensors weights, configuration and tokenizer"


def load(part: type, source: Source):
    """`source`: a local folder as saved by transformers; None downloads ViT-B/32 once; RANDOM gives
    its network random weights.
    """
    if source == RANDOM:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return CLIPModel(CLIPConfig())
    if source is not None and not source.is_dir():
        raise DataError(f"CLIP cannot be loaded from {source}, there is no such folder; give {CONTENT}")
    for file in source.iterdir() if source else ():
        refuse_special(file)
    logging.set_verbosity_error()                # the line below is clearer than its tables of what did not fit
    try:
        if part is not CLIPModel:
            return part.from_pretrained(source or NAME)
        network, report = part.from_pretrained(source or NAME, use_safetensors=True, output_loading_info=True)
    except Exception as error:      # of damaged files transformers and what it builds on raise nearly anything
        raise refusal(source, error) from error
    lacking = sorted(report["missing_keys"])
    if lacking:                                  # transformers would leave them random
        raise DataError(f"CLIP in {source or NAME} lacks {len(lacking)} weights, first '{lacking[0]}'; give {CONTENT}")
    return network


def refusal(source: Source, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return DataError(f"CLIP cannot be loaded from {source or NAME} ({reason}); give {CONTENT}")


def try_out(extractor: Callable, sample: object, source: Source) -> None:
    """DataError when parts that were loaded one by one do not work together, or give no numbers."""
    try:
        values = extractor(sample)
    except Exception as error:
        raise refusal(source, error) from error
    if not all(np.isfinite(part).all() for part in values):
        raise DataError(f"CLIP in {source or NAME} gives NaN or infinity, its weights are damaged; give {CONTENT}")


class ClipFrames:
    """Frames of a clip to `clip_vit_b32` rows: token 0 is the frame, tokens 1..49 its patches."""

    folder, modality, shape = "clip_vit_b32", "visual", (50, 512)

    def __init__(self, weights: Source, device: torch.device, batch_size: int = 32) -> None:
        self.device, self.batch_size = device, batch_size
        self.network = load(CLIPModel, weights).to(device).eval()
        vision = self.network.config.vision_config
        self.shape = ((vision.image_size // vision.patch_size) ** 2 + 1, self.network.config.projection_dim)
        frame = np.zeros((1, FRAME, FRAME, 3), np.uint8)
        try_out(self, Clip(frame, np.zeros((0, SAMPLE_RATE), np.float32)), weights)

    @torch.inference_mode()
    def __call__(self, clip: Clip) -> np.ndarray:
        """(n, 50, 512) float32, a row per present second."""
        parts = [clip.frames[i:i + self.batch_size] for i in range(0, len(clip.frames), self.batch_size)]
        return np.concatenate([self.tokens(p).cpu().numpy() for p in parts])

    def tokens(self, frames: np.ndarray) -> Tensor:
        vision = self.network.vision_model
        states = vision(normalised(frames, self.device, MEAN, DEVIATION)).last_hidden_state    # (n, 50, width)
        return self.network.visual_projection(vision.post_layernorm(states))       # (n, 50, 512)


class ClipWords:
    """Questions to all 77 projected text positions and the one at the end-of-text token."""

    def __init__(self, weights: Source, device: torch.device) -> None:
        if weights == RANDOM:
            raise DataError("questions need CLIP's own tokenizer, random weights have none; give "
                            f"--weights clip_vit_b32=FOLDER, {CONTENT}")
        self.device, self.network = device, load(CLIPModel, weights).to(device).eval()
        self.tokenizer = load(CLIPTokenizerFast, weights)
        try_out(self, ["is there a sound"], weights)

    @torch.inference_mode()
    def __call__(self, questions: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """-> words (n, 77, 512) and question (n, 512), float32."""
        length = self.network.config.text_config.max_position_embeddings
        tokens = self.tokenizer(questions, padding="max_length", truncation=True, max_length=length,
                                return_tensors="pt")
        output = self.network.text_model(**tokens.to(self.device))
        words = self.network.text_projection(output.last_hidden_state)             # (n, 77, 512)
        return words.cpu().numpy(), self.network.text_projection(output.pooler_output).cpu().numpy()


def save_words(path: Path, texts: list[str], encoder: ClipWords, batch_size: int = 64) -> None:
    """Write `texts` (n,), `words` (n, 77, 512), `question` (n, 512), float16, to one .npz."""
    parts = [encoder(texts[i:i + batch_size]) for i in tqdm(range(0, len(texts), batch_size), desc="questions")]
    words, question = (np.concatenate(values).astype(np.float16) for values in zip(*parts, strict=True))

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:      # given a path without .npz, numpy would append it
            np.savez(file, texts=np.array(texts), words=words, question=question)
    write_whole(path, write)
