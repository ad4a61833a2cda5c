"""``python -m qwen3_codegen`` is ``qwen3-codegen``."""

import sys

from qwen3_codegen.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
