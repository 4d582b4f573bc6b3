"""Draw the figure of the README: python scripts/study/draw_method.py [OUT.svg|OUT.png]"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

ROOT = Path(__file__).resolve().parents[2]
INK, GREY, PANEL = "#1f2937", "#6b7280", "#fbfbfa"
TEXT, AUDIO, VISUAL, METHOD = "#6b5b95", "#0072B2", "#009E73", "#D55E00"


class Canvas:
    """Boxes, labels and arrows in units of 1/100 inch, y upwards."""

    def __init__(self, width: float, height: float) -> None:
        self.figure = Figure(figsize=(width / 100, height / 100), facecolor="none")
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
        self.axes.set_axis_off()

    def box(self, x: float, y: float, width: float, height: float, colour: str, title: str = "", note: str = "",
            absent: bool = False, fill: float = 0.12) -> None:
        style = {"linestyle": (0, (4, 3))} if absent else {}
        face = "white" if absent else (*matplotlib.colors.to_rgb(colour), fill)
        self.axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=7",
                                           facecolor=face, edgecolor=colour, linewidth=1.3, **style))
        self.text(x + width / 2, y + height / 2 + (8 if note else 0), title, colour if absent else INK, weight="bold")
        self.text(x + width / 2, y + height / 2 - 9, note, GREY, size=7.5)

    def text(self, x: float, y: float, text: str, colour: str = INK, size: float = 9, **options) -> None:
        self.axes.text(x, y, text, color=colour, fontsize=size, va="center", **{"ha": "center", **options})

    def arrow(self, *points: tuple[float, float], colour: str = INK, dashed: bool = False) -> None:
        """A line over the points that ends in a head."""
        line = dict(color=colour, linewidth=1.4, linestyle=(0, (4, 3)) if dashed else "-")
        if points[:-2]:
            self.axes.plot(*zip(*points[:-1], strict=True), solid_capstyle="butt", **line)
        self.axes.add_patch(FancyArrowPatch(points[-2], points[-1], arrowstyle="-|>", mutation_scale=9, shrinkA=0,
                                            shrinkB=0, **line))


def pipeline(c: Canvas) -> None:
    """Upper half: one question whose sound is missing, one lane for the text and each modality."""
    text, audio, visual = 372, 296, 212
    c.box(24, text - 24, 132, 48, TEXT, "question", "\u201cIs the flute louder?\u201d")
    c.box(24, audio - 24, 132, 48, AUDIO, "audio", "missing", absent=True)
    c.box(24, visual - 24, 132, 48, VISUAL, "video", "frames of the clip")
    c.box(196, 176, 84, 224, GREY, "encode", "backbone", fill=0.07)
    for y in (text, visual):
        c.arrow((157, y), (195, y))
    c.arrow((157, audio), (195, audio), colour=AUDIO, dashed=True)
    c.text(176, audio + 11, "blank", AUDIO, 7.5)

    c.box(340, 252, 132, 88, METHOD, "", fill=0.10)
    c.text(406, 327, "RMM recalls", weight="bold")
    for index, weight in enumerate((0.15, 0.3, 0.95, 0.5, 0.2, 0.1, 0.35, 0.15)):
        c.axes.add_patch(FancyBboxPatch((356 + 13 * index, 281), 7, 32, boxstyle="round,pad=0,rounding_size=2",
                                        facecolor=(*matplotlib.colors.to_rgb(AUDIO), weight), edgecolor=AUDIO,
                                        linewidth=0.6))
    c.text(406, 266, "weighted audio slots", GREY, 7.5)
    c.arrow((281, text), (374, text), (374, 341), colour=TEXT)
    c.arrow((281, visual), (374, visual), (374, 251), colour=VISUAL)
    c.text(327, text + 10, "$f^t$", TEXT, 10)
    c.text(327, visual + 10, "$f^v$", VISUAL, 10)

    c.box(540, 176, 132, 164, METHOD, "", fill=0.10)
    c.text(606, 327, "AVR refines", weight="bold")
    c.text(606, 310, "the pair, in T reverse", GREY, 7.5)
    c.text(606, 298, "steps of diffusion", GREY, 7.5)
    c.arrow((473, 281), (539, 281), colour=AUDIO)
    c.arrow((374, visual), (539, visual), colour=VISUAL)
    c.text(506, 294, "recalled", AUDIO, 7.5)
    c.text(506, visual + 13, "real", VISUAL, 7.5)
    for index in range(5):                           # the pair gets clearer from step to step
        for y, colour in ((281, AUDIO), (visual, VISUAL)):
            c.axes.plot(560 + 23 * index, y, "o", markersize=7.5, markeredgecolor=colour, markeredgewidth=0.8,
                        color=(*matplotlib.colors.to_rgb(colour), 0.12 + 0.2 * index))

    c.box(730, 176, 62, 224, GREY, "fuse", "backbone", fill=0.07)
    c.arrow((374, text), (729, text), colour=TEXT)
    c.arrow((673, 281), (729, 281), colour=AUDIO)
    c.arrow((673, visual), (729, visual), colour=VISUAL)
    c.text(700, 294, "$\\hat f^a$", AUDIO, 10)
    c.text(700, visual + 14, "$\\hat f^v$", VISUAL, 10)
    c.box(822, 264, 62, 48, INK, "answer", "\u201cyes\u201d", fill=0.05)
    c.arrow((793, 288), (821, 288))


def views(c: Canvas) -> None:
    """Lower half: what training answers for every question."""
    c.axes.plot((24, 876), (150, 150), color="#d8d8d4", linewidth=1)
    c.text(24, 130, "Training answers every question three times (Eq. 8)", weight="bold", ha="left")
    losses = r"loss = answers of the three views + $\lambda_1 L_{rmmr} + \lambda_2 L_{ave}$"
    c.text(876, 130, losses, GREY, 8, ha="right")
    for x, title, note, lost in ((24, "complete", "as encoded", ""),
                                 (314, "audio missing", "recalled, both refined", "audio"),
                                 (604, "visual missing", "recalled, both refined", "video")):
        c.box(x, 22, 272, 88, GREY, "", fill=0.04)
        c.text(x + 14, 93, title, weight="bold", ha="left")
        c.text(x + 258, 93, note, GREY, 7.5, ha="right")
        for left, name, colour in ((x + 14, "question", TEXT), (x + 78, "audio", AUDIO), (x + 142, "video", VISUAL)):
            c.box(left, 38, 56, 34, METHOD if name == lost else colour, fill=0.28 if name == lost else 0.12)
            if lost and name != "question":          # refined
                c.box(left, 38, 56, 34, METHOD, fill=0)
            c.text(left + 28, 55, name, size=8)
        c.arrow((x + 202, 55), (x + 216, 55))
        c.text(x + 240, 55, "answer", size=8)


def draw() -> Figure:
    c = Canvas(900, 430)
    c.axes.add_patch(FancyBboxPatch((4, 4), 892, 422, boxstyle="round,pad=0,rounding_size=12", facecolor=PANEL,
                                    edgecolor="#d8d8d4", linewidth=1))
    pipeline(c)
    views(c)
    return c.figure


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "method.svg"
    with matplotlib.rc_context({"svg.hashsalt": "method"}):
        draw().savefig(out, dpi=200, metadata={"Date": None} if out.suffix == ".svg" else None)
    print(f"written: {out}")


if __name__ == "__main__":
    main()
