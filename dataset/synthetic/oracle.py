"""The Bayes oracle of the embedded benchmark: the best answer from what is left of a scene.

From clean observations: the prototypes of the features are far apart against their noise, so what a
stream shows of its scene can be read off it. For each question, scenes are drawn exactly from the
posterior given what is seen, what is heard, or neither; each is weighed by the probability that it
would have led to this very question (that "where is K" is asked reveals that K is in view); the
answer with the most weight is the oracle's, and it is compared with the answer annotated.

Where some segments are missing: `partial.py`. No answer depends on more of the picture than any one
of its segments shows.
"""

from __future__ import annotations

import numpy as np

from dataset.presence import SCENARIOS
from dataset.synthetic.partial import given_observed
from dataset.synthetic.templates import ANSWERS, ASKABLE, Template
from dataset.synthetic.world import SEGMENTS, Scenes, given_heard, given_seen, sample

DRAWS = 1500


def choice_weights(template: Template, scenes: Scenes) -> tuple[np.ndarray, np.ndarray]:
    """Weights and answers of every choice of values, (choices, S) each."""
    asked = [template.ask(scenes, *values) for values in template.choices]
    return np.stack([weight for weight, _ in asked], dtype=float), np.stack([answer for _, answer in asked])


def answer_weights(template: Template, choice: int, scenes: Scenes) -> np.ndarray:
    """The weight of every answer (A,): a sum over the posterior draws `scenes`, not scaled."""
    weights, answers = choice_weights(template, scenes)
    total = weights.sum(axis=0)
    share = np.divide(weights[choice], total, out=np.zeros_like(total), where=total > 0)      # P(question | scene)
    return np.bincount(answers[choice], weights=share, minlength=len(ANSWERS))


def best_answer(template: Template, choice: int, scenes: Scenes) -> int:
    """The answer with the largest posterior weight over the posterior draws `scenes`."""
    return int(answer_weights(template, choice, scenes).argmax())


def oracle_correct(scenes: Scenes, questions: list[dict], scenario: str, seed: int = 0) -> list[bool]:
    """Whether the oracle is right, per {"scene", "template", "choice", "answer"} and scenario.

    `questions` name `scenes` and ASKABLE by position. Complete input determines every answer, and
    so does the whole sound with some segments of the picture.
    """
    partly = SCENARIOS[scenario].run is not None
    if scenario == "complete" or (partly and SCENARIOS[scenario].missing == "visual"):
        return [True] * len(questions)
    if partly:
        return [right_in_part(scenes, row, question, scenario, seed) for row, question in enumerate(questions)]
    posterior = {"audio_missing": given_seen, "visual_missing": given_heard,
                 "both_missing": lambda _, size, rng: sample(size, rng)}[scenario]
    correct, current, drawn = [], None, None
    for question in questions:
        if question["scene"] != current:         # questions of one scene follow each other and share the draws
            current = question["scene"]
            drawn = posterior(scenes[[current]], DRAWS, np.random.default_rng([seed, current]))
        guess = best_answer(ASKABLE[question["template"]], question["choice"], drawn)
        correct.append(ANSWERS[guess] == question["answer"])
    return correct


def right_in_part(scenes: Scenes, row: int, question: dict, scenario: str, seed: int) -> bool:
    """Whether the oracle is right on the question `row`, all seen and a part of the sound heard."""
    present = SCENARIOS[scenario].presence(row, SEGMENTS)
    drawn = given_observed(scenes[[question["scene"]]], present, DRAWS, np.random.default_rng([seed, row]))
    return ANSWERS[best_answer(ASKABLE[question["template"]], question["choice"], drawn)] == question["answer"]
