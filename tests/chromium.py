"""Chromium, for the tests that need a browser. Debian has it in the package `chromium`."""

import json
import re
import shutil
import subprocess
from html import unescape

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def open_page(folder, html, script):
    """Show HTML in a new browser, run a script that fills the object `found`, and return that.

    The time of the page runs ahead, so nine seconds of it pass at once.
    """
    path = folder / "page.html"
    path.write_text(
        f"""<!doctype html><meta charset="utf-8"><body>{html}
<script>
const found = {{}};
const publish = () => {{ document.getElementById("found").textContent = JSON.stringify(found); }};
{script}
document.body.insertAdjacentHTML("beforeend", `<pre id="found"></pre>`);
publish();
</script></body>""",
        encoding="utf-8",
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=9000"]
    options += [f"--user-data-dir={folder / 'profile'}", "--dump-dom", path.as_uri()]
    done = subprocess.run([CHROMIUM, *options], capture_output=True, text=True, timeout=120)
    *_, found = re.findall(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    return json.loads(unescape(found))
