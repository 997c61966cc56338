"""`reconverge view`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from reconverge.envs.errors import RunFolderError
from reconverge.launch.commands.command import Command


@dataclass(frozen=True)
class View(Command):
    """Show all runs below a folder on a page of this machine, live: where each is, its losses, success, videos and tables; and compare them.

    Only this machine is served, and nothing is written. From another machine, through a tunnel: ssh -L 8642:127.0.0.1:8642 HOST.

    Examples:
      reconverge view runs --open
      reconverge view results/cw10 --port 0
    """

    summary: ClassVar[str] = "a local page on which all runs below a folder are watched and compared"

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUNS_FOLDER")] = Path("runs")
    """Folder that holds runs at any depth, or is one."""
    port: int = 8642
    """Port of the page; 0 takes any free one."""
    open: bool = False
    """Open the page in the browser."""

    def run(self, command_line: str) -> int:
        if not self.folder.is_dir():
            raise RunFolderError(f"there is no folder {self.folder}; name the one that holds your runs, or make one: reconverge train --preset smoke")
        from reconverge.launch.view_server import ViewServer

        with ViewServer(self.folder, self.port) as server:
            print(f"runs below {self.folder}: {server.address}  (Ctrl-C ends)", flush=True)
            if self.open:
                _open_in_browser(server.address)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print(file=sys.stderr)
        return 0


def _open_in_browser(address: str) -> None:
    import webbrowser

    if not webbrowser.open(address):
        print("no browser was found here; open the address yourself", file=sys.stderr)
