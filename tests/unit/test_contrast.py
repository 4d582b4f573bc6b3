"""InfoNCE against a loop over the definition, and its limits."""

import math

import pytest
import torch

from models.layers.contrast import info_nce


def by_definition(anchor, partner, video, usable, temperature) -> list[float]:
    losses = []
    for i in range(len(anchor)):
        def similarity(j: int, i: int = i) -> float:
            return float(torch.cosine_similarity(anchor[i], partner[j], dim=0)) / temperature
        negatives = [j for j in range(len(anchor)) if usable[j] and video[j] != video[i]]
        if not usable[i] or not negatives:
            losses.append(0.0)
            continue
        terms = [math.exp(similarity(j)) for j in [i, *negatives]]
        losses.append(-math.log(terms[0] / sum(terms)))
    return losses


def test_it_is_the_definition_over_other_videos():
    """It is the definition without negatives of the same video."""
    torch.manual_seed(0)
    anchor, partner = torch.randn(6, 3), torch.randn(6, 3)
    video, usable = torch.tensor([1, 1, 2, 3, 3, 4]), torch.tensor([True, True, True, False, True, True])
    losses = info_nce(anchor, partner, video, usable, 0.5)
    assert losses.tolist() == pytest.approx(by_definition(anchor, partner, video, usable, 0.5), abs=1e-5)
    partner[1] += 5                                 # of the same video as question 0, so 0 does not see it
    assert info_nce(anchor, partner, video, usable, 0.5)[0] == pytest.approx(float(losses[0]))


@pytest.mark.parametrize("usable", [[False] * 3, [True, False, False]])
def test_without_negatives_there_is_no_loss_and_no_gradient(usable):
    anchor = torch.randn(3, 4, requires_grad=True)
    loss = info_nce(anchor, torch.randn(3, 4), torch.arange(3), torch.tensor(usable), 0.07)
    loss.sum().backward()
    assert not loss.any() and torch.equal(anchor.grad, torch.zeros(3, 4))


def test_equal_pairs_cost_the_logarithm_of_their_number():
    """Indistinguishable pairs cost the logarithm of their number."""
    same = torch.ones(5, 2)
    loss = info_nce(same, same, torch.arange(5), torch.ones(5, dtype=torch.bool), 0.07)
    torch.testing.assert_close(loss, torch.full((5,), math.log(5)))
