"""The Hugging Face Hub as `push` and `pull` need it. Needs huggingface_hub: pip install -e '.[hub]'.

The only module that talks to the Hub, and only when one of the two commands was typed. The address is HF_ENDPOINT, or the
Hub's own; the token is HF_TOKEN. A login kept in a file is not used, nothing is kept in a cache, and nothing is ever asked.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from reconverge.envs.errors import ConfigError, DamagedFile, ReconvergeError
from reconverge.envs.optional_library import optional_library

TOKEN = "HF_TOKEN"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"


class HubError(ReconvergeError):
    """What the Hub or the way to it refuses."""


@dataclass(frozen=True)
class Repository:
    """A repository of the Hub, written as there: `OWNER/NAME` for a model, `datasets/OWNER/NAME` for a data set."""

    name: str
    kind: Literal["model", "dataset"] = "model"

    def __str__(self) -> str:
        return f"datasets/{self.name}" if self.kind == "dataset" else self.name


def read_repository(text: str) -> Repository:
    """Raises ConfigError for anything but the two forms."""
    name = text.removeprefix("datasets/")
    if not re.fullmatch(f"{_NAME}/{_NAME}", name) or ".." in name or "--" in name:
        raise ConfigError(f"'{text[:80]}' names no repository; write OWNER/NAME for a policy, datasets/OWNER/NAME for demonstrations")
    return Repository(name, "model" if name == text else "dataset")


class HubClient:
    """Commits files to repositories and reads them. Every method raises HubError, which says what was tried."""

    def __init__(self) -> None:
        self._library = optional_library("huggingface_hub", "the Hub", "hub")
        utils = optional_library("huggingface_hub.utils", "the Hub", "hub")
        utils.disable_progress_bars()
        self._no_such_tag: type[Exception] = utils.RevisionNotFoundError
        self.token = os.environ.get(TOKEN, "").strip() or None
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise ConfigError(f"{TOKEN} holds letters that no token has; set it to the token alone")
        self._access = {"endpoint": os.environ.get("HF_ENDPOINT") or None, "token": self.token or False}
        self._api = self._library.HfApi(**self._access)

    def commit(
        self, repository: Repository, files: Mapping[str, bytes], private: bool, message: str, tag: str | None, replaces: Callable[[str], bool]
    ) -> str:
        """One commit that adds the files and deletes those of an earlier one whose names `replaces` takes; others stay.

        A repository that is not there is made. `tag` is moved to the commit. Returns its hash.
        """
        if self.token is None:
            raise ConfigError(f"pushing needs a token of the Hub with the right to write; set {TOKEN} (https://huggingface.co/settings/tokens)")
        place = {"repo_id": repository.name, "repo_type": repository.kind}
        with _explained(f"pushing to {repository}"):
            self._api.create_repo(**place, private=private, exist_ok=True)
            if private and not self._api.repo_info(**place).private:
                raise HubError(f"{repository} is there already and public; make it private there, or push without --private")
            old = [name for name in self._api.list_repo_files(**place) if name not in files and replaces(name)]
            changes = [self._library.CommitOperationAdd(name, data) for name, data in files.items()]
            changes += [self._library.CommitOperationDelete(name) for name in old]
            found = self._api.create_commit(**place, operations=changes, commit_message=message)
            if tag is not None:
                with contextlib.suppress(self._no_such_tag):
                    self._api.delete_tag(**place, tag=tag)
                self._api.create_tag(**place, tag=tag, revision=found.oid)
            return str(found.oid)

    def commit_at(self, repository: Repository, revision: str | None) -> str:
        """The hash of the commit that a branch, tag or hash stands for; of the default branch's last one without any."""
        with _explained(f"looking for {repository}{f' at {revision}' if revision else ''}"):
            found = self._api.repo_info(repository.name, repo_type=repository.kind, revision=revision).sha
        if not re.fullmatch("[0-9a-f]{40}", str(found)):
            raise HubError(f"{repository}: the Hub names no commit; try again later")
        return str(found)

    def read(self, repository: Repository, commit: str, name: str, most_bytes: int) -> bytes:
        """A file of a commit. Raises DamagedFile where it holds more than `most_bytes`: no more than that is taken in, whatever was announced."""
        with _explained(f"reading {name} of {repository} at {commit[:12]}"):
            system = self._library.HfFileSystem(**self._access, skip_instance_cache=True)
            with system.open(f"{repository}/{name}", "rb", revision=commit, block_size=0) as stream:
                data = bytes(stream.read(most_bytes + 1))
        if len(data) > most_bytes:
            raise DamagedFile(f"{name} of {repository} is larger than the {most_bytes} bytes that it may have; nothing was kept")
        return data


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Whatever goes wrong on the way is one line: the library lets its transport's errors through, and has changed transports before."""
    try:
        yield
    except ReconvergeError:
        raise
    except Exception as error:
        said = " ".join(_without_secrets(str(error)).split())[:120] or type(error).__name__
        raise HubError(f"{what} failed ({said}); check the name, the network, and whether {TOKEN} may do that") from error


def _without_secrets(text: str) -> str:
    """A library's message without the token and without a password in an address; messages are kept in logs."""
    token = os.environ.get(TOKEN, "").strip()
    return re.sub(r"//[^/@\s]*@", "//...@", text.replace(token, "...") if token else text)
