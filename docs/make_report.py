"""Make the screenshot of the page on reports: ``python docs/make_report.py``, with chromium.

Takes the page that ``ifa demo`` has made, of the folder that is given, or of ``ifa-demo``.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright


def main(demo: str = "ifa-demo") -> None:
    """Open the page of a sample in chromium, and write what is seen."""
    page_file = (Path(demo) / "report.html").resolve()
    picture = Path(__file__).parent / "_static" / "report.png"
    with sync_playwright() as driver:
        chromium = shutil.which("chromium")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1140, "height": 1180}, color_scheme="light")
        page.goto(f"{page_file.as_uri()}#/sample/30")
        page.wait_for_selector("html[data-drawn=all]", state="attached")
        page.locator("#kept-slider").fill("16")
        page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        page.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
