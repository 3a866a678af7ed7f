"""A watched folder: which of its files are to run now."""

import json


class Folder:
    """The files with one suffix in a folder, without its subfolders and hidden files.

    A file is ready once it is complete: it was the same at two looks in a row, or it is JSON that can be parsed. It is
    ready again after every change.
    """

    def __init__(self, path, suffix):
        self.path = path
        self.suffix = suffix
        self.seen = {}  # {path: its state at the last look}
        self.taken = {}  # {path: its state when it was taken}

    def look(self):
        """(paths of the ready files by name, whether others are not complete yet)."""
        try:
            found = sorted(self.path.iterdir())
        except OSError:  # a network drive may come back; what ran before does not run again then
            return [], False
        before, self.seen = self.seen, {path: state for path in found if (state := self._state(path))}
        self.taken = {path: state for path, state in self.taken.items() if path in self.seen}
        waiting = [path for path, state in self.seen.items() if self.taken.get(path) != state]
        ready = [path for path in waiting if before.get(path) == self.seen[path] or self._is_parsed(path)]
        return ready, len(ready) < len(waiting)

    def take(self, path):
        """Note that a ready file runs now."""
        self.taken[path] = self.seen[path]

    def _state(self, path):
        """(time of the last change in ns, bytes) of a file, or None if it is none of ours."""
        if path.suffix.lower() != self.suffix or path.name.startswith("."):
            return None
        try:
            state = path.stat()
        except OSError:  # it went away since it was listed
            return None
        return (state.st_mtime_ns, state.st_size) if path.is_file() else None

    def _is_parsed(self, path):
        try:
            return self.suffix == ".json" and json.loads(path.read_text("utf-8")) is not None
        except (OSError, ValueError):
            return False
