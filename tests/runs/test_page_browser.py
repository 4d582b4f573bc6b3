"""The page in a real browser: load, ask, mute, see another answer; what the server gives away.

Skipped without gradio (requirements/page.txt), Playwright (pip install playwright) or a Chromium of
the system.
"""

import os
import shutil
import socket
import urllib.error
import urllib.request

import pytest
import toy_page
from commands import shell
from toy_page import ASKED, make_clip_run, make_scenes, write_clips

from dataset.synthetic.data import Synthetic

gradio = pytest.importorskip("gradio", reason="pip install -r requirements/page.txt")
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    write_clips(folder)
    return folder


@pytest.fixture(scope="module")
def address(folder):
    """The address of a page that shows small runs, served from this process."""
    from scripts.page.serve import serve

    root, runs = make_scenes(folder)
    clips = make_clip_run(folder)
    uploads = folder / "uploads"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.answerer.build_extractor", toy_page.build_extractor)
        patch.setitem(os.environ, "GRADIO_TEMP_DIR", str(uploads))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        page = serve([*runs, clips], root, {}, "cpu", port, "1mb", share=False, block=False)
        yield page.local_url
        page.close()


@pytest.fixture(scope="module")
def view(address):
    """A tab of a headless browser, which lists what it loads from elsewhere."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if not CHROMIUM:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 1280, "height": 1000})
        view.elsewhere = []
        view.on("request", lambda r: r.url.startswith((address, "data:")) or view.elsewhere.append(r.url))
        view.goto(address)
        view.wait_for_selector("#answers .card")
        yield view
        browser.close()


def wait(view, place: str, text: str) -> str:
    """What `place` says as soon as it says `text`."""
    view.wait_for_function("([place, text]) => document.querySelector(place)?.innerText.includes(text)",
                           arg=[place, text])
    return view.inner_text(place)


def ask(view, question: str) -> None:
    """On the tab that is open."""
    view.get_by_role("textbox", name="Question").fill(question)
    view.get_by_role("button", name="Ask").click()


def test_load_ask_mute_and_see_another_answer(view):
    """And one second alone."""
    own = '#answers [data-state="as switched"]'
    ask(view, "Is there a voiceover?")
    answers, scene = wait(view, own, "sound whole, picture whole"), view.inner_html("#scene")
    assert "Bayes oracle" in answers and "avst + rmm_avr" in answers and "avst + plain" in answers
    view.get_by_role("button", name="No sound").click()
    muted = wait(view, own, "sound missing, picture whole")
    without = view.inner_text('#answers [data-state="audio missing"]')
    assert muted.splitlines()[2:] == without.splitlines()[2:] != answers.splitlines()[2:]
    assert view.inner_html("#scene") != scene
    view.get_by_role("button", name="All back").click()
    assert wait(view, own, "sound whole, picture whole").splitlines()[0] == answers.splitlines()[0]
    view.locator(".picture input").first.click()
    wait(view, own, "sound whole, picture 5 of 6")


def test_another_scene_and_a_template(view):
    """The question is asked as it is picked; nothing was loaded from elsewhere."""
    from playwright.sync_api import expect

    scene, question = view.inner_text("#scene"), view.get_by_role("textbox", name="Question")
    before = question.input_value()
    view.get_by_role("button", name="Next scene").click()
    expect(question).not_to_have_value(before)
    assert view.inner_text("#scene") != scene
    view.get_by_label("Type of question").first.click()
    view.get_by_role("option", name="Visual/Location").first.click()
    expect(question).to_have_value("Where is the performance?")
    assert view.elsewhere == []


def test_a_question_in_unknown_words_is_one_sentence(view):
    ask(view, "<b>xyzzy</b> plugh?")
    assert "Traceback" not in wait(view, "#answers", "holds no word of the vocabulary")


def test_a_clip_of_ones_own(view, folder):
    view.get_by_role("tab", name="Your clip").click()
    wait(view, "#clip", "No clip is open yet")
    view.set_input_files("input[type=file]", folder / "clip.mp4")
    view.wait_for_selector("#clip img")
    ask(view, ASKED)
    own = '#clip-answers [data-state="as switched"]'
    wait(view, own, "sound whole, picture whole")
    view.get_by_role("button", name="No picture").click()
    wait(view, own, "sound whole, picture missing")


def test_a_path_is_opened_and_a_bad_file_named(view, folder):
    view.reload()
    view.get_by_role("tab", name="Your clip").click()
    for name, text in (("text", "The clip text.mp4 cannot be decoded"), ("silent", "This clip has no sound")):
        view.get_by_role("textbox", name="or its path").fill(str(folder / f"{name}.mp4"))
        view.get_by_role("button", name="Open").click()
        wait(view, "#clip", text)
    assert view.elsewhere == []


def status(address: str, path: str, data: bytes | None = None, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{address}{path}", data, headers), timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_the_server_gives_away_nothing(address, folder):
    """On this machine alone, no file but uploads, no endpoint, no upload beyond the limit."""
    assert address.startswith("http://127.0.0.1:")
    for path in (folder / "clip.mp4", "README.md", "scripts/explore.py", "/etc/hostname"):
        assert status(address, f"gradio_api/file={path}") == 403, path
    with urllib.request.urlopen(f"{address}gradio_api/info") as answer:
        assert answer.read() == b'{"named_endpoints":{},"unnamed_endpoints":{}}'
    head = b'Content-Disposition: form-data; name="files"; filename="a.mp4"'
    for size, wanted in ((1000, 200), (2_000_000, 413)):
        body = b"\r\n".join([b"--x", head, b"", b"0" * size, b"--x--", b""])
        assert status(address, "gradio_api/upload", body, **FORM) == wanted


def test_shared_visitors_name_no_files(folder):
    """With a public link the tab has no field for a path, and would not read one."""
    import scripts.page.build as build
    from scripts.page.clip_desk import ClipDesk
    from scripts.page.runs import Runs

    with gradio.Blocks() as page:
        build.clip_tab(page, ClipDesk(Runs([], {}, "cpu")), paths=False)
    assert not next(block for block in page.blocks.values() if "path" in (block.elem_classes or [])).visible
    show = next(fn.fn for fn in page.fns.values() if fn.fn and fn.fn.__name__ == "show")
    assert "No clip is open yet" in show(None, str(folder / "clip.mp4"), "", [], [], ASKED, "", "")[0]


@pytest.mark.parametrize("arguments, message", [
    (["--port", "70000"], "give a port up to 65535"), (["none"], "none does not exist; give run folders"),
    (["--data", "requirements"], "requirements is not empty and no embedded benchmark"),
    (["--weights", "x=y"], "not of the form NAME=PATH"),
])
def test_what_cannot_be_shown_is_one_line(arguments, message):
    done = shell("scripts/explore.py", *arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_port_that_is_taken_is_named(tmp_path):
    root = Synthetic(root=str(tmp_path / "scenes"), train_videos=9, val_videos=2, test_videos=2).root
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = shell("scripts/explore.py", "requirements", "--data", root, "--port", taken.getsockname()[1])
    assert done.returncode == 2 and "choose another one with --port" in done.stderr, done.stderr
