"""The page about a run in a browser: one can click through it, and it asks for nothing else."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import Subset

import ifa
from ifa.reports import report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
if CHROMIUM is None:
    pytest.skip("there is no chromium: apt-get install chromium", allow_module_level=True)

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def some(split):
    """Take a hundred digits, enough of each of four classes for every diagnosis."""
    digits = ifa.nets.digits(split)
    return Subset(
        digits, [n for n, (_, label, _) in enumerate(digits) if label in (0, 1, 2, 3)][:100]
    )


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        one = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield one
        one.close()


@pytest.fixture(scope="module")
def network(trained):
    return trained(epochs=12).eval()


@pytest.fixture(scope="module")
def data():
    return some("held-out")


@pytest.fixture(scope="module")
def run(network, data):
    options = {"layer": ("conv2", "conv3"), "target_names": NAMES, "keep_samples": "full"}
    return ifa.analyze(network, data, progress=False, **options)


@pytest.fixture(scope="module")
def file(run, network, data, tmp_path_factory):
    other = ifa.analyze(
        network, Subset(ifa.nets.digits("train"), range(60)), layer="conv3", target_names=NAMES,
        keep_samples="full", progress=False,
    )  # fmt: skip
    out = tmp_path_factory.mktemp("page") / "report.html"
    return report(run, data, out, model=network, other=other, progress=False).path


class Opened:
    """A page, what it asked for, and what it complained of."""

    def __init__(self, browser, file, **options):
        self.page = browser.new_page(**options)
        self.asked, self.said = [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.url = file.as_uri()
        self.page.goto(self.url)
        self.page.wait_for_selector("html[data-drawn=all]", state="attached")

    def go(self, route):
        self.page.evaluate("to => { location.hash = '#/' + to }", route)

    def check(self):
        """Nothing was asked for but the file, and nothing went wrong."""
        assert self.said == []
        assert {url for url in self.asked if not url.startswith("data:")} == {self.url}


@pytest.fixture
def opened(browser, file):
    one = Opened(browser, file, viewport={"width": 1200, "height": 800})
    yield one
    one.check()
    one.page.close()


def pixels(page, name):
    """Return the colors (row, column, 3) of the canvas of a name."""
    found = page.get_by_role("img", name=name, exact=True).first
    size, values = found.evaluate(
        """drawn => {
            const [width, height] = [drawn.width, drawn.height];
            const copy = new OffscreenCanvas(width, height);
            const pen = copy.getContext('2d', { willReadFrequently: true });
            pen.drawImage(drawn, 0, 0);
            return [[height, width, 4], [...pen.getImageData(0, 0, width, height).data]];
        }"""
    )
    return np.array(values).reshape(size)[..., :3]


def test_the_story_open_class_feature_sample_scale_slider_outliers_print(opened):
    page = opened.page
    page.get_by_role("link", name="Classes").click()
    page.get_by_role("link", name="three", exact=True).click()
    assert page.get_by_role("heading", level=1).inner_text() == "Class three"
    page.get_by_role("link", name="channel").first.click()
    assert page.get_by_role("heading", level=1).inner_text().endswith("of layer conv2")
    page.get_by_role("link", name="Sample digit-").first.click()
    assert page.get_by_role("heading", level=1).inner_text().startswith("Sample digit-")

    bars = page.locator(".bar figcaption span:nth-child(2)")
    assert bars.first.inner_text() == "the run's scale"
    page.get_by_label("each map by itself").check()
    assert bars.first.inner_text() == "by itself"
    page.get_by_label("common scale").check()

    slider = page.locator("#kept-slider")
    most = int(slider.get_attribute("max"))
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert int(slider.input_value()) == most - 3
    assert page.evaluate("document.activeElement.id") == "kept-slider"
    assert f"{most - 3} channels kept" in page.locator("main").inner_text()

    page.get_by_role("link", name="Samples").click()
    ranks = page.locator("tbody tr td:last-child")
    page.get_by_role("button", name="sample", exact=True).click()
    page.get_by_role("button", name="outlier rank").click()
    assert ranks.first.inner_text().startswith("1, p =")
    page.get_by_role("button", name="outlier rank").click()
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("outlier rank")
    assert not ranks.first.inner_text().startswith("1, p =")
    page.get_by_label("Search").fill("digit-0000")
    assert page.locator("tbody tr").count() == 1

    page.go_back()
    assert page.get_by_role("heading", level=1).inner_text().startswith("Sample digit-")
    assert len(page.pdf()) > 10_000
    page.emulate_media(media="print")
    assert not page.locator("header").is_visible()


def test_every_view_is_there_and_two_runs_are_compared(opened):
    page = opened.page
    views = {
        "overview": "run: a report",
        "classes": "Classes",
        "features": "Channels of layer conv2",
    }
    views |= {"samples": "Samples", "layers": "Layers side by side", "compare": "Two runs compared"}
    for view, title in views.items():
        opened.go(view)
        page.get_by_role("heading", level=1, name=title, exact=True).wait_for()
    assert "The other run has no layer conv2" in page.locator("main").inner_text()
    page.get_by_role("combobox", name="Layer").select_option(label="conv3")
    assert "shift of layer conv3" in page.locator("main").inner_text()
    opened.go("nothing/here")
    page.get_by_role("heading", level=1, name="There is no such page here").wait_for()


def test_maps_are_drawn_as_the_library_draws_them(opened, run, network, data):
    page = opened.page
    opened.go("sample/0")
    id = page.get_by_role("heading", level=1).inner_text().removeprefix("Sample ")
    image = next(image for image, _, name in data if name == id)
    for layer in ("conv3", "conv2"):
        page.get_by_role("combobox", name="Layer").select_option(label=layer)
        scale = ifa.scale_from(run[layer])
        maps = ifa.explain(network, image[None], layer=layer, scale=scale)
        drawn = pixels(page, f"Map of {id} by fullcam, the run's scale")
        assert np.abs(drawn - np.asarray(ifa.plot.blend(image, maps[0], scale=scale))).max() <= 2


def test_the_slider_keeps_what_a_mask_keeps(opened, run, network, data):
    page = opened.page
    opened.go("sample/0")
    page.get_by_role("combobox", name="Layer").select_option(label="conv3")
    page.get_by_role("combobox", name="Ranked by").select_option("difference")
    page.locator("#kept-slider").fill("16")
    id = page.get_by_role("heading", level=1).inner_text().removeprefix("Sample ")
    image = next(image for image, _, name in data if name == id)
    scale = ifa.scale_from(run["conv3"])
    known = ifa.difference(run["conv3"]).dropna("target")
    mask = ifa.select.largest_absolute(known, ratio=0.25)
    maps = ifa.explain(network, image[None], layer="conv3", scale=scale, mask=mask)
    drawn = pixels(page, f"Map of {id} with 16 channels")
    assert np.abs(drawn - np.asarray(ifa.plot.blend(image, maps[0], scale=scale))).max() <= 6


def test_a_keyboard_is_enough(opened):
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "H1"
    page.keyboard.press("Tab")
    page.get_by_role("link", name="Features").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "H1"
    assert page.title().startswith("Channels of layer conv2")


def test_a_notebooks_frame_can_be_clicked_through(browser, run, tmp_path):
    outside = tmp_path / "notebook.html"
    outside.write_text(f"<!doctype html><title>notebook</title>{report(run)._repr_html_()}")
    page = browser.new_page()
    page.goto(outside.as_uri())
    frame = page.frame_locator("iframe")
    frame.get_by_role("link", name="Features").click()
    assert frame.get_by_role("heading", level=1).inner_text() == "Channels of layer conv2"
    assert page.url == outside.as_uri()
    page.close()


# What is fetched from npm when tests run, and not kept.
AXE, TYPESCRIPT = "axe-core@4.14.1", "typescript@5.9.3"


def fetched(package, folder):
    """Fetch a package of npm to a folder; skip where there is no npm, or no network."""
    if shutil.which("npm") is None:
        pytest.skip("there is no npm")
    found = subprocess.run(
        ["npm", "pack", "--silent", package], cwd=folder, capture_output=True, text=True
    )
    if found.returncode:
        pytest.skip(f"npm does not give {package}: {found.stderr.strip()[-200:]}")
    shutil.unpack_archive(folder / found.stdout.split()[-1], folder, filter="data")
    return folder / "package"


@pytest.mark.deep
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_mend(scheme, browser, file, tmp_path):
    axe = fetched(AXE, tmp_path) / "axe.min.js"
    # what the test adds is no part of the page
    one = Opened(browser, file, color_scheme=scheme, bypass_csp=True)
    one.page.add_script_tag(path=axe)
    views = ("overview", "classes", "class/3", "features", "feature/1/5", "samples", "sample/0")
    for view in (*views, "layers", "compare"):
        one.go(view)
        found = one.page.evaluate("axe.run(document).then(found => found.violations)")
        assert [(each["id"], each["nodes"][0]["html"]) for each in found] == [], view
    one.page.close()


@pytest.mark.deep
@pytest.mark.parametrize("space", [1, 3])
@pytest.mark.parametrize("width", [380, 800, 1200])
def test_signals_and_volumes_are_drawn_at_every_width(space, width, browser, tmp_path):
    data = ifa.nets.simulated(space, samples=30)
    net = ifa.nets.simulated_cnn(space).eval()
    run = ifa.analyze(net, data, layer="conv2", keep_samples="full", progress=False)
    out = report(run, data, tmp_path / "page.html", model=net, progress=False).path
    one = Opened(browser, out, viewport={"width": width, "height": 800})
    for view in ("overview", "features", "feature/0/3", "samples", "sample/0"):
        one.go(view)
        # nothing is wider than the window
        assert one.page.evaluate("document.documentElement.scrollWidth") <= width, view
    name = one.page.get_by_role("heading", level=1).inner_text().removeprefix("Sample ")
    drawn = one.page.get_by_role("img", name=f"Map of {name} by fullcam")
    assert drawn.count() == (3 if space == 3 else 1)
    if space == 3:
        one.page.get_by_role("slider", name="Plane at z").fill("2")
        assert "at z = 2" in drawn.first.get_attribute("aria-label")
    one.check()
    one.page.close()


@pytest.mark.deep
def test_the_scripts_are_as_their_comments_say(tmp_path):
    if shutil.which("node") is None:
        pytest.skip("there is no node")
    compiler = fetched(TYPESCRIPT, tmp_path) / "bin" / "tsc"
    (tmp_path / "preact.d.ts").write_text("declare const preact: any;")
    strict = ("strict", "noUnusedLocals", "noUnusedParameters", "noImplicitReturns")
    options = dict.fromkeys(("allowJs", "checkJs", "noEmit", *strict), True)
    options |= {"noImplicitAny": False, "target": "es2022", "types": []}
    options |= {"lib": ["es2022", "dom", "dom.iterable"]}
    scripts = sorted((Path(ifa.__file__).parent / "reports" / "page").glob("*.js"))
    files = [str(tmp_path / "preact.d.ts"), *map(str, scripts)]
    project = tmp_path / "tsconfig.json"
    project.write_text(json.dumps({"compilerOptions": options, "files": files}))
    found = subprocess.run(["node", compiler, "-p", project], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
