"""A notebook in scvi-tools' idiom runs unchanged, and says nothing that nobody asked for."""

ADVERTS = ("lightning", "litlogger", "tip:", "warning", "gpu available", "tpu")


def test_notebook(run_on_celbo):
    done = run_on_celbo("notebook.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "done 1.4.2"
    said = (done.stdout + done.stderr).lower()
    assert [advert for advert in ADVERTS if advert in said] == []
    assert len(done.stderr.splitlines()) < 12, done.stderr
