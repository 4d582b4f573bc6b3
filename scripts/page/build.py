"""The page itself, in Gradio: two tabs, what they hold and what happens when something changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gradio as gr

from dataset.synthetic.world import SEGMENTS
from scripts.page.clip_desk import ClipDesk
from scripts.page.picker import LONGEST, Picker
from scripts.page.runs import Runs
from scripts.page.scene_desk import SceneDesk
from scripts.page.trouble import TROUBLE

CSS = Path(__file__).with_name("style.css")
FONT = ["system-ui", "Segoe UI", "Helvetica", "Arial", "sans-serif"]      # nothing is loaded from elsewhere
SCENE_TEXT = ("A scene of one to three instruments, six seconds long. Ask about it, take away its sound, its picture "
              "or single seconds, and see what the runs answer, beside the best possible answer (the Bayes oracle) and "
              "the majority answer of training (the floor).")
CLIP_TEXT = ("A video of yours. Its first seconds are read as in the training of the run. The oracle is known for the "
             "embedded scenes alone.")
EVENT = {"api_visibility": "private", "show_progress": "hidden"}


class Question:
    """The picker and the text of the question; `picker` is called anew whenever it is needed."""

    def __init__(self, picker: Callable[..., Picker], depends: list[gr.components.Component]) -> None:
        self.picker, self.depends, first = picker, depends, Picker()
        with gr.Row():
            self.type = gr.Dropdown(first.types(), value=None, label="Type of question", min_width=240)
            self.template = gr.Dropdown([], value=None, label="Template", scale=3)
            self.values = [gr.Dropdown([], visible=False, label=f"Value {i + 1}", min_width=110)
                           for i in range(LONGEST)]
        with gr.Row(elem_classes="low"):
            self.text = gr.Textbox(label="Question", scale=5, max_length=500, elem_classes="question")
            self.ask = gr.Button("Ask", variant="primary", scale=0, min_width=140)

    def changes(self) -> list[tuple]:
        """(event, function, inputs, outputs) of everything that writes the question."""
        return [(self.type.input, self.on_type, [self.type, *self.depends], [self.template, *self.values, self.text]),
                (self.template.input, self.on_template, [self.template, *self.depends], [*self.values, self.text]),
                *((value.input, self.on_values, [self.template, *self.values, *self.depends], [self.text])
                  for value in self.values)]

    def on_type(self, type_: str, *depends: str) -> list:
        texts = self.picker(*depends).of_type(type_)
        return [gr.Dropdown(texts, value=texts[0] if texts else None),
                *self.on_template(texts[0] if texts else None, *depends)]

    def on_template(self, text: str | None, *depends: str) -> list:
        picker = self.picker(*depends)
        if text is None:
            return [gr.Dropdown(visible=False)] * LONGEST + [""]
        chosen, options = picker.first_values(text), picker.values(picker.find(text))
        shown = [gr.Dropdown(list(o), value=value, visible=True) for o, value in zip(options, chosen, strict=True)]
        hidden = [gr.Dropdown([], value=None, visible=False)] * (LONGEST - len(shown))
        return [*shown, *hidden, picker.question(text, chosen)]

    def on_values(self, text: str | None, *rest: str) -> list[str]:
        values, depends = rest[:LONGEST], rest[LONGEST:]
        return [self.picker(*depends).question(text, [value for value in values if value]) if text else ""]


def switches(segments: int) -> tuple[gr.CheckboxGroup, gr.CheckboxGroup, list[gr.Button]]:
    """The strip of either modality and three buttons."""
    names = [str(t + 1) for t in range(segments)]
    with gr.Row(equal_height=True):
        with gr.Column(scale=5):
            sound = gr.CheckboxGroup(names, value=names, label="Sound, by segment", elem_classes="segments sound")
            picture = gr.CheckboxGroup(names, value=names, label="Picture, by segment", elem_classes="segments picture")
        with gr.Column(scale=1, min_width=120):
            buttons = [gr.Button(text, size="sm") for text in ("No sound", "No picture", "All back")]
    return sound, picture, buttons


def wire_switches(sound: gr.CheckboxGroup, picture: gr.CheckboxGroup, buttons: list[gr.Button],
                  segments: Callable[..., int], depends: list[gr.components.Component]) -> None:
    def names(*given: str) -> list[str]:
        return [str(t + 1) for t in range(segments(*given))]

    buttons[0].click(None, None, sound, js="() => [[]]", **EVENT)
    buttons[1].click(None, None, picture, js="() => [[]]", **EVENT)
    buttons[2].click(lambda *given: (names(*given), names(*given)), depends, [sound, picture], **EVENT)


def run_choice(page: gr.Blocks, runs: Runs, synthetic: bool) -> list[gr.Dropdown]:
    """Two runs, the second one optional; looked for whenever the page is loaded."""
    def search() -> list[gr.Dropdown]:
        runs.refresh()
        labels = runs.fitting(synthetic)
        chosen = [*runs.first_two(labels), "", ""]
        return [gr.Dropdown([("none", ""), *zip(labels, labels, strict=True)], value=label, label=title)
                for label, title in zip(chosen, ("First run", "Second run"), strict=False)]

    with gr.Row():
        boxes = search()
    page.load(search, None, boxes, **EVENT)
    return boxes


def scene_tab(page: gr.Blocks, desk: SceneDesk) -> None:
    first, names = desk.rich_scene(), [str(t + 1) for t in range(SEGMENTS)]
    asked = desk.questions(first)
    gr.Markdown(SCENE_TEXT)
    runs = run_choice(page, desk.runs, synthetic=True)
    with gr.Row(elem_classes="low"):
        number = gr.Number(first, label=f"Test scene, 0 to {len(desk.benchmark) - 1}", precision=0, minimum=0,
                           maximum=len(desk.benchmark) - 1, min_width=190)
        following = gr.Button("Next scene", scale=0, min_width=140)
        own = gr.Dropdown(asked, value=asked[0] if asked else None, label="Test questions on this scene", scale=4)
    scene = gr.HTML(desk.picture(first, names, names), elem_id="scene")
    question = Question(Picker, [])
    sound, picture, buttons = switches(SEGMENTS)
    wire_switches(sound, picture, buttons, lambda: SEGMENTS, [])
    question.text.value = asked[0] if asked else ""
    answers = gr.HTML(desk.result(first, names, names, question.text.value, [run.value for run in runs]),
                      elem_id="answers")

    def show(*given) -> tuple[str, str]:
        return desk.picture(*given[:3]), desk.result(*given[:4], given[4:])

    def turn(number: float | None) -> tuple:
        try:
            asked = desk.questions(number)
        except TROUBLE:                  # the picture and the answers name it
            asked = []
        return gr.Dropdown(asked, value=asked[0] if asked else None), asked[0] if asked else ""

    following.click(lambda n: (int(n or 0) + 1) % len(desk.benchmark), number, number, **EVENT)
    wire(show, [number, sound, picture, question.text, *runs], [scene, answers], question.text,
         [question.ask.click, question.text.submit, sound.change, picture.change, *(run.change for run in runs)],
         [(number.change, turn, [number], [own, question.text]),
          (own.input, lambda text: [text], [own], [question.text]), *question.changes()])


def wire(show: Callable, inputs: list, outputs: list, text: gr.Textbox, events: list[Callable],
         changes: list[tuple]) -> None:
    """Show all anew after each of `events`, and after `changes` (event, function, inputs, outputs),
    whose last output is the question `text`.
    """
    place = next(i for i, component in enumerate(inputs) if component is text)

    def both(change: Callable, own: int) -> Callable:
        def changed(*given) -> list:
            made, rest = change(*given[:own]), list(given[own:])
            rest[place] = made[-1]
            return [*made, *show(*rest)]
        return changed

    for event in events:
        event(show, inputs, outputs, trigger_mode="always_last", **EVENT)
    for event, change, own, made in changes:
        event(both(change, len(own)), [*own, *inputs], [*made, *outputs], trigger_mode="always_last", **EVENT)


def clip_tab(page: gr.Blocks, desk: ClipDesk, paths: bool) -> None:
    """`paths`: whether a path on this machine may be typed."""
    gr.Markdown(CLIP_TEXT)
    runs = run_choice(page, desk.runs, synthetic=False)
    with gr.Row():
        upload = gr.File(label="A video file", file_types=["video", ".mkv"], type="filepath", height=120)
        with gr.Column():
            path = gr.Textbox(label="or its path on this machine", visible=paths, elem_classes="path")
            opened = gr.Button("Open")
    candidates = gr.Textbox(label="Candidates, separated by commas", visible=desk.shape(runs[0].value)[1])
    view = gr.HTML(desk.picture(None, [], [], None, []), elem_id="clip")
    question = Question(lambda label: desk.picker(label or None), runs[:1])
    sound, picture, buttons = switches(desk.segments(runs[0].value))
    wire_switches(sound, picture, buttons, lambda label: desk.segments(label or None), runs[:1])
    answers = gr.HTML("" if runs[0].value else desk.result(None, [], [], None, []), elem_id="clip-answers")

    def show(upload: str | None, path: str | None, candidates: str | None, *rest) -> tuple[str, str]:
        file, labels = upload or (path if paths else None), rest[3:]
        return desk.picture(file, *rest[:3], labels), desk.result(file, *rest[:3], labels, candidates)

    def fit(upload: str | None, path: str | None, candidates: str | None, text: str, *labels: str) -> tuple:
        segments, choice = desk.shape(labels[0])
        names = [str(t + 1) for t in range(segments)]
        return (gr.CheckboxGroup(names, value=names), gr.CheckboxGroup(names, value=names), gr.Textbox(visible=choice),
                *show(upload, path, candidates, names, names, text, *labels))

    inputs = [upload, path, candidates, sound, picture, question.text, *runs]
    runs[0].change(fit, [upload, path, candidates, question.text, *runs],
                   [sound, picture, candidates, view, answers], **EVENT)
    wire(show, inputs, [view, answers], question.text,
         [opened.click, upload.change, path.submit, question.ask.click, question.text.submit, sound.change,
          picture.change, runs[1].change], question.changes())


def build(scenes: SceneDesk, clips: ClipDesk, paths: bool) -> gr.Blocks:
    """Both tabs. `paths`: whether visitors may name files of this machine."""
    with gr.Blocks(title="Ask, mute, look", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown("# Ask, mute, look\nAudio-visual question answering with a missing modality")
        with gr.Tab("Scenes"):
            scene_tab(page, scenes)
        with gr.Tab("Your clip"):
            clip_tab(page, clips, paths)
    return page
