"""What a re-run notebook keeps of the machine that ran it: nothing."""

import nbformat
import pytest
from nbformat import v4

from tools.refresh_notebooks import KERNELSPEC, LANGUAGE_INFO, WIDGET, faults, refresh, strip

PNG = "iVBORw0KGgo/tmp/"  # any base64


def notebook(*outputs, source="1 + 1", **metadata):
    """Return a notebook of one code cell with these outputs and this metadata."""
    cell = v4.new_code_cell(source, outputs=list(outputs), metadata=metadata, execution_count=1)
    return v4.new_notebook(cells=[cell])


def shown(**data):
    """Return an output that shows data, its types written with _ for /."""
    types = {"html": "text/html", "png": "image/png", "text": "text/plain", "widget": WIDGET}
    return v4.new_output("display_data", {types[key]: value for key, value in data.items()})


def printed(text, name="stdout"):
    return v4.new_output("stream", name=name, text=text)


def stripped(*outputs, **metadata):
    """Return the cell of a stripped notebook."""
    made = notebook(*outputs, **metadata)
    strip(made)
    return made.cells[0]


def test_what_is_printed_in_pieces_is_joined():
    (output,) = stripped(printed("a\n"), printed("b\n")).outputs
    assert output.text == "a\nb\n"


def test_a_widget_goes_and_its_name_with_it():
    cell = stripped(printed("a"), shown(widget={"model_id": "1"}, text="IntSlider(value=0)"))
    assert [output.output_type for output in cell.outputs] == ["stream"]


def test_what_stands_beside_a_widget_stays():
    (output,) = stripped(shown(widget={"model_id": "1"}, text="Explorer()", html="<p>7")).outputs
    assert output.data == {"text/plain": "Explorer()", "text/html": "<p>7"}


def test_text_and_pictures_stay():
    outputs = [shown(text="2"), shown(png=PNG, text="Figure"), shown(html="<p>7")]
    assert stripped(*outputs).outputs == outputs


def test_of_a_cell_only_its_tags_and_its_folding_stay():
    kept = {"tags": ["exercise"], "jupyter": {"source_hidden": True}}
    cell = stripped(execution={"iopub.status.busy": "now"}, scrolled=True, **kept)
    assert cell.metadata == kept


def test_of_the_notebook_widgets_go_and_the_kernel_is_the_usual_one():
    made = notebook()
    made.metadata = {"widgets": {}, "kernelspec": {"name": "mine"}, "language_info": {"name": "x"}}
    strip(made)
    assert made.metadata == {"kernelspec": KERNELSPEC, "language_info": LANGUAGE_INFO}


def test_cells_keep_their_ids_and_strip_is_done_after_once():
    made = notebook(printed("a"), printed("b"), shown(widget={}, html="<p>"))
    name = made.cells[0].id
    strip(made)
    once = nbformat.writes(made)
    strip(made)
    assert nbformat.writes(made) == once
    assert made.cells[0].id == name


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (v4.new_output("error", ename="ValueError", evalue="no"), "ValueError: no"),
        (printed("warning\n", name="stderr"), "stderr"),
        (printed("/home/me/data"), "/home/"),
        (shown(text=r"C:\Users\me"), "C:"),
        (shown(html="<img src='/tmp/a.png'>"), "/tmp/"),
    ],
)
def test_what_must_not_be_published_is_named_with_its_cell(output, words):
    (fault,) = faults(notebook(output, source="print(x)"))
    assert words in fault
    assert fault.endswith("print(x)")


@pytest.mark.parametrize(
    "output",
    [
        printed("a ratio of 1/2, at 12:30"),
        shown(png=PNG, text="<Figure>"),
        shown(html=f'<img alt="A cat" src="data:image/png;base64,{PNG}">'),
    ],
)
def test_pictures_and_plain_words_may_be_published(output):
    assert faults(notebook(output)) == []


def test_an_error_that_a_cell_shows_on_purpose_may_be_published():
    error = v4.new_output("error", ename="ValueError", evalue="no")
    assert faults(notebook(error, tags=["raises-exception"])) == []


def test_a_notebook_with_faults_stays_as_it_was(tmp_path, capsys):
    path = tmp_path / "a.ipynb"
    nbformat.write(notebook(printed("/home/me"), scrolled=True), path)
    before = path.read_bytes()
    assert refresh(path, strip_only=True)
    assert path.read_bytes() == before
    assert "a.ipynb: refused" in capsys.readouterr().out


def test_a_notebook_is_run_in_its_folder_and_a_second_run_changes_nothing(tmp_path, capsys):
    path = tmp_path / "a.ipynb"
    (tmp_path / "number.txt").write_text("7")
    nbformat.write(notebook(printed("old"), source="print(open('number.txt').read())"), path)
    assert refresh(path) == []
    assert refresh(path) == []
    (cell,) = nbformat.read(path, as_version=4).cells
    assert cell.outputs == [printed("7\n")]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["a.ipynb: written", "a.ipynb: unchanged"]
