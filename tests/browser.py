"""A real Chromium for the console's tests: pages that report their errors, axe-core, screenshots."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from kit import DEADLINE
from playwright.sync_api import Browser, Page, expect, sync_playwright

WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
SCREENS = "HEADRACE_SCREENS"  # a folder for screenshots: `make screens` sets it to docs/console
_QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
_OFFLINE = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
_NAMES = ("chromium", "chromium-browser", "google-chrome")


expect.set_options(timeout=DEADLINE * 1000)  # long after anything is late


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's. Where none is installed the tests are skipped with a sentence, and fail in CI."""
    path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if path is None:
        said = "expected a Chromium for the console's tests, found none: apt-get install chromium"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(said)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*_QUIET, *_OFFLINE])
        yield browser
        browser.close()


@contextmanager
def page_of(browser: Browser, base: str, *, viewport: dict[str, int] = WIDE, dark: bool = False) -> Iterator[Page]:
    """Its addresses are below `base`. At its end no script has failed, and nothing was asked of anybody else."""
    context = browser.new_context(
        base_url=base, viewport=viewport, color_scheme="dark" if dark else "light", reduced_motion="reduce"
    )
    context.set_default_timeout(DEADLINE * 1000)
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
    page.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
    page.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith((base, "data:")) else None)
    yield page
    context.close()
    assert wrong == []


def accessible(page: Page) -> None:
    """No finding of axe-core that it calls serious or critical."""
    found = Axe().run(page).response["violations"]
    serious = [
        f"{one['id']}: {one['help']}: {[node['html'][:160] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == [], page.url


def fits(page: Page) -> None:
    """Nothing makes the page itself scroll sideways."""
    width, room = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert width <= room, f"{page.url} is {width} px wide, the window {room}"


def screenshot(page: Page, name: str, *, full: bool = False) -> None:
    """Into the folder that SCREENS names, if it does."""
    if folder := os.environ.get(SCREENS):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=full)
