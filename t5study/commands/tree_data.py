"""The commands that bring benchmarks: data get, data list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from t5study.commands.flags import folder
from t5study.commands.leaves import group, leaf


def add(commands: Any) -> None:
    """Adds them to the command line."""
    data = group(commands, "data", "the paper's benchmarks, from the hub into a folder")
    get = leaf(
        data,
        "get",
        "data.get",
        "Fetch benchmarks, as parquet, into the folder that --data reads. What is there already is checked against its "
        "digests. Interrupted, the same command goes on.",
        "glue squad --data my-data\n  t5study data get glue --data other --pins my-data/glue/t5study-data.json",
    )
    get.add_argument("name", nargs="+", metavar="NAME", help="glue, squad ... (`t5study data list`)")
    get.add_argument("--data", type=folder, default=Path("data"), help="folder of the benchmarks")
    get.add_argument("--revision", help="branch, tag or commit (default: what was fetched last, else main)")
    get.add_argument("--pins", type=folder, help="a t5study-data.json of another machine: exactly those bytes")
    get.add_argument("--offline", action="store_true", help="use only what was fetched before")
    get.add_argument("--cache", type=folder, help="folder of fetched files (default: T5STUDY_CACHE, ~/.cache/t5study)")
    get.add_argument("--endpoint", help="address of the hub (default: HF_ENDPOINT, else the Hugging Face hub)")
    listed = leaf(data, "list", "data.list_all", "List the benchmarks that `data get` fetches.", "--data my-data")
    listed.add_argument("--data", type=folder, help="a folder: say which of them lie there")
