"""Re-run the course's notebooks and write what a reader should see, and nothing of this machine.

python tools/refresh_notebooks.py                          run every notebook, two at a time
python tools/refresh_notebooks.py notebooks/05_resnet.ipynb
python tools/refresh_notebooks.py --strip-only NOTEBOOK ...  only clean the outputs that are there

A notebook whose outputs hold an error, a warning or a path of the machine stays as it was, and the
script ends with 1.
"""

import argparse
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"

# Bars and curves do not move, numbers are those of float32, and two notebooks share two cores.
SETTINGS = {
    "CNNLIB_LIVE": "0",
    "CNNLIB_PRECISION": "fp32",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
# What JupyterLab itself writes as it opens a notebook, which counts as unsaved if it held anything
# else before. (Another version of Python is something else, and that cannot be helped.)
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE_INFO = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
    "version": "3.11.7",
}
KEPT_METADATA = {"jupyter", "slideshow", "tags"}
WIDGET = "application/vnd.jupyter.widget-view+json"
DATA_URI = re.compile(r"data:image/\w+;base64,[\w+/=]+")
MACHINE_PATH = re.compile(r"/(?:root|home|Users|tmp|work|usr|opt|var)/|[A-Z]:\\")


def all_notebooks():
    """Return the paths of the course's notebooks, in their order; the index is none of them."""
    paths = NOTEBOOKS.rglob("*.ipynb")
    hidden = {".ipynb_checkpoints", "00_index.ipynb"}
    return sorted(path for path in paths if not hidden & {*path.parts})


def run(notebook, folder):
    """Run a notebook in place, in the folder, down to its end or its first error."""
    client = NotebookClient(
        notebook,
        timeout=1200,
        kernel_name=KERNELSPEC["name"],
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        store_widget_state=False,
    )
    with suppress(CellExecutionError):  # faults() reads it from the cell's output
        client.execute()


def strip(notebook):
    """Remove, in place, what differs between two runs and tells the reader nothing."""
    CoalesceStreamsPreprocessor().preprocess(notebook, {})
    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = KERNELSPEC
    notebook.metadata["language_info"] = LANGUAGE_INFO
    for cell in notebook.cells:
        for key in cell.metadata.keys() - KEPT_METADATA:
            del cell.metadata[key]
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(_without_widget, cell.outputs) if output]


def _without_widget(output):
    """Return an output without its widget, which needs a kernel; None if only its name is left."""
    if output.get("data", {}).pop(WIDGET, None) and output.data.keys() <= {"text/plain"}:
        return None
    return output


def faults(notebook):
    """Return what must not be published, one sentence per fault."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            may_fail = "raises-exception" in cell.metadata.get("tags", [])
            if output.output_type == "error" and not may_fail:
                found.append(f"{output.ename}: {output.evalue}, from:\n{cell.source}")
            elif output.get("name") == "stderr":
                found.append(f"{output.text!r} on stderr, from:\n{cell.source}")
            elif path := MACHINE_PATH.search(_text(output)):
                found.append(f"a path of this machine, {path[0]}..., from:\n{cell.source}")
    return found


def _text(output):
    """Return what an output says in words, its pictures left out."""
    items = output.get("data", output).items()
    words = "\n".join(str(value) for key, value in items if not key.startswith("image/"))
    return DATA_URI.sub("", words)


def refresh(path, strip_only=False):
    """Run and strip the notebook at a path; return its faults, or write it if it has none."""
    start = time.perf_counter()
    before = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(before, as_version=4)
    if not strip_only:
        run(notebook, path.parent)
    strip(notebook)
    after = nbformat.writes(notebook) + "\n"
    found = faults(notebook)
    if not found and after != before:
        path.write_text(after, encoding="utf-8", newline="\n")
    state = "refused" if found else "unchanged" if after == before else "written"
    print(f"{path.name}: {state}, {time.perf_counter() - start:.0f} s", flush=True)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of them")
    parser.add_argument("--strip-only", action="store_true", help="run nothing")
    parser.add_argument("--jobs", type=int, default=2, help="notebooks at a time (default: 2)")
    arguments = parser.parse_args()
    os.environ.update(SETTINGS)
    paths = arguments.notebooks or all_notebooks()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        results = list(pool.map(lambda path: refresh(path, arguments.strip_only), paths))
    for path, found in zip(paths, results, strict=True):
        for fault in found:
            print(f"\n{path.name}: {fault}", file=sys.stderr)
    return int(any(results))


if __name__ == "__main__":
    sys.exit(main())
