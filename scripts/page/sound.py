"""A scene as one hears it: seconds of tones, pulses, voice and room, as a WAV file in text."""

from __future__ import annotations

import base64
import io
import wave

import numpy as np

from dataset.synthetic.world import SEGMENTS, Scenes

RATE = 8_000                 # samples a second; a segment lasts one second
PITCHES = (262.0, 98.0, 70.0, 784.0, 330.0, 523.0)          # Hz, of the kinds in their order
OVERTONES = ((1, .6, .5, .3), (1, .7, .4, .3), (1, .2), (1, .1), (1, .5, .2, .1), (1, .6, .5, .4))
LOUDNESS, PULSES = (0.25, 0.5, 1.0), (1, 2, 4)              # by level; beats a second
ECHO, DELAY = 0.45, 0.11                                    # of the room, seconds


def render(scene: Scenes, heard: np.ndarray) -> np.ndarray:
    """(samples,) float32 in [-1, 1] of one scene, silent where `heard` (T,) bool is False."""
    sound = np.zeros((SEGMENTS, RATE), np.float32)
    for segment in np.flatnonzero(heard):
        for kind in np.flatnonzero(scene.heard[0] & (scene.onset[0] <= segment)):
            sound[segment] += tone(kind, int(scene.loudness[0, kind]), int(scene.rhythm[0, kind]))
        if scene.voice[0]:
            sound[segment] += murmur(segment)
        if scene.reverb[0]:
            sound[segment] = echoed(sound[segment])
    return np.clip(0.3 * sound.ravel(), -1, 1)


def tone(kind: int, loudness: int, rhythm: int) -> np.ndarray:
    """One second of a kind: its pitch in beats that fade."""
    time = np.arange(RATE) / RATE
    wave_form = sum(share * np.sin(2 * np.pi * PITCHES[kind] * (i + 1) * time)
                    for i, share in enumerate(OVERTONES[kind]))
    beat = time * PULSES[rhythm] % 1.0 / PULSES[rhythm]                          # seconds since the last beat
    return LOUDNESS[loudness] * wave_form * np.minimum(beat / 0.01, 1) * np.exp(-3.0 * beat)


def murmur(segment: int) -> np.ndarray:
    """One second of a voice-over: a low buzz in syllables, no words."""
    time = np.arange(RATE) / RATE
    buzz = sum(np.sin(2 * np.pi * 140 * n * time + segment) / n for n in (1, 2, 3, 4, 5, 6))
    return 0.35 * buzz * np.abs(np.sin(2 * np.pi * 2.5 * time)) * np.sin(np.pi * time) ** 0.3


def echoed(second: np.ndarray) -> np.ndarray:
    delay, wet = round(DELAY * RATE), second.copy()
    for repeat in (1, 2, 3):
        wet[repeat * delay:] += ECHO ** repeat * second[:-repeat * delay]
    return wet


def wav_text(sound: np.ndarray, rate: int = RATE) -> str:
    """`sound` (samples,) in [-1, 1] as a data URI that a browser plays."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((sound * 32767).astype("<i2").tobytes())
    return "data:audio/wav;base64," + base64.b64encode(buffer.getvalue()).decode()


def player(sound: np.ndarray, rate: int = RATE) -> str:
    """HTML that plays it."""
    return f'<audio controls src="{wav_text(sound, rate)}"></audio>'
