"""A scene of the embedded benchmark as SVG: who is where, who moves and sounds when, how loud."""

from __future__ import annotations

import numpy as np

from dataset.synthetic.world import COLUMNS, KINDS, LEVELS, ROWS, SEGMENTS, Scenes
from dataset.types import AUDIO, VISUAL

COLOURS = ("#dc2626", "#92400e", "#7c3aed", "#0284c7", "#334155", "#d97706")       # of the kinds in their order
SHAPES = {
    "accordion": '<rect x="-24" y="-16" width="13" height="32" rx="3"/><rect x="11" y="-16" width="13" height="32" '
                 'rx="3"/><path d="M-9-13v26M-4-13v26M1-13v26M6-13v26" stroke-width="3" fill="none" {line}/>',
    "cello": '<circle cy="10" r="13"/><circle cy="-6" r="9"/><path d="M0-12v-16M0 22v7" stroke-width="4" {line}/>',
    "drum": '<path d="M-20-8v16a20 8 0 0 0 40 0v-16z"/><ellipse cy="-8" rx="20" ry="8" fill="#fff" {line}/>'
            '<path d="M-12-26l10 16M14-26l-9 16" stroke-width="3" {line}/>',
    "flute": '<path d="M-26 12L26-12" stroke-width="9" stroke-linecap="round" {line}/>'
             '<g fill="#fff"><circle cx="-8" cy="4" r="2"/><circle cx="2" r="2"/><circle cx="12" cy="-5" r="2"/></g>',
    "piano": '<path d="M-24-14h48v30h-48z"/><path d="M-20 0h40v14h-40z" fill="#fff"/>'
             '<path d="M-12 0v14M-4 0v14M4 0v14M12 0v14" stroke-width="3" {line}/>',
    "violin": '<circle cx="-7" cy="5" r="10"/><circle cx="3" cy="-1" r="7"/><path d="M6-4l16-12" '
              'stroke-width="4" {line}/><path d="M-20-14l34 26" stroke-width="2" {line}/>',
}
WORDS = ("soft", "middle", "loud")
CELL, LANE, LEFT = 150, 34, 118          # pixels: a place of the stage, a lane of the time line, its first second
WIDE, HIGH = 62, 108                     # a second of the time line; a row of the stage


def draw_stage(scene: Scenes, seen: np.ndarray) -> str:
    """The picture; `seen` (T,) bool: the segments whose picture is there."""
    width, height = CELL * len(COLUMNS), HIGH * ROWS
    floor = "#fde68a" if scene.indoor[0] else "#bbf7d0"
    parts = [f'<rect width="{width}" height="{height}" rx="10" fill="{floor}" opacity=".45"/>']
    parts += [f'<path d="M{CELL * i} 8V{height - 8}" stroke="#0003" stroke-dasharray="4 5"/>' for i in (1, 2)]
    places: dict[tuple[int, int], int] = {}
    for kind in np.flatnonzero(scene.seen[0]):
        place = int(scene.column[0, kind]), int(scene.row[0, kind])
        shift = places[place] = places.get(place, -1) + 1
        x, y = CELL * (place[0] + 0.5) + 46 * shift - 14, HIGH * (place[1] + 0.45)
        parts.append(f'<g transform="translate({x:.0f} {y:.0f})">{shape(scene, kind, bool(seen.any()))}'
                     f'<text y="44" text-anchor="middle">{KINDS[kind]}</text></g>')
    if not seen.any():
        parts.append(f'<rect width="{width}" height="{height}" rx="10" fill="#000" opacity=".55"/>'
                     f'<text x="{width / 2}" y="{height / 2}" text-anchor="middle" style="fill:#fff;font-size:18px">'
                     "no picture</text>")
    names = "".join(f'<text x="{CELL * (i + 0.5)}" y="{height + 16}" text-anchor="middle" opacity=".7">{name}</text>'
                    for i, name in enumerate(COLUMNS))
    return f'<svg viewBox="0 0 {width} {height + 22}" role="img" aria-label="scene">{"".join(parts)}{names}</svg>'


def shape(scene: Scenes, kind: int, animated: bool) -> str:
    """One instrument; it sways from its onset on, the wider and the faster the livelier it is."""
    colour, motion = COLOURS[kind], ""
    if animated and scene.moving[0, kind]:
        angle, period = 5 + 6 * int(scene.motion[0, kind]), 1.6 / (1 + int(scene.tempo[0, kind]))
        motion = (f'<animateTransform attributeName="transform" type="rotate" values="{-angle};{angle};{-angle}" '
                  f'dur="{period:.2f}s" begin="{int(scene.seen_onset[0, kind])}s" repeatCount="indefinite"/>')
    return f'<g fill="{colour}">{SHAPES[KINDS[kind]].format(line=f"""stroke="{colour}" """)}{motion}</g>'


def draw_time(scene: Scenes, presence: np.ndarray) -> str:
    """Per kind a lane of what is seen and one of what is heard; `presence` (T, 2) bool fades the
    rest.
    """
    lanes, y = [], 22
    for kind in np.flatnonzero(scene.exists[0]):
        lanes.append(f'<text x="0" y="{y + LANE - 4}" style="font-weight:600">{KINDS[kind]}</text>')
        for modality, name in ((VISUAL, "picture"), (AUDIO, "sound")):
            lanes.append(f'<text x="{LEFT - 8}" y="{y + LANE / 2 + 5}" text-anchor="end" opacity=".6">{name}</text>')
            lanes += [second(scene, kind, modality, t, y, bool(presence[t, modality])) for t in range(SEGMENTS)]
            y += LANE
        y += 8
    around = [f"{'indoor' if scene.indoor[0] else 'outdoor'}", "room echo" if scene.reverb[0] else "no echo",
              "voice-over" if scene.voice[0] else "no voice-over"]
    head = "".join(f'<text x="{LEFT + WIDE * (t + 0.5)}" y="14" text-anchor="middle" opacity=".7">{t + 1}</text>'
                   for t in range(SEGMENTS))
    foot = f'<text x="{LEFT}" y="{y + 12}" opacity=".8">{", ".join(around)}</text>'
    width = LEFT + WIDE * SEGMENTS
    return f'<svg viewBox="0 0 {width} {y + 18}" role="img" aria-label="time line">{head}{"".join(lanes)}{foot}</svg>'


def second(scene: Scenes, kind: int, modality: int, t: int, y: int, there: bool) -> str:
    """One kind in one second: bars as high as it is loud or moves, as many as its beats."""
    if modality == AUDIO:
        active, level, beats, start = scene.heard, scene.loudness, scene.rhythm, scene.onset
    else:
        active, level, beats, start = scene.moving, scene.motion, scene.tempo, scene.seen_onset
    x, colour = LEFT + WIDE * t + 2, COLOURS[kind]
    parts = [f'<rect x="{x}" y="{y + 2}" width="{WIDE - 4}" height="{LANE - 4}" rx="4" fill="currentColor" '
             'opacity=".06"/>']
    if modality == VISUAL and scene.seen[0, kind]:
        parts.append(f'<rect x="{x}" y="{y + LANE - 7}" width="{WIDE - 4}" height="4" rx="2" fill="{colour}" '
                     'opacity=".55"/>')
    if active[0, kind] and start[0, kind] <= t:
        height, pulses = (LANE - 6) * (int(level[0, kind]) + 1) / LEVELS, (1, 2, 4)[int(beats[0, kind])]
        wide = (WIDE - 4) / pulses
        parts += [f'<rect x="{x + wide * i:.1f}" y="{y + LANE - 3 - height:.1f}" width="{wide - 2:.1f}" '
                  f'height="{height:.1f}" rx="2" fill="{colour}" opacity="{0.5 if modality == VISUAL else 0.95}"/>'
                  for i in range(pulses)]
    return f'<g{"" if there else " class=off"}>{"".join(parts)}</g>'


def in_words(scene: Scenes) -> str:
    """Who is there, as a sentence for whoever cannot see the drawing."""
    parts = []
    for kind in np.flatnonzero(scene.exists[0]):
        place = f"seen {COLUMNS[scene.column[0, kind]]}" if scene.seen[0, kind] else "out of view"
        sound = f"{WORDS[scene.loudness[0, kind]]} from second {scene.onset[0, kind] + 1}" if scene.heard[0, kind] \
            else "silent"
        parts.append(f"{KINDS[kind]} {place}, {sound}")
    return "; ".join(parts)
