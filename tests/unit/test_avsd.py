"""AVSD: the factor graph against loops over its definition; padding, masks and order."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cosine_similarity
from toy import SPEC, random_batch

from dataset.types import AUDIO, VISUAL
from models.backbones.avsd import AVSD, FactorGraphAttention, Utility, last_word
from models.layers.attention import Stream

WIDTH, FRAMES = 6, 3


def backbone(spec=SPEC) -> AVSD:
    torch.manual_seed(0)
    return AVSD(spec).eval()


def graph() -> tuple[FactorGraphAttention, Utility, Utility, Utility, torch.Tensor]:
    """Random weights and elements of one question; some cannot be read, one frame not at all."""
    torch.manual_seed(0)
    attention = FactorGraphAttention(WIDTH, FRAMES).eval()
    for mix in (attention.mix_words, attention.mix_audio, attention.mix_frame):
        torch.nn.init.normal_(mix)
    words = Utility(torch.randn(1, 1, 4, WIDTH), torch.tensor([[[True, True, True, False]]]))
    frame = Utility(torch.randn(1, FRAMES, 2, WIDTH), torch.tensor([[[True, True], [False, False], [True, True]]]))
    audio = Utility(torch.randn(1, 1, 3, WIDTH), torch.tensor([[[True, False, True]]]))
    return attention, words, frame, audio, torch.tensor([[[0.0, 0.0, 1.0, 0.0]]])


def by_definition(attention, words, frame, audio, prior) -> dict[str, torch.Tensor]:
    """One utility and one element after the other, as the paper defines the potentials."""
    utilities = {"words": (words.elements[0, 0], words.mask[0, 0]), "audio": (audio.elements[0, 0], audio.mask[0, 0])}
    utilities |= {f"frame{i}": (frame.elements[0, i], frame.mask[0, i]) for i in range(FRAMES)}

    def mean_similarity(x, left, right, other: str) -> float:
        elements, mask = utilities[other]
        near = [float(cosine_similarity(left(x), right(y), dim=0)) for y, m in zip(elements, mask, strict=True) if m]
        return sum(near) / len(near) if near else 0.0

    def pair(kind: str, other: str):
        """The projections of this side and of the other side."""
        a, b = kind.rstrip("012"), other.rstrip("012")
        if a == b == "frame":
            return attention.frame_frame.left, attention.frame_frame.right
        name = {frozenset(("words", "frame")): "words_frame", frozenset(("words", "audio")): "words_audio",
                frozenset(("audio", "frame")): "audio_frame"}[frozenset((a, b))]
        both = getattr(attention, name)
        return (both.left, both.right) if name.startswith(a) else (both.right, both.left)

    result = {}
    for name, (elements, mask) in utilities.items():
        kind = name.rstrip("012")
        unary, mix = getattr(attention, kind), getattr(attention, f"mix_{kind}")
        others = {"words": ["audio", "frame0", "frame1", "frame2"], "audio": ["words", "frame0", "frame1", "frame2"]}
        order = others.get(kind) or ["words", "audio", *(f"frame{i}" for i in range(FRAMES) if f"frame{i}" != name)]
        scores = []
        for position, x in enumerate(elements):
            potentials = [float(unary.score(x)), mean_similarity(x, unary.left, unary.right, name)]
            potentials += [float(prior[0, 0, position])] if kind == "words" else []
            potentials += [mean_similarity(x, *pair(name, other), other) for other in order]
            scores.append(sum(float(w) * p for w, p in zip(mix, potentials, strict=True)))
        attended = torch.zeros(WIDTH)
        if mask.any():
            weights = torch.softmax(torch.tensor(scores)[mask], dim=0)
            attended = (weights[:, None] * elements[mask]).sum(dim=0)
        result[name] = attended
    return result


def test_the_factor_graph_is_its_definition():
    attention, *given = graph()
    with torch.no_grad():
        words, frames, audio = (read.vectors for read in attention(*given))
        expected = by_definition(attention, *given)
    torch.testing.assert_close(words[0, 0], expected["words"])
    torch.testing.assert_close(audio[0, 0], expected["audio"])
    torch.testing.assert_close(frames[0], torch.stack([expected[f"frame{i}"] for i in range(FRAMES)]))
    assert not frames[0, 1].any()                    # a utility without anything to read


@pytest.mark.parametrize("frames", [4, 12])
def test_the_mix_starts_as_a_conv1d_of_all_potentials(frames):
    """torch's own start of a Conv1d of as many potentials as are mixed, with the zero prior."""
    torch.manual_seed(0)
    own, theirs = [], []
    for _ in range(200):
        attention = FactorGraphAttention(WIDTH, frames)
        mixes = attention.mix_words, attention.mix_audio, attention.mix_frame
        own.append(torch.cat(mixes).detach())
        theirs.append(torch.nn.Conv1d(4 + frames, 1, 1, bias=False).weight.detach().flatten())
    own, theirs = torch.cat(own), torch.cat(theirs)
    own_levels, levels = (x.quantile(torch.linspace(0, 1, 21)).tolist() for x in (own, theirs))
    assert own_levels == pytest.approx(levels, abs=0.04)
    assert own.abs().max() <= (4 + frames) ** -0.5 < own.abs().max() * 1.01


def test_extra_tokens_change_no_potential():
    """Extra tokens are weighed with the elements but change no potential."""
    attention, words, frame, audio, prior = graph()
    keys, values = torch.randn(1, 2, WIDTH), torch.randn(1, 2, WIDTH)
    before, after = attention(words, frame, audio, prior), attention(words, frame, audio, prior, (keys, values))
    torch.testing.assert_close(after[0], before[0])
    torch.testing.assert_close(after[1], before[1])
    assert not torch.allclose(after[2].vectors, before[2].vectors)
    silent = Utility(audio.elements, torch.zeros_like(audio.mask))
    attended = attention(words, frame, silent, prior, (keys, torch.ones_like(values)))[2].vectors
    torch.testing.assert_close(attended, torch.ones(1, 1, WIDTH))       # extra tokens alone are left, weights sum to 1


def test_the_prior_is_at_the_last_real_word():
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False], [True, True, True]])
    assert last_word(mask).tolist() == [1, 0, 0, 2]


def test_padding_changes_nothing():
    model, batch = backbone(), random_batch(3)
    batch.words = torch.tensor([[3, 4, 0, 0, 0], [5, 6, 7, 0, 0], [1, 2, 3, 4, 0]])
    longer = batch.map(lambda t: t)
    longer.words = torch.nn.functional.pad(batch.words, (0, 4))
    torch.testing.assert_close(model.fuse(model.encode(batch)).vector, model.fuse(model.encode(longer)).vector)


@pytest.mark.parametrize("segments", [4, 6])
def test_the_order_of_frames_matters_and_that_of_sounds_does_not(segments):
    spec = replace(SPEC, segments=segments)
    model = backbone(spec)
    features = model.encode(random_batch(3, spec=spec))
    vector = model.fuse(features).vector
    torch.testing.assert_close(model.fuse(features.with_(audio=features.audio.flip(1))).vector, vector)
    assert not torch.allclose(model.fuse(features.with_(visual=features.visual.flip(1))).vector, vector, atol=1e-6)


def test_frames_are_means_of_runs_and_of_two_by_two_positions():
    spec = replace(SPEC, segments=9, grid=(2, 2))
    model, maps = backbone(spec), torch.randn(1, 9, 4, spec.visual_channels)
    mask = torch.tensor([[True, False, True, False, False, True, True, True, True]])
    frame = model.group_frames(Stream(maps, mask))                   # runs of 3, 2, 2 and 2 segments
    assert frame.mask.tolist() == [[[True], [False], [True], [True]]]
    torch.testing.assert_close(frame.elements[0, 0, 0], model.narrow_frame(maps[0, [0, 2]].mean(dim=(0, 1))))


def test_what_is_masked_is_as_if_cut_out():
    """Masked sound is as if cut out and masked frames are not seen."""
    model, batch = backbone(), random_batch(2)
    features = model.encode(batch)
    presence = batch.presence.clone()
    presence[:, 1, AUDIO] = False
    presence[:, 2, VISUAL] = False
    masked = features.with_(presence=presence, filled=False)
    vector = model.fuse(masked).vector
    kept = torch.tensor([0, 2, 3])
    first = model.encode(batch)
    cut = Utility(model.narrow_audio(first.audio[:, kept]).unsqueeze(1), torch.ones(2, 1, 3, dtype=torch.bool))
    whole = Utility(model.narrow_audio(first.audio).unsqueeze(1), presence[..., AUDIO].unsqueeze(1))
    words = Utility(model.narrow_words(first.words).unsqueeze(1), first.word_mask.unsqueeze(1))
    frame, prior = model.group_frames(Stream(first.visual, presence[..., VISUAL])), torch.zeros(2, 1, SPEC.words)
    pair = model.attention(words, frame, cut, prior), model.attention(words, frame, whole, prior)
    for one, other in zip(*pair, strict=True):
        torch.testing.assert_close(one.vectors, other.vectors)
    blinded = masked.with_(visual=features.visual.clone())
    blinded.visual[:, 2] = 9.0
    torch.testing.assert_close(model.fuse(blinded).vector, vector)
