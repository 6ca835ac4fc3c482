"""Attacks by what lies in an artefact's folder: links, pipes, names that lead out of it."""

import os
import socket
import subprocess
import sys

import pytest

from crossrisk.artefacts import refuse_foreign_names, refuse_links
from crossrisk.errors import PublishError


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"weights")
    return folder


def test_files_and_folders_pass_and_so_does_a_folder_that_is_not_there(model, tmp_path):
    refuse_links(model)
    refuse_links(tmp_path / "none")


@pytest.mark.parametrize("target", ["/etc/hostname", "saved_model.pb", "../..", "nowhere", "."])
@pytest.mark.parametrize("place", ["link", "variables/link"])
def test_a_link_is_refused_wherever_it_leads(model, place, target):
    (model / place).symlink_to(target)
    with pytest.raises(PublishError, match=rf"'{place}' is a link, expected files and folders alone"):
        refuse_links(model)


def test_a_folder_that_is_itself_a_link_is_refused(model, tmp_path):
    (tmp_path / "version").symlink_to(model)
    with pytest.raises(PublishError, match="version is a link, expected a folder"):
        refuse_links(tmp_path / "version")
    with pytest.raises(PublishError, match="is a file, expected a folder"):
        refuse_links(model / "saved_model.pb")


def test_pipes_and_sockets_are_refused(model):
    os.mkfifo(model / "pipe")
    with pytest.raises(PublishError, match="'pipe' is a pipe"):
        refuse_links(model)
    (model / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(model / "s"))  # a path of at most 107 bytes
        with pytest.raises(PublishError, match="'s' is a socket or a device"):
            refuse_links(model)


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", "\u202egnp.exe", "a\\b"])
def test_a_name_that_no_person_can_type_is_refused(model, name):
    (model / "variables" / name).write_bytes(b"")
    with pytest.raises(PublishError, match="expected a name below the folder, of signs that print") as raised:
        refuse_links(model)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "..", "", "a\\..\\b", "a\x00b"])
def test_a_manifest_names_no_file_outside_its_folder(name):
    with pytest.raises(PublishError, match="names a file"):
        refuse_foreign_names(["saved_model.pb", name], where="manifest 17")


def test_names_below_the_folder_pass():
    refuse_foreign_names(["saved_model.pb", "variables/variables.data-00000-of-00001", "..data"], where="manifest 17")


def test_no_model_is_read_through_a_link(model):
    (model / "assets").symlink_to("/etc")
    code = "import sys; from pathlib import Path; from models.bundle import load; load(Path(sys.argv[1]))"
    ended = subprocess.run([sys.executable, "-c", code, str(model)], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "'assets' is a link" in ended.stderr
