# SPDX-License-Identifier: Apache-2.0
"""hearth.download refused: tokens and licences, what is not there any more, and lists of files that lie."""

from __future__ import annotations

from pathlib import Path

import pytest
from downloads import Blob, Fault, Repo, TestHub, ask, contents, model, sentence, sha256

from hearth.download import ExtraFile, present

SIZE = 300_000


pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("others_stay_untouched")]


def test_the_token_does_not_follow_a_redirect_to_another_host(
    hub: TestHub, repo: Repo, folder: Path, tmp_path: Path
) -> None:
    hub.tokens.add("hf_secret")
    (tmp_path / "token").write_text("hf_secret\n")

    present(ask(hub, folder, token_file=str(tmp_path / "token")))

    assert {one.token for one in hub.script.asked(at="hub")} == {"hf_secret"}
    assert {one.headers.get("authorization") for one in hub.script.asked(at="cdn")} == {None}


def test_the_token_does_not_go_to_the_host_of_an_extra_file(
    hub: TestHub, repo: Repo, folder: Path, tmp_path: Path
) -> None:
    hub.tokens.add("hf_secret")
    (tmp_path / "token").write_text("hf_secret")
    hub.plain["/x"] = Blob(b"x")
    extra = ExtraFile(url=f"{hub.url('cdn')}/x", path="x")

    present(ask(hub, folder, token_file=str(tmp_path / "token"), extra_files=(extra,)))

    assert hub.script.asked("/x", at="cdn")[-1].headers.get("authorization") is None


def test_the_token_is_in_no_file_that_is_left(hub: TestHub, repo: Repo, folder: Path, tmp_path: Path) -> None:
    hub.tokens.add("hf_secret")
    (tmp_path / "token").write_text("hf_secret")
    hub.script.add(Fault(path=sha256(hub), at="cdn", status=500, times=3))
    request = ask(hub, folder, token_file=str(tmp_path / "token"))

    said = sentence(request)
    present(request)

    assert "hf_secret" not in said
    assert not [path for path in folder.parent.rglob("*") if path.is_file() and b"hf_secret" in path.read_bytes()]


def test_a_gated_model_without_a_token_wants_a_login(hub: TestHub, repo: Repo, folder: Path) -> None:
    repo.gated = True

    said = sentence(ask(hub, folder))

    assert "of me/model is gated: log in" in said
    assert f"accepted the licence at {hub.endpoint}/me/model" in said


def test_a_gated_model_with_a_token_wants_its_licence_accepted(
    hub: TestHub, repo: Repo, folder: Path, tmp_path: Path
) -> None:
    repo.gated = True
    hub.tokens.add("hf_other")
    (tmp_path / "token").write_text("hf_other")

    said = sentence(ask(hub, folder, token_file=str(tmp_path / "token")))

    assert f"accept the licence at {hub.endpoint}/me/model with the account of the token" in said
    assert "log in" not in said


def test_a_gated_model_comes_with_the_right_token(hub: TestHub, repo: Repo, folder: Path, tmp_path: Path) -> None:
    repo.gated = True
    hub.tokens.add("hf_ours")
    repo.allowed.add("hf_ours")
    (tmp_path / "token").write_text("hf_ours")

    present(ask(hub, folder, token_file=str(tmp_path / "token")))

    assert contents(folder) == model()


def test_a_token_the_hub_does_not_know_is_told(hub: TestHub, repo: Repo, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_expired")

    said = sentence(ask(hub, folder, token_file=str(tmp_path / "token")))

    assert "does not know the token given for me/model" in said
    assert "hf_expired" not in said


@pytest.mark.parametrize("content", ["", "two words"])
def test_a_token_file_without_a_token_is_told(
    hub: TestHub, repo: Repo, folder: Path, tmp_path: Path, content: str
) -> None:
    (tmp_path / "token").write_text(content)

    assert "does not hold one token" in sentence(ask(hub, folder, token_file=str(tmp_path / "token")))


def test_a_private_or_unknown_repository_is_told(hub: TestHub, folder: Path, tmp_path: Path) -> None:
    hub.tokens.add("hf_ours")
    (tmp_path / "token").write_text("hf_ours")

    assert "is private, or does not exist: log in" in sentence(ask(hub, folder))
    said = sentence(ask(hub, folder, token_file=str(tmp_path / "token")))
    assert "has no repository me/model (any more)" in said


def test_an_unknown_revision_is_told(hub: TestHub, repo: Repo, folder: Path) -> None:
    assert "me/model has no revision v9 (any more)" in sentence(ask(hub, folder, revision="v9"))


def test_a_repository_that_vanished_leaves_the_model_as_it_is(hub: TestHub, repo: Repo, folder: Path) -> None:
    present(ask(hub, folder))
    del hub.repos["me/model"]

    said = sentence(ask(hub, folder))

    assert f"what is in {folder} is whole (commit {repo.branches['main'][:12]}): with offline it is used" in said
    assert contents(folder) == model()
    assert not present(ask(hub, folder, offline=True)).changed


def test_a_commit_that_vanishes_while_it_comes_is_told(hub: TestHub, repo: Repo, folder: Path) -> None:
    hub.script.add(Fault(path="config.json", status=404, headers={"X-Error-Code": "EntryNotFound"}, times=-1))

    assert "if the repository changed just now, ask again" in sentence(ask(hub, folder))


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "a//b", ".hearth.json", "a\\b", "a\nb"])
def test_a_path_that_leads_out_of_the_folder_is_refused(hub: TestHub, repo: Repo, folder: Path, path: str) -> None:
    repo.listed_as["config.json"] = path

    said = sentence(ask(hub, folder))

    assert "nothing was fetched; do not use this source" in said
    assert hub.script.asked("resolve") == []
    assert [one.name for one in folder.parent.iterdir()] == ["other"]


def test_a_link_in_the_folder_leads_no_file_out_of_it(hub: TestHub, repo: Repo, folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "vocab.json").write_text("not the hub's")
    folder.mkdir()
    (folder / "tokenizer").symlink_to(outside)

    present(ask(hub, folder))

    assert (outside / "vocab.json").read_text() == "not the hub's"
    assert contents(folder) == model()
