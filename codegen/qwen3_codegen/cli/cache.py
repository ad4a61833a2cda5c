"""``qwen3-codegen cache``: where built engines lie, how big they are, and clearing them away."""

from __future__ import annotations

import argparse
import math
from datetime import datetime

from qwen3_codegen.cache_contents import KINDS, CacheEntry, cache_entries, clear_cache
from qwen3_codegen.paths import cache_dir
from qwen3_codegen.progress import format_bytes, say


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "cache",
        help="show or clear the folder of built engines",
        description="Built engines and installed libraries lie in a cache folder, which may be "
        "cleared at any time: what is needed again is built again. QWEN3_CODEGEN_CACHE chooses "
        "another folder. Models from the hub lie in Hugging Face's own cache (`hf cache --help`).",
        epilog="kinds:\n" + "\n".join(f"  {kind:12}{what}" for kind, what in KINDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    actions.add_parser("path", help="print the folder").set_defaults(run=run_path)
    actions.add_parser("list", help="list what is in it, with sizes").set_defaults(run=run_list)
    clear = actions.add_parser(
        "clear",
        help="delete what is in it, without asking",
        description="Deletes what is in the cache, without asking. Refuses while another process "
        "is building.",
    )
    clear.add_argument(
        "--older-than", type=_days, metavar="DAYS", help="spare what was written since"
    )
    clear.set_defaults(run=run_clear)


def run_path(args: argparse.Namespace) -> int:
    """Prints the folder."""
    print(cache_dir())
    return 0


def run_list(args: argparse.Namespace) -> int:
    """Prints one line per entry, and the sum on standard error."""
    entries = cache_entries()
    width = max((len(entry.name) for entry in entries), default=0)
    for entry in entries:
        made = datetime.fromtimestamp(entry.made).strftime("%Y-%m-%d %H:%M")
        print(f"{entry.kind:10}  {entry.name:{width}}  {format_bytes(entry.num_bytes):>11}  {made}")
    say(f"{_sum(entries)} in {cache_dir()}")
    return 0


def run_clear(args: argparse.Namespace) -> int:
    """Deletes entries and says how many."""
    say(f"cleared {_sum(clear_cache(args.older_than))} from {cache_dir()}")
    return 0


def _sum(entries: list[CacheEntry]) -> str:
    count = f"{len(entries)} {'entry' if len(entries) == 1 else 'entries'}"
    return f"{count} ({format_bytes(sum(entry.num_bytes for entry in entries))})"


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = math.nan
    if not 0 <= days < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number of days from 0")
    return days
