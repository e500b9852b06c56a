"""How fast the engine decodes, against how fast the memory could feed it: `nanochat bench decode`.

    python -m bench.decode                 d12 of the classic shape, bf16 and int8, 1 to 16 streams
    python -m bench.decode --depth 20 --vocab-size 65536 --kinds int8 --json d20.json --plot d20.png
    python -m bench.decode --pairs 5 --against "other command"

The last one runs both in turn, so that both see the same machine.
"""

from __future__ import annotations

import sys

from nanochat.cli import main

if __name__ == "__main__":
    main(["bench", "decode", *sys.argv[1:]])
