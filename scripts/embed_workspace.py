"""Write the repository's own workspace: the pocket preset, at the top of the repository.

python scripts/embed_workspace.py           write it anew
python scripts/embed_workspace.py --check   exit with 1 where a file differs from the preset
"""

from __future__ import annotations

import sys
from pathlib import Path

from adapterctl.pocket.world import LANGUAGES
from adapterctl.workflows.init import workspace_texts

ROOT = Path(__file__).resolve().parents[1]
OWN = ("adapterctl.yaml", "adapters/", "evaluation/", "incoming/")
"""What belongs to the workspace; the rest of the preset has its counterpart in the repository."""


def main() -> int:
    """Write or check the files; return the exit code."""
    texts = {
        path: text for path, text in workspace_texts("pocket", "pocket", LANGUAGES).items() if path.startswith(OWN)
    }
    stale = [
        path
        for path, text in texts.items()
        if not (ROOT / path).is_file() or (ROOT / path).read_text(encoding="utf-8") != text
    ]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path} is not as the pocket preset has it; run: make docs", file=sys.stderr)
        return int(bool(stale))
    for path in stale:
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(texts[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
