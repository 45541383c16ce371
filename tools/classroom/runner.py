"""Inside the walls: execute the notebook on standard input, and report each cell as it ends, a JSON line each."""

from __future__ import annotations

import json
import os
import sys

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError


def main(cell_seconds: float) -> int:
    """Exit status 1 where the kernel died."""
    report = os.fdopen(os.dup(1), "w", buffering=1)
    notebook = nbformat.reads(sys.stdin.read(), as_version=4)
    report.write("{}\n")  # started

    def done(cell, cell_index, execute_reply, **_):
        reply = execute_reply["content"]
        if reply["status"] == "error" and not any(o.output_type == "error" for o in cell.outputs):
            fault = {k: reply.get(k) for k in ("ename", "evalue", "traceback")}
            cell.outputs.append(nbformat.v4.new_output("error", **fault))
        report.write(json.dumps({"cell": cell_index, "outputs": cell.outputs}) + "\n")

    timeout = {"ename": "CellTimeoutError", "evalue": f"took longer than {cell_seconds:g} s", "traceback": []}
    client = NotebookClient(
        notebook,
        timeout=cell_seconds,
        kernel_name="python3",
        allow_errors=True,
        interrupt_on_timeout=True,
        error_on_timeout=timeout,
        on_cell_executed=done,
    )
    try:
        client.execute()
    except DeadKernelError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
