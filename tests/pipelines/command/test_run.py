from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
import ray
from fsspec.implementations.memory import MemoryFileSystem
from pydantic import BaseModel

from pipelines.command.parser import add_subcommand, command_parser, local_folder, num_workers
from pipelines.command.run import configure_logging, run_command
from pipelines.command.secrets import redact, to_json
from pipelines.errors import RunFailedError
from ulsdram_core.errors import LabelError, PictureError
from ulsdram_core.reasons import Reason

ROOT = Path(__file__).resolve().parents[3]


class Settings(BaseModel):
    epochs: int


def raising(error: Exception):
    def main(_argv):
        raise error

    return main


def call(main, argv=()) -> int:
    with pytest.raises(SystemExit) as exit_:
        run_command(main, list(argv))
    return exit_.value.code


def test_done_prints_the_summary_last_and_writes_it(tmp_path, capsys):
    target = tmp_path / "new" / "summary.json"

    def main(argv):
        args = command_parser("says something").parse_args(argv)
        sys.stdout.write("working\n")
        return {"rows": np.int64(3), "loss": float("nan"), "out": Path(args.summary_out)}

    assert call(main, ["--summary-out", str(target)]) == 0
    lines = capsys.readouterr().out.splitlines()
    summary = json.loads(lines[-1])
    assert lines[0] == "working"
    assert (summary["status"], summary["rows"], summary["loss"]) == ("ok", 3, None)
    assert json.loads(target.read_text()) == summary
    assert [path.name for path in target.parent.iterdir()] == ["summary.json"]


def test_summary_goes_to_any_filesystem(capsys):
    assert call(lambda _argv: {"rows": 1}, ["--summary-out", "memory://runs/summary.json"]) == 0
    stored = fsspec.filesystem("memory").cat_file("/runs/summary.json")
    assert json.loads(stored) == json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("found 3 rows,\nexpected 4; count again"),
        LabelError("found 3 rows, expected 4; count again"),
    ],
)
def test_wrong_request_is_one_line_and_exit_2(error, capsys):
    assert call(raising(error)) == 2
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1
    assert "found 3 rows, expected 4; count again" in captured.err
    assert json.loads(captured.out)["status"] == "wrong request"


def test_wrong_settings_are_one_line(capsys):
    def main(_argv):
        return Settings.model_validate({"epochs": "many"}).model_dump()

    assert call(main) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "epochs" in err
    assert "pydantic" not in err


@pytest.mark.parametrize("argv", [["--unknown"], ["--summary-out"], ["--count", "x"]])
def test_bad_options_are_one_line_and_exit_2(argv, capsys):
    def main(arguments):
        parser = command_parser("counts")
        parser.add_argument("--count", type=int)
        return vars(parser.parse_args(arguments))

    assert call(main, argv) == 2
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1
    assert json.loads(captured.out)["status"] == "wrong request"


def test_summary_out_is_checked_before_the_work(tmp_path, capsys):
    assert call(raising(AssertionError("ran")), ["--summary-out", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "is a folder" in captured.err
    assert json.loads(captured.out)["status"] == "wrong request"


class RefusedError(Exception):
    """What a cloud's client raises: no OSError."""


class GuardedStore(MemoryFileSystem):
    """Lets in who names the key; `reads` lets anybody look."""

    protocol = "guarded"
    cachable = False

    def __init__(self, key="", reads="no", **options):
        super().__init__(**options)
        self.key, self.reads = key, reads

    def isdir(self, path):
        if self.key != "hunter2hunter2" and self.reads == "no":
            raise RefusedError("the key is wrong\nrequest 7")
        return super().isdir(path)

    def pipe_file(self, path, value, mode="overwrite", **options):
        if self.key != "hunter2hunter2":
            raise RefusedError("the key is wrong\nrequest 8")
        super().pipe_file(path, value, mode, **options)


@pytest.fixture
def guarded():
    fsspec.register_implementation("guarded", GuardedStore, clobber=True)
    return ["--summary-out", "guarded://runs/guarded.json", "--storage-option"]


def test_the_summary_goes_where_the_storage_options_lead(guarded, capsys):
    assert call(lambda _argv: {"rows": 1}, [*guarded, "key=hunter2hunter2"]) == 0
    (stored,) = [data for path, data in GuardedStore.store.items() if "guarded.json" in path]
    assert json.loads(stored.getvalue()) == json.loads(capsys.readouterr().out)


def test_a_store_that_refuses_the_summary_is_one_line_before_the_work(guarded, capsys):
    assert call(raising(AssertionError("ran")), [*guarded, "key=other"]) == 2
    captured = capsys.readouterr()
    assert captured.err.splitlines()[0].endswith("cannot be written: the key is wrong request 7")
    assert len(captured.err.splitlines()) == 1
    assert json.loads(captured.out)["status"] == "wrong request"


def test_a_store_that_refuses_the_summary_afterwards_keeps_it_printed(guarded, capsys):
    assert call(lambda _argv: {"rows": 1}, [*guarded, "reads=yes"]) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines()[0].endswith("cannot be written: the key is wrong request 8")
    assert len(captured.err.splitlines()) == 1
    assert json.loads(captured.out)["rows"] == 1


def test_a_storage_option_without_a_value_is_one_line(guarded, capsys):
    assert call(raising(AssertionError("ran")), [*guarded, "key"]) == 2
    assert "write KEY=VALUE" in capsys.readouterr().err


def test_a_failure_is_exit_1(capsys):
    assert call(raising(RuntimeError("disk gone"))) == 1
    captured = capsys.readouterr()
    assert "RuntimeError: disk gone" in captured.err
    assert json.loads(captured.out)["status"] == "failed"


def test_a_failed_run_keeps_its_summary(capsys):
    assert call(raising(RunFailedError("gate closed", summary={"rows": 7}))) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].endswith("gate closed")
    assert json.loads(captured.out)["rows"] == 7


def test_interruption_is_not_success(capsys):
    assert call(raising(KeyboardInterrupt())) == 130
    assert "interrupted" in capsys.readouterr().err


def test_notes_are_part_of_the_line(capsys):
    error = LabelError("/tmp/copy holds no labels.json")
    error.add_note("/tmp/copy was a copy of s3://lake/model")
    assert call(raising(error)) == 2
    assert capsys.readouterr().err.endswith(
        "holds no labels.json; /tmp/copy was a copy of s3://lake/model\n"
    )


def test_a_users_mistake_is_seen_through_wrapping_errors():
    wrapped = RuntimeError("task died")
    wrapped.cause = PictureError("found no picture", reason=Reason.NO_PICTURE)
    assert call(raising(wrapped)) == 2


def test_a_remote_value_error_is_a_failure():
    remote = ValueError("inside a worker")
    remote.traceback_str = "long"
    assert call(raising(remote)) == 1


@pytest.mark.parametrize(
    "argv", [["--summary-out", "s.json", "go"], ["go", "--summary-out", "s.json", "-v"]]
)
def test_shared_options_stand_before_or_after_a_subcommand(argv):
    parser = command_parser("goes")
    add_subcommand(parser.add_subparsers(), "go", description="goes")
    args = parser.parse_args(argv)
    assert (args.summary_out, args.verbose) == ("s.json", "-v" in argv)


def test_help_is_exit_0(capsys):
    assert call(lambda argv: vars(command_parser("explains").parse_args(argv)), ["--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "--summary-out" in printed
    assert "0 done, 1 the run failed, 2 the request was wrong, 130 interrupted." in printed


@pytest.mark.parametrize("said", [0, -1])
def test_no_workers_are_refused(said):
    with pytest.raises(ValueError, match=f"--workers is {said}, expected at least 1"):
        num_workers(argparse.Namespace(workers=said))


def test_a_folder_of_this_machine_is_no_other_storage(tmp_path):
    assert local_folder(str(tmp_path)) == local_folder(f"file://{tmp_path}") == tmp_path
    with pytest.raises(ValueError, match="--out is s3://lake/x, expected a folder on this machine"):
        local_folder("s3://lake/x")


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIA:hunter2hunter2@bucket/key",
        "AWS_SECRET_ACCESS_KEY=hunter2hunter2",
        "{'aws_secret_access_key': 'hunter2hunter2'}",
        "options password: hunter2hunter2, region: eu",
    ],
)
def test_secrets_are_masked(text):
    assert "hunter2hunter2" not in redact(text)


def test_secret_variables_are_masked_everywhere(monkeypatch, capsys):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    assert call(raising(ValueError("signed with hunter2hunter2"))) == 2
    captured = capsys.readouterr()
    assert "hunter2hunter2" not in captured.out + captured.err
    assert to_json({"why": ["hunter2hunter2"], "secret_key": 3}) == (
        '{"why": ["***"], "secret_key": "***"}'
    )


def test_plain_words_are_not_masked():
    text = "tokenizer=bert max_tokens: 128 key=title"
    assert redact(text) == text


def test_process_exit_code_and_streams(tmp_path):
    job = tmp_path / "job.py"
    job.write_text(
        "from pipelines.command.run import run_command\n"
        "def main(argv):\n"
        "    raise ValueError('found nothing')\n"
        "run_command(main)\n"
    )
    done = subprocess.run(
        [sys.executable, str(job)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2
    assert done.stderr == "job.py: error: found nothing\n"


def test_verbose_keeps_the_traceback(capsys):
    configure_logging(verbose=True)
    record = logging.getLogger("pipelines").isEnabledFor(logging.DEBUG)
    configure_logging(verbose=False)
    assert record
    assert not logging.getLogger("pipelines").isEnabledFor(logging.DEBUG)
    capsys.readouterr()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_cluster_that_others_use_stays(capsys):
    assert call(lambda _argv: {}) == 0
    assert ray.is_initialized()
    capsys.readouterr()
