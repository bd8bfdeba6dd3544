"""JupyterLab in Chromium, as a learner meets it: what is clicked, and what is then seen."""

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from playwright.sync_api import expect

SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},  # every cell stands in the page
}
PATIENCE = 120_000  # milliseconds: a kernel may start on a machine with much else to do
expect.set_options(timeout=PATIENCE / 4)
RUNNING = ".jp-InputPrompt:text-is('[*]:')"  # of a cell that runs, or waits until it may
LOOK = Path(__file__).with_name("look.js").read_text(encoding="utf-8")


@contextmanager
def serve(folder):
    """Serve a folder with JupyterLab and settings of its own; yield the address of a notebook.

    The address has {} in place of the notebook's path. Trainings are short, and their bars move.
    """
    config, token = folder / ".jupyter", secrets.token_hex(16)
    for name, settings in SETTINGS.items():
        path = config / "lab" / "user-settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--allow-root", "--no-browser"]
    command += ["--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
    command += [f"--IdentityProvider.token={token}"]
    environment = {"JUPYTER_CONFIG_DIR": str(config), "JUPYTER_DATA_DIR": str(config / "data")}
    environment |= {"CNNLIB_LIVE": "1", "CNNLIB_BUDGET": "quick"}
    server = subprocess.Popen(command, cwd=folder, env=os.environ | environment)
    try:
        _wait_for(server, f"http://127.0.0.1:{port}/api")
        yield f"http://127.0.0.1:{port}/lab/tree/{{}}?reset&token={token}"
    finally:
        server.terminate()
        server.wait(timeout=60)


def _wait_for(server, address):
    """Wait until a server answers, for two minutes at most."""
    deadline = time.monotonic() + 120
    while server.poll() is None and time.monotonic() < deadline:
        try:
            return urlopen(address)
        except URLError:
            time.sleep(0.2)
    raise RuntimeError("JupyterLab did not start")


class Lab:
    """A window of JupyterLab with one notebook.

    Args:
        page: A page of playwright.
        address: What `serve` yields.
    """

    def __init__(self, page, address):
        self.page, self.address = page, address
        self.console = []  # the errors that the page reported
        self.tab = page.locator(".lm-DockPanel-tabBar .lm-mod-current")
        self.outputs = page.locator(".jp-OutputArea-output")
        self.pictures = self.outputs.locator("img")
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.console.append(str(error)))
        page.on("console", self._listen)

    def _listen(self, message):
        is_of_a_closed_kernel = message.text.startswith("Could not restore the debugger state")
        if message.type == "error" and not is_of_a_closed_kernel:
            self.console.append(message.text)

    # What a learner does

    def open(self, path):
        """Open a notebook, wait for its kernel, and close the sidebar."""
        self.page.goto(self.address.format(path))
        self.page.locator("#jp-main-statusbar").get_by_text("(ipykernel) | Idle").wait_for()
        self.page.get_by_role("tab", name="File Browser").click()

    def choose(self, menu, *items):
        """Choose from the menu bar: a menu, and one item after another."""
        self.page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{menu}$")).click()
        for item in items:
            self.page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{item}")).click()

    def press(self, title):
        """Press a button of the toolbar."""
        self.page.locator(f".jp-NotebookPanel-toolbar [title^='{title}']").click()

    def confirm(self):
        """Agree to what a dialog asks."""
        self.page.locator(".jp-Dialog .jp-mod-accept").click()

    def run_all(self):
        """Run all cells, and do not wait for them."""
        self.choose("Run", "Run All Cells")
        self.page.locator(RUNNING).first.wait_for(state="attached")

    def restart_and_run_all(self):
        """Restart the kernel and run all cells, and do not wait for them."""
        self.choose("Kernel", "Restart Kernel and Run All Cells")
        self.confirm()
        self.page.locator(RUNNING).first.wait_for(state="attached")

    def stop(self):
        """Press Stop."""
        self.press("Interrupt the kernel")

    def wait(self, seconds=300):
        """Wait until no cell runs."""
        expect(self.page.locator(RUNNING)).to_have_count(0, timeout=1000 * seconds)

    def close(self):
        """Save a notebook, and close it with its kernel."""
        self.press("Save")
        expect(self.tab).not_to_have_class(re.compile("jp-mod-dirty"))
        self.choose("File", "Close and Shut Down Notebook")
        self.confirm()

    def reopen(self, path):
        """Save a notebook, close it with its kernel, and open it again."""
        self.close()
        self.open(path)

    def choose_theme(self, name):
        """Choose the theme Light or Dark."""
        self.choose("Settings", "Theme", f"JupyterLab {name}$")
        theme = self.page.locator(f"body[data-jp-theme-name='JupyterLab {name}']")
        theme.wait_for(state="attached")

    def resize(self, width):
        """Make the window as wide as that, in pixels."""
        self.page.set_viewport_size({"width": width, "height": 900})

    # What is then seen

    def is_unsaved(self):
        return "jp-mod-dirty" in self.tab.get_attribute("class")

    def contents(self):
        """Return the headings of the table of contents."""
        sidebar = self.page.get_by_role("tab", name="Table of Contents")
        sidebar.click()
        headings = self.page.locator(".jp-tocItem-content")
        headings.first.wait_for()
        texts = headings.all_inner_texts()
        sidebar.click()
        return texts

    def failures(self):
        """Return the errors below the cells, and what stands there in place of a lost widget."""
        errors = self.page.locator("[data-mime-type='application/vnd.jupyter.error']")
        warnings = self.page.locator("[data-mime-type='application/vnd.jupyter.stderr']")
        lost = self.outputs.get_by_text("Error displaying widget")
        return [text for each in (errors, warnings, lost) for text in each.all_inner_texts()]

    def texts_of_pictures(self):
        """Return the alternative text of each picture; None where there is none."""
        return self.pictures.evaluate_all("(all) => all.map((one) => one.getAttribute('alt'))")

    def cut_off(self):
        """Return the outputs that are wider than their place."""
        return self.page.evaluate(f"{LOOK} cutOff()")

    def faint(self):
        """Return the texts of outputs that stand out too little from their background."""
        return self.page.evaluate(f"{LOOK} faint()")

    def faint_focus(self):
        """Return what is wrong with the outline of the element that has the focus."""
        return self.page.evaluate(f"{LOOK} faintFocus()")
