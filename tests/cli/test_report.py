"""``celbo report``: a saved model is judged on files."""

import json

import pytest


def test_page_and_json(trained, small, celbo, tmp_path):
    done = celbo("report", trained.folder, small.path, "-o", tmp_path / "r.html")
    assert done.exit_code == 0, done.stderr
    assert done.stderr == "X of the new data: 30 columns are matched by name, 10 others are not used\n"
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Did training converge?" in text
    assert "Verdict: " in done.stdout
    celbo("report", trained.folder, small.path, "-o", tmp_path / "r.json", "-q")
    document = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    kept = trained.record["figures"]["verdict"]
    assert document["verdict"]["sentence"] == kept["sentence"]
    assert [one["grade"] for one in document["verdict"]["answers"]] == [one["grade"] for one in kept["answers"]]


def test_what_is_there_stays(trained, small, celbo, tmp_path):
    (tmp_path / "r.html").write_text("old")
    done = celbo("report", trained.folder, small.path, "-o", tmp_path / "r.html")
    assert done.exit_code == 2
    assert (tmp_path / "r.html").read_text() == "old"


@pytest.mark.parametrize(("name", "said"), [("r.pdf", "a report is written as .html or .json"), ("r", "'nothing'")])
def test_suffix(trained, small, celbo, tmp_path, name, said):
    done = celbo("report", trained.folder, small.path, "-o", tmp_path / name)
    assert done.exit_code == 2
    assert said in done.stderr
