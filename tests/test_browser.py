"""The console in a real browser: a lab run is watched and a proposal approved there; without the token nothing is seen."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from lamdatui.inputs.profile import load_profile
from lamdatui.wire import rundir
from tests import chromium
from tests.conftest import Commands
from tests.test_run import wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium.find() is None, reason="Chromium is not installed; on Debian: apt-get install chromium"),
]


async def test_a_run_is_watched_and_a_proposal_approved_in_a_browser(lab_profile, cli: Commands, tmp_path: Path) -> None:
    run_dir = rundir.prepare_run(load_profile(lab_profile()), "seen", cli.runs)
    await asyncio.to_thread(rundir.start_engine, run_dir, rundir.StartOptions())
    process = cli.popen("serve", "seen", "--port", "0")
    assert process.stdout is not None
    address = (await asyncio.to_thread(process.stdout.readline)).strip()
    base = address.split("?")[0]
    try:
        async with chromium.chromium(tmp_path / "profile") as page:
            await page.ask("Page.navigate", url=base)
            await until(page, "document.body.innerText", "the token is missing or wrong")
            page.complaints.clear()
            await page.ask("Page.navigate", url=address)
            await page.until("Approve trial 1")
            assert await page.run("location.href") == base, "the token has left the address bar"
            assert await page.run("document.cookie") == "", "scripts can't read the cookie"
            # Nobody clicked: the keyboard is the terminal's from the start.
            await until(page, "document.activeElement.className", "xterm-helper-textarea")
            await page.press("F2")
            await page.until("a approve")
            # The card's grace period is part of the product.
            await asyncio.sleep(1.0)
            await page.picture(Path(os.environ.get("LAMDATUI_PICTURE", tmp_path / "browser.png")))
            await page.press("a")
            state = await asyncio.to_thread(wait_for, cli, "seen", lambda state: state.trials[1].status == "done")
            assert state.trials[1].decision["verdict"] == "approve"
            await page.until("Approve trial 2")
            # Without a GPU the browser says that it draws in software; the plain page of a refusal names no icon, so one is looked for.
            assert [text for text in page.complaints if "WebGL" not in text and "/favicon.ico" not in text] == []
            assert {url.split("/")[2] for url in page.requests} == {base.split("/")[2]}, "nothing is loaded from elsewhere"
        assert wait_for(cli, "seen", lambda _: True).trials[2].status == "awaiting", "closing the browser stopped nothing"
    finally:
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait, 20) == 0
    assert rundir.is_alive(run_dir)


async def until(page: chromium.Page, script: str, word: str) -> None:
    async with asyncio.timeout(chromium.LOAD_SECONDS):
        while word not in str(await page.run(script)):
            await asyncio.sleep(0.05)
