"""Copy the notebooks to my_notebooks/, which is yours to change: python tools/copy_notebooks.py

A file that is there stays as it is. So run this again after an update of the course: it adds
what is new, and touches nothing that you wrote. For a newer version of a notebook,
rename yours first.
"""

from pathlib import Path

from cnnlib import _atomic

ROOT = Path(__file__).parent.parent


def copy(folder):
    """Copy what the folder lacks; return the files that were copied, and those that were there."""
    copied, kept = [], []
    for source in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        target = folder / source.relative_to(ROOT / "notebooks")
        if ".ipynb_checkpoints" in source.parts:
            continue
        if target.exists():
            kept.append(target)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            _atomic.write(target, source.read_bytes())
            copied.append(target)
    return copied, kept


def main():
    folder = ROOT / "my_notebooks"  # beside notebooks/, so that links and records are found
    copied, kept = copy(folder)
    print(f"{len(copied)} notebooks were copied to {folder}. {len(kept)} were there, and stay.")
    print(f"Open them with: uv run jupyter lab {folder.name}")


if __name__ == "__main__":
    main()
