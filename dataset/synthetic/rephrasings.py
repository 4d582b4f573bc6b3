"""Every template in other words, with the same values in the same order: never used in training.

Some keep to the words of the 33 templates, others bring words that training never shows.
"""

from __future__ import annotations

from dataclasses import replace

from dataset.questions import PLACEHOLDER, fill
from dataset.types import Question

REPHRASINGS = {
    "How many musical instruments were heard throughout the video?": (
        "How many musical instruments sound throughout the entire video?", "What number of instruments can one hear?"),
    "Is there a <Object> sound?": ("Is there the sound of a <Object> in the video?", "Can a <Object> be heard?"),
    "Are there <Object> and <Object> sound?": (
        "Is there the sound of <Object> and <Object>?", "Do both <Object> and <Object> make themselves heard?"),
    "Is the <Object> louder than the <Object>?": (
        "Is the sound of the <Object> louder than that of the <Object>?", "Does the <Object> drown out the <Object>?"),
    "Is the <Object> more rhythmic than the <Object>?": (
        "Is the sound of the <Object> more rhythmic than that of the <Object>?",
        "Does the <Object> have a stronger beat than the <Object>?"),
    "Is the <Object> playing longer than the <Object>?": (
        "Is the sound of the <Object> longer than the sound of the <Object>?",
        "Does the <Object> play for more time than the <Object>?"),
    "Are there <Object> and <Object> instruments in the video?": (
        "Is there a <Object> and a <Object> in the video?", "Does the picture show both a <Object> and a <Object>?"),
    "How many <Object> are in the entire video?": (
        "How many <Object> appeared in the video?", "What is the number of <Object> one can see?"),
    "How many types of musical instruments appeared in the entire video?": (
        "How many musical instruments are there in the entire video?", "How many kinds of instruments can be seen?"),
    "Is there a <Object> in the entire video?": (
        "Is the <Object> in the video?", "Does a <Object> show up anywhere in the picture?"),
    "Where is the performance?": ("Where is the entire performance?", "In what kind of place do they perform?"),
    "What is the instrument on the <LR> of <Object>?": (
        "What kind of instrument is on the <LR> of the <Object>?", "Which instrument stands to the <LR> of <Object>?"),
    "What kind of musical instrument is it?": (
        "What is the musical instrument in the video?", "Name the instrument that one can see."),
    "What kind of instrument is the <LRer> instrument?": (
        "What is the <LRer> musical instrument?", "Tell me which instrument stands <LRer>."),
    "Is the <Object> in the video always playing?": (
        "Is the <Object> playing from beginning to end?", "Does the <Object> play without a break?"),
    "Is there a voiceover?": ("Is there a voiceover in the entire video?", "Does someone speak over the music?"),
    "Is this sound from the instrument in the video?": (
        "Is the sound coming from the instrument in this video?", "Do we hear the very instrument that we see?"),
    "How many instruments are sounding in the video?": (
        "How many sounding instruments are in the video?", "How many of the visible instruments can be heard?"),
    "How many types of musical instruments sound in the video?": (
        "How many types of instruments were heard in the video?", "How many different instruments make music here?"),
    "How many instruments in the video did not sound from beginning to end?": (
        "How many of the instruments in the video did not sound?", "How many visible instruments stay silent?"),
    "How many sounding <Object> in the video?": (
        "How many <Object> are sounding?", "What number of <Object> can be seen and heard?"),
    "Where is the <LL> instrument?": (
        "Where is the <LL> sound coming from?", "On which side does one find the <LL> instrument?"),
    "Is the <FL> sound coming from the <LR> instrument?": (
        "Is the <FL> sounding instrument the <LR> instrument?", "Does the <FL> sound belong to the <LR> one?"),
    "What is the <LR> instrument of the <FL> sounding instrument?": (
        "What instrument is on the <LR> of the <FL> sounding instrument?",
        "Which one stands <LR> of the instrument that is heard <FL>?"),
    "Which is the musical instrument that sounds at the same time as the <Object>?": (
        "What instrument sounds at the same time as the <Object>?", "Who plays together with the <Object>?"),
    "Is the <Object> on the <LR> louder than the <Object> on the <LR>?": (
        "Is the sound of the <Object> on the <LR> louder than of the <Object> on the <LR>?",
        "Does the <Object> standing <LR> drown out the <Object> standing <LR>?"),
    "Is the <Object> on the <LR> more rhythmic than the <Object> on the <LR>?": (
        "Is the sound of the <Object> on the <LR> more rhythmic than of the <Object> on the <LR>?",
        "Has the <Object> standing <LR> a stronger beat than the <Object> standing <LR>?"),
    "Is the instrument on the <LR> louder than the instrument on the <LR>?": (
        "Is the <LR> instrument louder than the <LR> instrument?", "Does the <LR> one drown out the <LR> one?"),
    "Is the instrument on the <LR> more rhythmic than the instrument on the <LR>?": (
        "Is the <LR> instrument more rhythmic than the <LR> instrument?",
        "Has the <LR> one a stronger beat than the <LR> one?"),
    "What is the <TH> instrument that comes in?": (
        "Which is the <TH> sounding instrument?", "Which instrument enters as the <TH> one?"),
    "Which instrument makes sounds <BA> the <Object>?": (
        "What instrument comes in <BA> the <Object>?", "Which one starts right <BA> the <Object>?"),
    "Where is the <FL> sounding instrument?": (
        "Where is the instrument that comes in <FL>?", "From which side does one hear music <FL>?"),
}


def rephrase(question: Question, known: set[str]) -> Question:
    """The question in other words, which of them by its row; `known`: the words of training."""
    values = [word for slot, word in zip(question.template.rstrip()[:-1].split(), question.words, strict=True)
              if PLACEHOLDER.search(slot)]
    texts = REPHRASINGS[question.template.rstrip()[:-1] + "?"]
    template = texts[question.row % len(texts)]
    words = fill(template, values)
    return replace(question, template=template, words=words,
                   part="known words" if known.issuperset(words) else "new words")
